package evently

import (
	"testing"
	"time"
)

// epoch is the moment at which the tests' events go on sale. start is when the events begin.
var (
	epoch = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	start = epoch.AddDate(1000, 0, 0)
)

// newTestEvent returns a published event with tiers of equal capacity, priced 1000, 2000, ... minor units a seat.
func newTestEvent(tiers, capacity int) *Event {
	event := &Event{
		ID: 0xe, Organizer: 0xa, Status: EventPublished, Version: 1, CreatedAt: epoch,
		EventDetails: EventDetails{
			Name: "Concert", Timezone: "Europe/Berlin", Currency: "EUR",
			StartsAt: start, EndsAt: start.Add(time.Hour), SalesStartAt: epoch,
			HoldTTL: 10 * time.Minute, MaxPerBooking: 20,
		},
	}
	for i := range tiers {
		price := int64(1000 * (i + 1))
		event.Tiers = append(event.Tiers, Tier{Name: TierID(i), Capacity: capacity, BasePriceMinor: price, PriceMinor: price})
	}
	return event
}

// newTestLedger returns the ledger of a new event after its first entry.
func newTestLedger(event *Event) *Ledger { return NewLedger(event, 1, epoch, 0x5eed) }

func seats(tier, quantity int) Item { return Item{Tier: tier, Quantity: quantity} }

func mustItems(items ...Item) Items {
	made, err := NewItems(items...)
	if err != nil {
		panic(err)
	}
	return made
}

// do decides a command and posts its entries. The Decision is the caller's to keep.
func do(l *Ledger, cmd Command, at time.Time) (*Decision, error) {
	var d Decision
	err := l.Decide(cmd, at, &d)
	for i := range d.Entries {
		l.Post(&d.Entries[i])
	}
	return &d, err
}

func mustDo(t testing.TB, l *Ledger, cmd Command, at time.Time) *Decision {
	t.Helper()
	d, err := do(l, cmd, at)
	if err != nil {
		t.Fatalf("%T at %v: %v", cmd, at.Sub(epoch), err)
	}
	if err := l.Check(); err != nil {
		t.Fatalf("after %T at %v: %v", cmd, at.Sub(epoch), err)
	}
	return d
}
