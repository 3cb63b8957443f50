package evently

import (
	"strconv"
	"time"
)

// EntryKind says what an Entry records.
type EntryKind uint8

// The values are stored; never renumber them.
const (
	EventCreatedEntry EntryKind = iota + 1
	EventRevisedEntry
	EventPublishedEntry
	EventCancelledEntry
	HeldEntry
	ConfirmedEntry
	CancelledEntry // of a hold or of a booking
	ExpiredEntry
	EventDeletedEntry // of a draft; its last entry, written by storage itself
	WaitlistedEntry
	WaiterPrioritizedEntry
	WaiterLeftEntry   // by the waiter's own wish
	WaiterClosedEntry // sales ended, or the event was cancelled
	EventPricingSetEntry
	EventRepricedEntry
)

func (k EntryKind) String() string {
	switch k {
	case EventCreatedEntry:
		return "event_created"
	case EventRevisedEntry:
		return "event_revised"
	case EventPublishedEntry:
		return "event_published"
	case EventCancelledEntry:
		return "event_cancelled"
	case HeldEntry:
		return "held"
	case ConfirmedEntry:
		return "confirmed"
	case CancelledEntry:
		return "cancelled"
	case ExpiredEntry:
		return "expired"
	case EventDeletedEntry:
		return "event_deleted"
	case WaitlistedEntry:
		return "waitlisted"
	case WaiterPrioritizedEntry:
		return "waiter_prioritized"
	case WaiterLeftEntry:
		return "waiter_left"
	case WaiterClosedEntry:
		return "waiter_closed"
	case EventPricingSetEntry:
		return "event_pricing_set"
	case EventRepricedEntry:
		return "event_repriced"
	}
	return "EntryKind(" + strconv.Itoa(int(k)) + ")"
}

// Entry is a recorded fact of one event. Entries are numbered by Seq without a gap; posting them in that order to a
// ledger gives its state.
type Entry struct {
	Kind      EntryKind
	Seq       uint64
	At        time.Time // whole milliseconds, UTC; never earlier than the entry before
	Who       UserID    // who asked; zero: the system, which also serves the waiters whom a request frees seats for
	RequestID string    // of the request that asked, or that freed the seats, or ""

	// Of the entries of a reservation or a waiter:
	Token     Token
	User      UserID    // HeldEntry, WaitlistedEntry: whose it is
	Key       Key       // HeldEntry, WaitlistedEntry; zero in a HeldEntry that serves a waiter
	Items     Items     // HeldEntry; WaitlistedEntry without prices
	ExpiresAt time.Time // HeldEntry
	Waiter    bool      // HeldEntry: it serves the waiter of the same token, who waits no more
	OnRelease OnRelease // WaitlistedEntry
	Position  int       // WaitlistedEntry: at that moment, from 1 on
	Priority  int       // WaiterPrioritizedEntry

	// Of an event's entries: the event as it is from now on.
	Event *Event
}
