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

// Office owns an event: a box office without haste, which decides on its ledger and writes when it is told to.
type Office struct {
	*evently.Tenure
	t        testing.TB
	journal  evently.Journal
	entries  []evently.Entry // decided and not written
	decision evently.Decision
}

// OpenOffice acquires an event.
func OpenOffice(t testing.TB, journal evently.Journal, event evently.EventID) *Office {
	t.Helper()
	tenure, err := journal.Acquire(t.Context(), event)
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	return &Office{t: t, journal: journal, Tenure: tenure}
}

// Decide posts what a command changes at a moment and keeps its entries for the next batch.
func (o *Office) Decide(command evently.Command, at time.Time) evently.Reservation {
	o.t.Helper()
	if err := o.Try(command, at, func(*evently.Entry) {}); err != nil {
		o.t.Fatalf("%T: %v", command, err)
	}
	return o.decision.Reservation
}

// Try is Decide for a command that may be refused. posted is called after each entry is posted.
func (o *Office) Try(command evently.Command, at time.Time, posted func(*evently.Entry)) error {
	if err := o.Ledger.Decide(command, at, &o.decision); err != nil {
		return err
	}
	for i := range o.decision.Entries {
		entry := &o.decision.Entries[i]
		entry.Who, entry.RequestID = 7, "request"
		o.Ledger.Post(entry)
		o.entries = append(o.entries, *entry)
		posted(entry)
	}
	return nil
}

// Book decides a booking with a key of its own.
func (o *Office) Book(user evently.UserID, at time.Time, items ...evently.Item) evently.Reservation {
	o.t.Helper()
	asked, err := evently.NewItems(items...)
	if err != nil {
		o.t.Fatal(err)
	}
	token := evently.Token(rand.Uint64() | 1)
	return o.Decide(&evently.Book{User: user, Key: evently.Key{Hi: uint64(token), Lo: 1}, Items: asked, Token: token}, at)
}

// Join decides a waiting with a key of its own.
func (o *Office) Join(user evently.UserID, at time.Time, onRelease evently.OnRelease, items ...evently.Item) evently.Waiter {
	o.t.Helper()
	asked, err := evently.NewItems(items...)
	if err != nil {
		o.t.Fatal(err)
	}
	token := evently.Token(rand.Uint64() | 1)
	o.Decide(&evently.JoinWaitlist{
		User: user, Key: evently.Key{Hi: uint64(token), Lo: 2}, Items: asked, OnRelease: onRelease, Token: token,
	}, at)
	return *o.decision.Waiter
}

// Take makes a batch of what is decided. Its outcome comes over the channel.
func (o *Office) Take() (*evently.Batch, <-chan error) {
	outcome := make(chan error, 1)
	var sums evently.Availability
	o.Ledger.Availability(&sums)
	batch := &evently.Batch{
		Event: o.Ledger.Event().ID, Epoch: o.Epoch, Owner: o.Owner, PrevSeq: o.Ledger.Seq() - uint64(len(o.entries)), Entries: o.entries,
		Tiers: sums.Tiers, Waiting: sums.Waiting, NextDue: o.Ledger.NextDue(), Done: func(_ time.Time, err error) { outcome <- err },
	}
	o.entries = nil
	return batch, outcome
}

// Append gives a batch of Take to the journal and waits for its outcome.
func (o *Office) Append(batch *evently.Batch, outcome <-chan error) error {
	o.t.Helper()
	if err := o.journal.Append(batch); err != nil {
		return err
	}
	return Await(o.t, outcome)
}

// Flush writes what is decided, or asks whether the office still owns the event.
func (o *Office) Flush() error {
	o.t.Helper()
	return o.Append(o.Take())
}

// MustFlush writes what is decided.
func (o *Office) MustFlush() {
	o.t.Helper()
	if err := o.Flush(); err != nil {
		o.t.Fatalf("append: %v", err)
	}
}

// Await returns an outcome that has to come.
func Await(t testing.TB, outcome <-chan error) error {
	t.Helper()
	select {
	case err := <-outcome:
		return err
	case <-time.After(outcomeMax):
		t.Fatalf("no outcome after %v", outcomeMax)
		return nil
	}
}

// do decides commands at a moment and returns when they are written.
func (o *Office) do(at time.Time, commands ...evently.Command) (last evently.Reservation) {
	o.t.Helper()
	for _, command := range commands {
		last = o.Decide(command, at)
	}
	o.MustFlush()
	return last
}

func (o *Office) book(user evently.UserID, at time.Time, items ...evently.Item) evently.Reservation {
	o.t.Helper()
	booked := o.Book(user, at, items...)
	o.MustFlush()
	return booked
}
