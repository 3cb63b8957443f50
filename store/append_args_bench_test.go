package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/evently/evently"
)

// One operation makes the parameters of a statement, without a server: 64 bookings of one event, or of 64 events.
func BenchmarkAppendArgs(b *testing.B) {
	const entries = 64
	at := time.Now().UTC().Truncate(time.Millisecond)
	for _, kind := range []evently.EntryKind{evently.HeldEntry, evently.ConfirmedEntry} {
		for _, events := range []int{1, entries} {
			b.Run(fmt.Sprintf("%s/events=%d", kind, events), func(b *testing.B) {
				var batches []*evently.Batch
				for event := range events {
					batch := &evently.Batch{
						Event: evently.EventID(event + 1), Epoch: 3, Owner: [16]byte{1}, PrevSeq: 1,
						Tiers: []evently.TierAvailability{{Capacity: 1000, Held: 64}}, NextDue: at.Add(time.Minute),
					}
					for n := range entries / events {
						entry := evently.Entry{
							Kind: kind, Seq: uint64(n) + 2, At: at, Who: 7, RequestID: "o4I_eHkqveqk.4", Token: evently.Token(n + 1),
						}
						if kind == evently.HeldEntry {
							entry.User, entry.Key = 7, evently.Key{Hi: 1, Lo: uint64(n)}
							entry.Items, entry.ExpiresAt = evently.OneItem(evently.Item{Quantity: 1, UnitPriceMinor: 500}), at.Add(time.Minute)
						}
						batch.Entries = append(batch.Entries, entry)
					}
					batches = append(batches, batch)
				}
				args := newAppendArgs()
				var params [][]byte
				b.ReportAllocs()
				for b.Loop() {
					var err error
					if _, params, err = args.params(params[:0], batches); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
