package evently

import (
	"context"
	"time"
)

// Audit reads who changed what: the journal of all events and the security log as one list.
type Audit interface {
	// Records lists the newest first. A page may have fewer records than its limit, or none, although there are more: next alone is nil at
	// the end. Records are never changed, and what is recorded while pages are read is not in the pages that follow. It returns an
	// *Error with CodeInvalidRequest when the filter names too much to look for, see AuditFilter.
	Records(ctx context.Context, filter AuditFilter, page Page) (records []*AuditRecord, next *Cursor, err error)
}

// AuditFilter selects records. Zero fields select all; but when neither Event nor User is given the time is from From to To, which
// are at most AuditRangeMax apart.
type AuditFilter struct {
	Event EventID
	Token Token  // of a reservation or a waiter of Event
	User  UserID // whose reservation, waiting or account it is, or who changed an event, its prices, a priority or somebody's account
	// Kind is an EntryKind's text or a SecurityKind.
	Kind     string
	From, To time.Time // from From on, before To
}

// AuditRangeMax bounds the time that is looked through for records of all events and users.
const AuditRangeMax = 31 * 24 * time.Hour

// AuditRecord is an entry of the journal, or of the security log.
type AuditRecord struct {
	At        time.Time
	Kind      string
	Actor     UserID // who did it; zero: the system, or somebody who was not signed in
	User      UserID // whose reservation, waiting or account it is; zero: none
	RequestID string

	Entry    *AuditEntry    // nil: of the security log
	Security *SecurityEntry // nil: of the journal
}

// AuditEntry is what the journal says beyond an AuditRecord.
type AuditEntry struct {
	Entry
	EventID      EventID
	Epoch        uint64
	WasConfirmed bool   // CancelledEntry: of a booking, not of a hold
	Before       *Event // the event before an entry that changed it; nil: the entry created it
	PriorityWas  int    // WaiterPrioritizedEntry
}

// ParseEntryKind is the inverse of EntryKind.String.
func ParseEntryKind(s string) (kind EntryKind, found bool) {
	for kind = EventCreatedEntry; kind <= EventRepricedEntry; kind++ {
		if kind.String() == s {
			return kind, true
		}
	}
	return 0, false
}
