package proctest

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Relay is the way of one node to Postgres, which a test can cut and stall. It listens on TCP.
type Relay struct {
	listener net.Listener
	dsn      string
	network  string // of the server
	address  string

	mu      sync.Mutex
	state   relayState
	changed chan struct{} // closed and replaced with every change of state
	open    map[net.Conn]struct{}
	closed  bool
	work    sync.WaitGroup
}

type relayState uint8

const (
	relayOpen relayState = iota
	relayCut
	relayStalled
)

// NewRelay listens on an address and passes on to the server of a database URL. It ends with the test.
func NewRelay(t testing.TB, address, database string) *Relay {
	t.Helper()
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{changed: make(chan struct{}), open: make(map[net.Conn]struct{})}
	r.network, r.address = pgconn.NetworkAddress(config.Host, config.Port)
	if r.listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Host: r.listener.Addr().String(),
		Path: "/" + config.Database, RawQuery: "sslmode=disable",
	}
	r.dsn = dsn.String()
	r.work.Go(r.accept)
	t.Cleanup(func() {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		if err := r.listener.Close(); err != nil {
			t.Error(err)
		}
		r.set(relayCut)
		r.work.Wait()
	})
	return r
}

// DSN is the URL of the database by way of the relay.
func (r *Relay) DSN() string { return r.dsn }

// Cut breaks all connections and refuses new ones.
func (r *Relay) Cut() { r.set(relayCut) }

// Stall keeps connections and takes new ones, and passes nothing on, as does a network that loses everything.
func (r *Relay) Stall() { r.set(relayStalled) }

// Heal passes on again, what came during a stall as well.
func (r *Relay) Heal() { r.set(relayOpen) }

func (r *Relay) set(state relayState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	close(r.changed)
	r.changed = make(chan struct{})
	if state == relayCut {
		for conn := range r.open {
			conn.Close() //nolint:errcheck // whoever uses it finds out
		}
	}
}

func (r *Relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.serve(conn) })
	}
}

// serve connects a client that a relay in order takes.
func (r *Relay) serve(client net.Conn) {
	defer client.Close()
	if !r.keep(client) {
		return
	}
	defer r.forget(client)
	if r.pass() != nil {
		return
	}
	server, err := net.Dial(r.network, r.address)
	if err != nil {
		return
	}
	defer server.Close()
	if !r.keep(server) {
		return
	}
	defer r.forget(server)
	var ways sync.WaitGroup
	for _, way := range [2][2]net.Conn{{client, server}, {server, client}} {
		ways.Go(func() {
			defer way[0].Close() // the end of one way is that of both
			defer way[1].Close()
			r.copy(way[1], way[0])
		})
	}
	ways.Wait()
}

// keep notes a connection, so that a cut closes it.
func (r *Relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.state == relayCut {
		return false
	}
	r.open[conn] = struct{}{}
	return true
}

func (r *Relay) forget(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, conn)
}

func (r *Relay) copy(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if r.pass() != nil {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

var errCut = errors.New("the relay is cut")

// pass waits out a stall.
func (r *Relay) pass() error {
	for {
		r.mu.Lock()
		state, changed := r.state, r.changed
		r.mu.Unlock()
		switch state {
		case relayOpen:
			return nil
		case relayCut:
			return errCut
		case relayStalled:
			<-changed
		}
	}
}
