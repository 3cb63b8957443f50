package evently

import (
	"context"
	"sync"
	"time"
)

// Bounded is a context that also ends at a deadline, and by End. Unlike one of context.WithDeadline it costs a timer, and a place
// among what its parent ends, only when somebody waits or asks for its end, as a query does and a booking does not: who keeps the
// deadline by a timer of their own waits for Gone.
type Bounded struct {
	context.Context // without the deadline
	deadline        time.Time

	mu     sync.Mutex
	timed  context.Context // what Done waits for; nil: nobody asked
	cancel context.CancelFunc
	over   bool
}

var _ context.Context = (*Bounded)(nil)

// Within returns a context that ends at a deadline, or with ctx if that is earlier. Call End when what is done by it is done.
func Within(ctx context.Context, deadline time.Time) *Bounded {
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	return &Bounded{Context: ctx, deadline: deadline}
}

// Deadline implements context.Context.
func (b *Bounded) Deadline() (time.Time, bool) { return b.deadline, true }

// Done implements context.Context.
func (b *Bounded) Done() <-chan struct{} { return b.full().Done() }

// Err implements context.Context.
func (b *Bounded) Err() error {
	timed := b.full()
	if b.Context.Err() != nil {
		<-timed.Done() // which follows at once: who was told by Gone must find a reason
	}
	return timed.Err()
}

// Value implements context.Context. It lets context find out how to end the contexts that are derived from this one.
func (b *Bounded) Value(key any) any {
	b.mu.Lock()
	timed := b.timed
	b.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return b.Context.Value(key)
}

// Gone is closed when whoever asked does not wait any more: see the function.
func (b *Bounded) Gone() <-chan struct{} { return Gone(b.Context) }

// full returns a context that ends when b does.
func (b *Bounded) full() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.Context, b.deadline)
		if b.over {
			b.cancel()
		}
	}
	return b.timed
}

// End ends the context and releases its timer.
func (b *Bounded) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.cancel != nil {
		b.cancel()
	}
}

// Gone returns a channel that is closed when whoever asked by ctx does not wait any more. It is that of ctx.Done, unless ctx knows
// one by a method Gone, which need not be closed at ctx's deadline and so costs no timer: it is for those who keep the deadline
// by a timer of their own. Once it is closed ctx.Err tells why.
func Gone(ctx context.Context) <-chan struct{} {
	if patient, ok := ctx.(interface{ Gone() <-chan struct{} }); ok {
		return patient.Gone()
	}
	return ctx.Done()
}
