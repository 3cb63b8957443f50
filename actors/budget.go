package actors

import (
	"context"
	"sync"
	"time"
)

// budget is a context that also ends at a deadline. Unlike context.WithDeadline it sets a timer only when somebody waits for
// the end, which nobody does on the way to an actor that is known and answers.
type budget struct {
	context.Context // the caller's
	deadline        time.Time

	once   sync.Once
	timed  context.Context // set by Done
	cancel context.CancelFunc
}

// Deadline implements context.Context.
func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }

// Done implements context.Context.
func (b *budget) Done() <-chan struct{} {
	b.once.Do(func() { b.timed, b.cancel = context.WithDeadline(b.Context, b.deadline) })
	return b.timed.Done()
}

// Err implements context.Context.
func (b *budget) Err() error {
	b.Done()
	return b.timed.Err()
}

// end releases the timer. The context must not be used any more.
func (b *budget) end() {
	b.once.Do(func() {})
	if b.cancel != nil {
		b.cancel()
	}
}
