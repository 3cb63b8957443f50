package evently

import (
	"context"
	"time"
)

// Waitlists reads the entries of waitlists. What it returns is committed.
type Waitlists interface {
	// Waiter returns ErrWaiterNotFound when there is no such entry.
	Waiter(ctx context.Context, id WaiterID) (*WaiterState, error)
	// WaiterOf returns the entry by which a user waits for an event, or else the one that the user joined with last. It returns
	// ErrWaiterNotFound when the user never waited.
	WaiterOf(ctx context.Context, event EventID, user UserID) (*WaiterState, error)
	// Waiters lists those of an event in the order of service, the ones that wait before those that have ended; and those of a
	// user alone newest first. next is nil at the end.
	Waiters(ctx context.Context, filter WaiterFilter, page Page) (list []*WaiterState, next *Cursor, err error)
}

// WaiterFilter selects waiters of a user, an event or both. Zero fields select all, but not User and Event at once.
type WaiterFilter struct {
	User        UserID
	Event       EventID
	OnlyWaiting bool
}

// WaiterState is a waiter as it stands now. It is shared and never modified.
type WaiterState struct {
	Waiter
	// Position is the place among those who wait, in the order of service and from 1 on; 0: it waits no more.
	// Waiter.Position is the place at which it joined.
	Position int
	// Reservation is the status of the reservation that served it; it means something only when the waiter is Served.
	Reservation ReservationStatus
	ExpiresAt   time.Time // of that reservation; zero unless Served
}
