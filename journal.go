package evently

import (
	"context"
	"errors"
	"time"
)

// Errors of a Journal.
var (
	// ErrFenced: another owner has acquired the event since; nothing was written.
	ErrFenced = errors.New("fenced: another owner has acquired the event")
	// ErrNotWritten: the batch was definitely not written.
	ErrNotWritten = errors.New("not written")
	// ErrOutcomeUnknown: the batch may or may not have been written. Only acquiring the event again tells: it fences a
	// commit that may still be under way.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// Journal is the durable log of all events, with the rows that it keeps in step. It alone decides who owns an event.
type Journal interface {
	// Acquire makes the caller the owner of an event and loads its state. Every earlier owner is fenced: a batch of its
	// that is committing now is waited for, and later ones are refused.
	// It returns ErrEventNotFound, ErrUnavailable wrapped with the cause, which is ErrFenced when another acquisition overtook
	// this one, or ctx's error.
	Acquire(ctx context.Context, event EventID) (*Tenure, error)

	// Append queues a batch. It returns ErrOverloaded when the queue is full. Otherwise it calls batch.Done exactly once,
	// on a goroutine that must not be blocked, with nil after the commit, or ErrFenced, ErrNotWritten or
	// ErrOutcomeUnknown wrapped with the cause. Until then the batch and what it refers to must not change. A batch may be queued before
	// the one before it is done; it is then written after that one, with an outcome of its own.
	Append(batch *Batch) error
}

// Tenure is the ownership of one event from an Acquire to the next one by anybody.
type Tenure struct {
	Ledger *Ledger
	Epoch  uint64   // counts the acquisitions of this event
	Owner  [16]byte // random; of this acquisition
	Now    time.Time
}

// Batch is entries of one event that are written together or not at all. A batch without entries writes nothing and
// only confirms that its owner was not fenced when it was checked.
type Batch struct {
	Event   EventID
	Epoch   uint64
	Owner   [16]byte
	PrevSeq uint64 // of the entry before the first one
	Entries []Entry
	Tiers   []TierAvailability // after the last entry
	Waiting int                // waiters after the last entry
	NextDue time.Time          // after the last entry, see Ledger.NextDue

	// Done is told the outcome and, when it is nil, the journal's clock at the commit.
	Done func(now time.Time, err error)
}

// LastSeq is the number of the batch's last entry.
func (b *Batch) LastSeq() uint64 { return b.PrevSeq + uint64(len(b.Entries)) }
