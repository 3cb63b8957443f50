package store

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/store/storetest"
)

// While Postgres is away an attempt to connect takes seconds, as does the end of one to write. Those who wait for a writer wait for
// one of them, not for one each.
func TestWriter_WhoWaitsWaitsForOneConnection(t *testing.T) {
	for _, c := range []struct {
		name    string
		connect func(dial func() (net.Conn, error)) (net.Conn, error)
	}{
		{"that is not made", func(func() (net.Conn, error)) (net.Conn, error) { return nil, errors.New("no route to host") }},
		{"that breaks", func(dial func() (net.Conn, error)) (net.Conn, error) {
			conn, err := dial()
			return &fragile{conn}, err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, JournalConfig{})
			config := b.journal.config
			config.Logger, config.Metrics = slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry())
			w := newWriter(b.pool.Config().ConnConfig, &config, new(reach))
			var outcomes []<-chan error
			queue := func(seats int) {
				o := b.acquire(b.event(5))
				if seats > 0 {
					o.book(evently.Item{Quantity: seats})
				}
				batch, outcome := o.Take()
				w.queue <- batch
				outcomes = append(outcomes, outcome)
			}
			queue(1)
			queue(0) // only to be confirmed
			dials := 0
			direct := w.connect.DialFunc
			w.connect.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				if dials++; dials == 1 {
					queue(2)
					close(w.queue)
				}
				return c.connect(func() (net.Conn, error) { return direct(ctx, network, address) })
			}
			w.run()
			for i, outcome := range outcomes {
				if err := storetest.Await(t, outcome); !errors.Is(err, evently.ErrNotWritten) && !errors.Is(err, evently.ErrOutcomeUnknown) {
					t.Errorf("batch %d: got %v, want a failure", i, err)
				}
			}
			if len(outcomes) != 3 || dials != 1 {
				t.Errorf("%d batches waited for %d connections, want 3 and 1", len(outcomes), dials)
			}
		})
	}
}

// fragile breaks when a prepared statement is to be run.
type fragile struct{ net.Conn }

func (f *fragile) Write(p []byte) (int, error) {
	const bind = 'B'
	if len(p) > 0 && p[0] == bind {
		return 0, errors.Join(errors.New("cut"), f.Close())
	}
	return f.Conn.Write(p)
}
