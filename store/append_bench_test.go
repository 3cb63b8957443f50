package store

import (
	"fmt"
	"testing"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

// Batches of holds, as a sale makes them: of one event and of many, each in one transaction.
func BenchmarkJournal_Append(b *testing.B) {
	for _, c := range []struct{ events, entries int }{{1, 1}, {1, 64}, {1, 512}, {64, 1}, {64, 16}} {
		b.Run(fmt.Sprintf("%d events of %d entries", c.events, c.entries), func(b *testing.B) {
			pool := openWire(b, pgtest.Database(b), new(wire))
			journal := OpenJournal(pool, JournalConfig{Writers: 1})
			defer journal.Close()
			w := journal.writers[0]
			w.ensureConnected()
			offices := make([]*storetest.Office, c.events)
			for i := range offices {
				event := newEvent(evently.CapacityMax)
				if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
					b.Fatal(err)
				}
				offices[i] = storetest.OpenOffice(b, journal, event.ID)
			}
			for b.Loop() {
				b.StopTimer()
				batches := make([]*evently.Batch, 0, c.events)
				outcomes := make([]<-chan error, 0, c.events)
				for _, office := range offices {
					for range c.entries {
						office.Book(7, office.Now, evently.Item{Quantity: 1})
					}
					batch, outcome := office.Take()
					batches, outcomes = append(batches, batch), append(outcomes, outcome)
				}
				b.StartTimer()
				w.write(batches) // the writer's own goroutine has nothing to do
				for _, outcome := range outcomes {
					if err := <-outcome; err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*c.events*c.entries)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
