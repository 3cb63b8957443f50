package http

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// A draining server waits for those who work, and not for those who make it wait: clients that are slow to send a request or to
// take an answer.
const (
	// drainSlowMax is the time that such a client has to send the rest of a request, or to take an answer, during the drain.
	drainSlowMax = 2 * time.Second
	drainPeriod  = 50 * time.Millisecond // how often connections are looked at
)

// transfer is what a connection is at.
type transfer uint8

const (
	receiving transfer = iota // waits for a request or for the rest of one
	working                   // the request is there; a deadline for reading would be taken for a client that hung up
	sending                   // the answer is on its way
)

// connections are those of a server.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection knows what it is at.
type connection struct {
	net.Conn
	of *connections

	reading vigil
	writing deadline

	mu      sync.Mutex
	at      transfer
	hurried bool // the drain has set a deadline for this transfer: until
	until   time.Time
}

// connectionListener accepts connections that are counted among its own.
type connectionListener struct {
	net.Listener
	conns *connections
}

func (l connectionListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := newConnection(accepted, l.conns)
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	l.conns.open[conn] = struct{}{}
	return conn, nil
}

func newConnection(accepted net.Conn, of *connections) *connection {
	return &connection{
		Conn: accepted, of: of,
		reading: vigil{deadline: deadline{arm: accepted.SetReadDeadline}}, writing: deadline{arm: accepted.SetWriteDeadline},
	}
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	c.reading.close()
	return c.Conn.Close()
}

// CloseWrite is what net/http ends a connection with whose request it did not read to its end, so that the answer arrives.
func (c *connection) CloseWrite() error {
	if conn, able := c.Conn.(interface{ CloseWrite() error }); able {
		return conn.CloseWrite()
	}
	return nil
}

type connectionKey struct{}

// withConnection is http.Server.ConnContext.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// connectionOf returns the connection of a request if it is one of ours, else nil.
func connectionOf(request *http.Request) *connection {
	conn, _ := request.Context().Value(connectionKey{}).(*connection)
	return conn
}

// move notes what the connection is at. A nil connection is nobody's concern.
func (c *connection) move(at transfer) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at == c.at {
		return
	}
	if c.hurried && at == working {
		// An error means that the connection is closed, which whoever uses it finds out.
		_ = c.SetReadDeadline(time.Time{})
	}
	c.at, c.hurried = at, false
}

// hurry sets a connection that is not working a deadline.
func (c *connection) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at != working && !c.hurried {
		c.hurried, c.until = true, time.Now().Add(drainSlowMax)
	}
	switch c.at { // errors as in move
	case receiving:
		_ = c.SetReadDeadline(c.until)
	case sending:
		_ = c.SetWriteDeadline(c.until)
	case working:
	}
}

// hurry sets all connections that wait for their clients a deadline, until ctx ends.
func (c *connections) hurry(ctx context.Context) {
	ticker := time.NewTicker(drainPeriod)
	defer ticker.Stop()
	for {
		c.mu.Lock()
		for conn := range c.open {
			conn.hurry() // again each time: net/http sets deadlines of its own
		}
		c.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// remaining is the number of connections that are open.
func (c *connections) remaining() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// track is http.Server.ConnState.
func track(conn net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		conn.(*connection).move(receiving)
	}
}
