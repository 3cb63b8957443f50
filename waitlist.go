package evently

import (
	"fmt"
	"strconv"
	"time"
)

// Limits of a waitlist.
const (
	WaitersMax  = 100_000 // who wait for one event at a time
	PriorityMax = 1_000_000
)

// OnRelease is what a waiter wants when seats are freed.
type OnRelease uint8

// The values are stored; never renumber them.
const (
	BookOnRelease OnRelease = iota // a booking at once
	HoldOnRelease                  // an offer: a hold that passes on when it lapses
)

func (o OnRelease) String() string {
	switch o {
	case BookOnRelease:
		return "book"
	case HoldOnRelease:
		return "hold"
	}
	return "OnRelease(" + strconv.Itoa(int(o)) + ")"
}

// ParseOnRelease is the inverse of OnRelease.String.
func ParseOnRelease(s string) (OnRelease, error) {
	for o := BookOnRelease; o <= HoldOnRelease; o++ {
		if o.String() == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("parse on_release %.40q: not book or hold", s)
}

// WaiterStatus is the stage of a waiter: waiting -> served | left | closed.
type WaiterStatus uint8

// The values are stored; never renumber them.
const (
	Waiting WaiterStatus = iota
	Served               // the reservation of the same token tells the rest
	Left                 // by own wish
	Closed               // sales ended, or the event was cancelled
)

func (s WaiterStatus) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Served:
		return "served"
	case Left:
		return "left"
	case Closed:
		return "closed"
	}
	return "WaiterStatus(" + strconv.Itoa(int(s)) + ")"
}

// Waiter is a user's place on the waitlist of an event. A user waits once at an event.
//
// Waiters are served in the order of their priority, higher first, then of their joining. Freed seats go to the first one whom they
// suffice for: one whose seats are not all free is passed over, and keeps the place. So no seat stays empty that
// somebody waits for, and a large party waits until enough seats are free at the same time, or is given a priority by the
// organizer in time. Seats that suffice for no waiter are on sale to everybody.
//
// Seats are given while the event is on sale, at the prices of that moment and by the same decision that frees them. Limits
// are checked when somebody joins: one that is lowered later ends nobody's waiting. Waiters are closed when sales end.
type Waiter struct {
	ID        WaiterID
	User      UserID
	Items     Items // without prices: what is paid is decided when the waiter is served
	OnRelease OnRelease
	Priority  int
	Position  int // when it joined, from 1 on
	Status    WaiterStatus
	JoinedAt  time.Time
	EndedAt   time.Time // when it was served, left or was closed; zero: it waits
	JoinedSeq uint64
	Seq       uint64 // of the entry that last changed it
}
