package store

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// wire is what can go wrong between a node and Postgres.
type wire struct {
	cut         atomic.Bool                   // answers break the connection instead of being read
	withoutSync atomic.Bool                   // the Sync at the end of what is sent is lost
	stopped     atomic.Pointer[chan struct{}] // until it is closed answers are not read
	delay       time.Duration                 // of all that is sent; zero: none
}

// stop stops the reading of answers.
func (w *wire) stop() (resume func()) {
	stopped := make(chan struct{})
	w.stopped.Store(&stopped)
	return func() {
		w.stopped.Store(nil)
		close(stopped)
	}
}

// openWire opens a pool whose connections, and those of its journals, go over a wire.
func openWire(t testing.TB, url string, w *wire) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	tune(config.ConnConfig)
	config.MaxConns = 8
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &wired{conn, w}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

type wired struct {
	net.Conn
	wire *wire
}

func (w *wired) Write(p []byte) (int, error) {
	if w.wire.delay > 0 {
		<-time.After(w.wire.delay)
	}
	sync := []byte{'S', 0, 0, 0, 4}
	if !w.wire.withoutSync.Load() || !bytes.HasSuffix(p, sync) {
		return w.Conn.Write(p)
	}
	n, err := w.Conn.Write(bytes.TrimSuffix(p, sync))
	if err == nil {
		n = len(p)
	}
	return n, err
}

// Read waits for an answer before it loses it, so that the server has done what it was asked.
func (w *wired) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if stopped := w.wire.stopped.Load(); stopped != nil {
		<-*stopped
	}
	if w.wire.cut.Load() && err == nil {
		return 0, errors.Join(errors.New("cut"), w.Close())
	}
	return n, err
}
