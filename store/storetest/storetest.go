// Package storetest says in tests what the ports of package evently promise, for whatever implements them.
//
// Every Run function takes one that opens the port on storage of its own, which is empty.
package storetest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// outcomeMax bounds the wait for an outcome that has to come.
const outcomeMax = 30 * time.Second

// compared lets cmp look into domain values.
var compared = cmp.AllowUnexported(evently.Items{}, evently.Availability{})

// start is when the tests' events begin: in whole milliseconds, and late enough to be on sale.
var start = time.Date(2060, 6, 1, 18, 30, 0, 123e6, time.UTC)

// newEvent returns a published event with tiers of these capacities.
func newEvent(capacities ...int) *evently.Event {
	event := &evently.Event{
		ID: evently.EventID(rand.Uint64() | 1), Organizer: 1, Status: evently.EventPublished, Version: 1,
		CreatedAt: time.Now().UTC().Truncate(time.Millisecond),
		EventDetails: evently.EventDetails{
			Name: "Concert", Description: "With an encore", Category: "music", Venue: "Hall", City: "Berlin",
			Timezone: "Europe/Berlin", Currency: "EUR", StartsAt: start, EndsAt: start.Add(2 * time.Hour),
			HoldTTL: 10 * time.Minute, MaxPerBooking: 10,
		},
	}
	for i, capacity := range capacities {
		event.Tiers = append(event.Tiers, evently.Tier{
			Name: fmt.Sprint("Tier ", i), Capacity: capacity, BasePriceMinor: 1000, PriceMinor: int64(1000 + i),
		})
	}
	return event
}

func create(t *testing.T, catalogue evently.Catalogue, event *evently.Event) *evently.Event {
	t.Helper()
	created, err := catalogue.CreateEvent(t.Context(), event, event.Organizer, "request")
	if err != nil {
		t.Fatalf("create event: %v", err)
	}
	return created
}

// office owns an event and writes what its ledger decides.
type office struct {
	t       *testing.T
	journal evently.Journal
	tenure  *evently.Tenure
}

func openOffice(t *testing.T, journal evently.Journal, event evently.EventID) *office {
	t.Helper()
	tenure, err := journal.Acquire(t.Context(), event)
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	return &office{t, journal, tenure}
}

// do decides commands at a moment and returns when they are written.
func (o *office) do(at time.Time, commands ...evently.Command) evently.Reservation {
	o.t.Helper()
	ledger := o.tenure.Ledger
	var decision evently.Decision
	batch := &evently.Batch{Event: ledger.Event().ID, Epoch: o.tenure.Epoch, Owner: o.tenure.Owner, PrevSeq: ledger.Seq()}
	for _, command := range commands {
		if err := ledger.Decide(command, at, &decision); err != nil {
			o.t.Fatalf("%T: %v", command, err)
		}
		for i := range decision.Entries {
			ledger.Post(&decision.Entries[i])
			batch.Entries = append(batch.Entries, decision.Entries[i])
		}
	}
	var sums evently.Availability
	ledger.Availability(&sums)
	batch.Tiers, batch.NextDue = sums.Tiers, ledger.NextDue()
	outcome := make(chan error, 1)
	batch.Done = func(_ time.Time, err error) { outcome <- err }
	if err := o.journal.Append(batch); err != nil {
		o.t.Fatalf("append: %v", err)
	}
	select {
	case err := <-outcome:
		if err != nil {
			o.t.Fatalf("append: %v", err)
		}
	case <-time.After(outcomeMax):
		o.t.Fatalf("append: no outcome after %v", outcomeMax)
	}
	return decision.Reservation
}

func (o *office) book(user evently.UserID, at time.Time, items ...evently.Item) evently.Reservation {
	o.t.Helper()
	asked, err := evently.NewItems(items...)
	if err != nil {
		o.t.Fatal(err)
	}
	token := evently.Token(rand.Uint64() | 1)
	return o.do(at, &evently.Book{User: user, Key: evently.Key{Hi: uint64(token), Lo: 1}, Items: asked, Token: token})
}
