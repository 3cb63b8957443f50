package bench

import (
	"context"
	"fmt"

	"github.com/evently/evently"
)

// faultsMax bounds Audit.Faults.
const faultsMax = 10

// auditor compares.
type auditor struct {
	Audit
	told     *Told
	capacity int
	events   map[evently.EventID]*sold
	promised map[evently.ReservationID]*Promise
	keys     map[scope]evently.ReservationID
}

// sold is what is stored of an event.
type sold struct {
	Count
	untold int // reservations that nobody was told of
	ended  int // seats of reservations that were cancelled or have expired
}

// scope is what an idempotency key is unique in.
type scope struct {
	event evently.EventID
	key   evently.Key
}

// AuditOf compares what clients were told of some events with what is stored: all that was told there is, as it was told; there is
// nothing else, unless a client had no answer; no event has more seats sold than its capacity, or refused somebody while it had some
// left; no key has two reservations; and the counters are the sums of the reservations. Nothing may change meanwhile.
func AuditOf(ctx context.Context, told *Told, storage Storage, events []evently.EventID, capacity int) (Audit, error) {
	a := &auditor{
		told: told, capacity: capacity, events: make(map[evently.EventID]*sold, len(events)),
		promised: make(map[evently.ReservationID]*Promise, len(told.Promises)),
		keys:     make(map[scope]evently.ReservationID),
	}
	for _, event := range events {
		a.events[event] = new(sold)
	}
	a.Acknowledged = len(told.Promises)
	for i := range told.Promises {
		p := &told.Promises[i]
		if a.promised[p.ID] != nil {
			a.Lost++
			a.fault("reservation %s was given to two requests", p.ID)
			continue
		}
		a.promised[p.ID] = p
	}
	for _, what := range told.Doubled {
		a.DoubledKeys++
		a.fault("%s", what)
	}
	if err := storage.Reservations(ctx, events, a.compare); err != nil {
		return Audit{}, fmt.Errorf("audit: %w", err)
	}
	a.missing()
	a.Keys = len(a.keys)
	counts, err := storage.Counts(ctx, events)
	if err != nil {
		return Audit{}, fmt.Errorf("audit: %w", err)
	}
	a.sums(counts)
	return a.Audit, nil
}

func (a *Audit) fault(format string, args ...any) {
	if len(a.Faults) < faultsMax {
		a.Faults = append(a.Faults, fmt.Sprintf(format, args...))
	}
}

// compare holds a reservation against what was told of it.
func (a *auditor) compare(r Stored) {
	a.Stored++
	of := a.events[r.ID.Event]
	if of == nil {
		a.fault("reservation %s is of an event that was not asked for", r.ID)
		return
	}
	switch r.Status {
	case evently.Held:
		of.Held += r.Quantity
	case evently.Confirmed:
		of.Booked += r.Quantity
	case evently.Cancelled, evently.Expired: // their seats are free
		of.ended += r.Quantity
	}
	if r.Key != (evently.Key{}) {
		at := scope{r.ID.Event, r.Key}
		if other, twice := a.keys[at]; twice {
			a.DoubledKeys++
			a.fault("a key has the reservations %s and %s", other, r.ID)
		}
		a.keys[at] = r.ID
	}
	p := a.promised[r.ID]
	if p == nil {
		of.untold++
		return
	}
	delete(a.promised, r.ID) // so that a second row of it is untold, and what is left is lost
	switch {
	case r.User != 0 && p.User != 0 && r.User != p.User:
		a.fault("reservation %s is of user %s and was given to user %s", r.ID, r.User, p.User)
	case r.Quantity != 1:
		a.fault("reservation %s has %d seats, and 1 was asked for", r.ID, r.Quantity)
	case r.Status != p.Status && !p.Unsure:
		a.fault("reservation %s is %s, and a client was told that it is %s", r.ID, r.Status, p.Status)
	}
}

// missing counts what was told and is not stored, and finds what is stored and was not told.
func (a *auditor) missing() {
	a.Lost += len(a.promised)
	for id := range a.promised {
		a.fault("reservation %s was acknowledged and is not stored", id)
		if len(a.Faults) == faultsMax {
			break
		}
	}
	for event, of := range a.events {
		if unknown := a.told.Unknown[event]; of.untold > unknown {
			a.fault("event %s has %d reservations that nobody was told of, and %d bookings without an answer", event, of.untold, unknown)
		}
	}
}

// sums compares the seats sold with the capacity, with what was refused, and with the counters, if there are any.
func (a *auditor) sums(counts map[evently.EventID]Count) {
	for event, of := range a.events {
		if over := of.Held + of.Booked - a.capacity; over > 0 {
			a.Oversold += over
			a.fault("event %s has %d seats sold of %d", event, of.Held+of.Booked, a.capacity)
		}
		// Seats that are free after a refusal came back since, or are of bookings that came to nothing.
		free := a.capacity - of.Held - of.Booked
		if refused := a.told.Refused[event]; refused > 0 && free > of.ended+a.told.Unknown[event] {
			a.fault("event %s has %d seats left, and refused %d bookings", event, free, refused)
		}
		if count, counted := counts[event]; counts != nil && (!counted || count != of.Count) {
			a.Miscounted++
			a.fault("event %s has %d seats held and %d booked, and its counters say %d and %d", event, of.Held, of.Booked, count.Held, count.Booked)
		}
	}
}
