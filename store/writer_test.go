package store

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

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

// gathered appends batches while the only writer is kept busy, so that it finds all of them at once. The first one has to be of those that
// Postgres refuses.
func (b *bench) gathered(queue func(later func(batch *evently.Batch, outcome <-chan error))) (outcomes []error) {
	b.Helper()
	release := b.stall()
	var awaited []<-chan error
	statements := 2 // the stall's, and the one that is refused: the batches that were in it are then tried alone
	queue(func(batch *evently.Batch, outcome <-chan error) {
		b.Helper()
		if err := b.journal.Append(batch); err != nil {
			b.Fatal(err)
		}
		awaited = append(awaited, outcome)
		if len(batch.Entries) > 0 {
			statements++
		}
	})
	release()
	for _, outcome := range awaited {
		outcomes = append(outcomes, storetest.Await(b.TB, outcome))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.journal.config.Metrics.commits)
	metrics, err := registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	if n := metrics[0].GetMetric()[0].GetHistogram().GetSampleCount(); n != uint64(statements) {
		b.Errorf("%d statements, want %d: the batches were not found together", n, statements)
	}
	return outcomes
}

// Three batches of one event are there before the first one is written: want is theirs, one after the other. Before them stands an event whose batch
// Postgres refuses, behind them a sound one.
func TestJournal_BatchesOfOneEventAreWrittenInOrder(t *testing.T) {
	t.Parallel()
	seat := evently.Item{Quantity: 1}
	for _, c := range []struct {
		name  string
		queue func(b *bench, o *owner, later func(*evently.Batch, <-chan error))
		want  [3]error
		rows  int
	}{
		{"holds", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			for range 3 {
				o.book(seat)
				o.book(seat)
				later(o.Take())
			}
		}, [3]error{}, 6},
		{"rows that change in each", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			held := o.book(seat)
			later(o.Take())
			o.book(seat)
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, o.Now.Add(time.Second))
			later(o.Take())
			o.decide(&evently.Cancel{User: 7, Token: held.ID.Token}, o.Now.Add(2*time.Second))
			later(o.Take())
		}, [3]error{}, 2},
		{"changes of the event and waiters", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			all := o.book(evently.Item{Quantity: 10})
			o.Join(8, o.Now, evently.BookOnRelease, seat)
			later(o.Take())
			details := o.Ledger.Event().EventDetails
			for _, name := range []string{"New", "Newer"} {
				details.Name = name
				o.decide(&evently.Revise{Version: o.Ledger.Event().Version, Details: details}, o.Now)
				if name == "New" {
					o.decide(&evently.Release{User: 7, Token: all.ID.Token}, o.Now)
				}
				later(o.Take())
			}
		}, [3]error{}, 2},
		{"with questions between them", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			later(o.Take())
			o.book(seat)
			later(o.Take())
			later(o.Take())
		}, [3]error{}, 1},
		{"of an owner that is fenced", func(b *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			b.acquire(o.Ledger.Event().ID)
			for range 3 {
				o.book(seat)
				later(o.Take())
			}
		}, [3]error{evently.ErrFenced, evently.ErrFenced, evently.ErrFenced}, 0},
		{"of one owner after the other", func(b *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			o.book(seat)
			later(o.Take())
			next := b.acquire(o.Ledger.Event().ID)
			for range 2 {
				next.book(seat)
				later(next.Take())
			}
		}, [3]error{evently.ErrFenced, nil, nil}, 2},
		{"one of them out of place", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			o.book(seat)
			later(o.Take())
			o.book(seat)
			o.Take() // is lost
			for range 2 {
				o.book(seat)
				later(o.Take())
			}
		}, [3]error{nil, evently.ErrFenced, evently.ErrFenced}, 1},
		{"one of them refused", func(_ *bench, o *owner, later func(*evently.Batch, <-chan error)) {
			for i := range 3 {
				o.book(seat)
				batch, outcome := o.Take()
				if i == 1 {
					batch.Entries[0].Items = evently.OneItem(evently.Item{Quantity: -1})
				}
				later(batch, outcome)
			}
		}, [3]error{nil, evently.ErrNotWritten, evently.ErrFenced}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, JournalConfig{Writers: 1})
			damaged, o, sound := b.acquire(b.event(5)), b.acquire(b.event(10)), b.acquire(b.event(5))
			outcomes := b.gathered(func(later func(*evently.Batch, <-chan error)) {
				damaged.book(seat)
				batch, outcome := damaged.Take()
				batch.Tiers = []evently.TierAvailability{{Capacity: 5, Held: 6}}
				later(batch, outcome)
				c.queue(b, o, later)
				sound.book(seat)
				later(sound.Take())
			})
			want := []error{evently.ErrNotWritten, c.want[0], c.want[1], c.want[2], nil}
			if len(outcomes) != len(want) {
				t.Fatalf("%d outcomes, want %d", len(outcomes), len(want))
			}
			for i, err := range outcomes {
				if !errors.Is(err, want[i]) {
					t.Errorf("batch %d: got %v, want %v", i, err, want[i])
				}
			}
			const others = 2 // the stall's and that of the sound event
			if n := b.count("select count(*) from reservations"); n != others+c.rows {
				t.Errorf("%d reservations, want %d", n, others+c.rows)
			}
			b.verify()
			b.acquire(o.Ledger.Event().ID)
		})
	}
}
