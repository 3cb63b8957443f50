package actors

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/cluster"
)

// memories is a journal of many events in memory, each acquired in a millisecond.
type memories map[evently.EventID]*memory

func newMemories(events int) memories {
	journal := make(memories)
	for id := evently.EventID(1); int(id) <= events; id++ {
		event := newEvent(evently.CapacityMax)
		event.ID = id
		journal[id] = &memory{event: event}
	}
	return journal
}

func (m memories) Acquire(ctx context.Context, event evently.EventID) (*evently.Tenure, error) {
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return m[event].Acquire(ctx, event)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m memories) Append(batch *evently.Batch) error { return m[batch.Event].Append(batch) }

// Events are drained while callers go on booking, so that each event is activated anew. The figures are the time until a booking
// of every event is answered, and how long callers wait for one.
func BenchmarkEngine_Move(b *testing.B) {
	b.Run("one event", func(b *testing.B) { benchmarkMove(b, 1, 1) })
	b.Run("2000 events, 300 callers", func(b *testing.B) { benchmarkMove(b, 2000, 300) })
}

func benchmarkMove(b *testing.B, events, callers int) {
	metrics := NewMetrics(prometheus.NewRegistry())
	kind := NewKind(Config{Journal: newMemories(events), Observer: ignore{}, Logger: slog.New(slog.DiscardHandler), Metrics: metrics})
	node, err := cluster.Start(b.Context(), member(map[string]cluster.Kind{Kind: {Props: kind, Drain: &DrainMessage{}}}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := node.Stop(ctx); err != nil {
			b.Error(err)
		}
	})
	engine := NewEngine(node.System(), node, nil, metrics)
	var tokens atomic.Uint64
	bookAll := func() (waits []time.Duration) {
		waits = make([]time.Duration, events)
		var next atomic.Int64
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for i := next.Add(1) - 1; i < int64(events); i = next.Add(1) - 1 {
					n := tokens.Add(1)
					began := time.Now()
					if _, err := engine.Do(b.Context(), &evently.Request{Event: evently.EventID(i + 1), Who: 7, ID: "r", Command: &evently.Book{
						User: 7, Key: evently.Key{Lo: n}, Token: evently.Token(n), Items: evently.OneItem(evently.Item{Quantity: 1}),
					}}); err != nil {
						b.Error(err)
					}
					waits[i] = time.Since(began)
				}
			})
		}
		group.Wait()
		return waits
	}
	bookAll()
	pids := make([]*actor.PID, events)
	var waits []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range pids {
			if pids[i], err = node.Locate(b.Context(), Kind, evently.EventID(i+1).String()); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		for _, pid := range pids {
			node.System().Root.Send(pid, &DrainMessage{})
		}
		waits = append(waits, bookAll()...)
	}
	slices.Sort(waits)
	b.ReportMetric(waits[len(waits)/2].Seconds()*1e3, "ms-median")
	b.ReportMetric(waits[len(waits)*99/100].Seconds()*1e3, "ms-p99")
	b.ReportMetric(waits[len(waits)-1].Seconds()*1e3, "ms-max")
}
