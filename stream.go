package evently

import "context"

// Streams reads states of events for those who follow them live. What it returns is committed.
type Streams interface {
	// Newer returns the states, as they are now, of those events that have entries after a mark. Events that are not there are left
	// out.
	Newer(ctx context.Context, marks []Mark) ([]*State, error)
	// Recent returns the states of an event after each of its last entries, in their order: at most limit of them. AsOf is the time of
	// the entry, and of the last state, which is the present one, the time of the read. It returns ErrEventNotFound.
	Recent(ctx context.Context, event EventID, limit int) ([]*State, error)
}

// Mark is a place in the journal of an event: behind the entry Seq.
type Mark struct {
	Event EventID
	Seq   uint64
}
