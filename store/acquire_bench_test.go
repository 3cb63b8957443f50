package store

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

// Many events move at once, as when a node leaves: eight at a time, each with a few reservations. Postgres is on this machine, or
// as if it were a round trip away.
func BenchmarkJournal_Acquire(b *testing.B) {
	for name, delay := range map[string]time.Duration{"here": 0, "2ms away": 2 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			url := pgtest.Database(b)
			events := storeEvents(b, openWire(b, url, new(wire)))
			benchmarkAcquire(b, openWire(b, url, &wire{delay: delay}), events)
		})
	}
}

// storeEvents returns events with a few reservations each.
func storeEvents(b *testing.B, pool *pgxpool.Pool) []evently.EventID {
	b.Helper()
	const reservations = 5
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	ids := make([]evently.EventID, 500)
	for i := range ids {
		event := newEvent(100)
		if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
			b.Fatal(err)
		}
		ids[i] = event.ID
		office := storetest.OpenOffice(b, journal, event.ID)
		for range reservations {
			office.Book(7, office.Now, evently.Item{Quantity: 1})
		}
		office.MustFlush()
	}
	return ids
}

func benchmarkAcquire(b *testing.B, pool *pgxpool.Pool, events []evently.EventID) {
	b.Helper()
	const parallel = 8
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	var next atomic.Uint64
	b.SetParallelism(max(1, parallel/runtime.GOMAXPROCS(0)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := journal.Acquire(b.Context(), events[next.Add(1)%uint64(len(events))]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acquisitions/s")
}
