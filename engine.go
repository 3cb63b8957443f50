package evently

import (
	"context"
	"time"
)

// Request is a Command with its origin.
type Request struct {
	Event   EventID
	Command Command
	Who     UserID // who asks; zero: the system
	ID      string // request id, for logs and the journal
	Trace   string // W3C traceparent of the caller's span, for logs; empty: none
}

// Reply is the answer to a Request; which field is set depends on the command, see Decision.
type Reply struct {
	Reservation Reservation
	Event       *Event
	Waiter      *Waiter
	Replayed    bool
}

// Engine decides requests, each in the actor that owns its event.
type Engine interface {
	// Do returns when the outcome is durable, including a refusal's. Errors are *Error: the refusals of the command,
	// ErrEventNotFound, ErrOverloaded, or ErrUnavailable when ctx ended or the owner could not answer; then the outcome is
	// unknown and the request may be repeated.
	Do(ctx context.Context, request *Request) (Reply, error)
}

// Observer is told committed states as they come about on this node, in the order of their Seq for one owner.
// Calls come from event actors and must return at once.
type Observer interface {
	Committed(state *State)
}

// Catalogue reads and adds events. Its states are committed ones.
type Catalogue interface {
	// CreateEvent stores a new event with its first journal entry. An event with that ID already there is returned
	// instead when it was made by the same organizer, so that a repeated request has one effect.
	CreateEvent(ctx context.Context, event *Event, who UserID, requestID string) (*Event, error)
	// DeleteDraft removes an event that never was published. It returns ErrEventNotFound or ErrEventNotDraft.
	DeleteDraft(ctx context.Context, id EventID, who UserID, requestID string) error
	// State returns ErrEventNotFound when there is no such event. AsOf is the time of the read.
	State(ctx context.Context, id EventID) (*State, error)
	// States lists events. next is nil at the end.
	States(ctx context.Context, filter EventFilter, page Page) (states []*State, next *Cursor, err error)
	// PricedEvents lists up to limit published events that have a pricing rule and have not begun, in an order of its own: those
	// that come behind after, or from the beginning when after is zero. Fewer than limit: there are no more.
	PricedEvents(ctx context.Context, after EventID, limit int) ([]EventID, error)
}

// EventSort is an order of events.
type EventSort uint8

// The orders: soonest start first, or most booked seats first.
const (
	ByStart EventSort = iota
	ByPopularity
)

// EventFilter selects events. Zero fields select all.
type EventFilter struct {
	Text           string // found in name, description, venue or city, whatever the case
	Category, City string // equal, whatever the case
	From, To       time.Time
	Organizer      UserID
	Statuses       []EventStatus
	Sort           EventSort
}

// History reads reservations.
type History interface {
	// Reservation returns ErrReservationNotFound when there is no such reservation.
	Reservation(ctx context.Context, id ReservationID) (*Reservation, error)
	// Reservations lists newest first. next is nil at the end.
	Reservations(ctx context.Context, filter ReservationFilter, page Page) (list []*Reservation, next *Cursor, err error)
}

// ReservationFilter selects reservations of a user, an event or both. Zero fields select all, but not all three at once.
type ReservationFilter struct {
	User     UserID
	Event    EventID
	Statuses []ReservationStatus
}

// Page asks for a part of a list.
type Page struct {
	Limit int     // 1 to PageLimitMax
	After *Cursor // nil: from the beginning
}

// PageLimitMax bounds Page.Limit.
const PageLimitMax = 100

// Cursor is the sort key of the last row of a page. Its meaning belongs to the list that made it.
type Cursor struct {
	Order int64
	Event EventID
	Token Token
}
