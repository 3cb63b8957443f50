package http

import (
	"context"
	"sync"
	"time"
)

// work is the context of what is done for a request. It ends when the client has gone, at a deadline, and when the request has been
// answered. Unlike one of context.WithDeadline it costs a timer and a place among its parent's children only when somebody
// waits for its end, as a query does and a booking does not: who keeps the deadline with a timer of their own waits for Gone.
type work struct {
	context.Context // without a deadline
	deadline        time.Time

	mu     sync.Mutex
	timed  context.Context // what Done waits for; nil: nobody asked
	cancel context.CancelFunc
	over   bool
}

var _ context.Context = (*work)(nil)

// Deadline implements context.Context.
func (w *work) Deadline() (time.Time, bool) { return w.deadline, true }

// Done implements context.Context.
func (w *work) Done() <-chan struct{} { return w.full().Done() }

// Err implements context.Context.
func (w *work) Err() error {
	w.mu.Lock()
	gone := w.Context.Err() != nil
	unknown := w.timed == nil && !w.over && !gone && time.Now().Before(w.deadline)
	w.mu.Unlock()
	if unknown {
		return nil
	}
	timed := w.full()
	if gone {
		<-timed.Done() // which follows the client's leaving at once: who was told by Gone must find a reason
	}
	return timed.Err()
}

// Value implements context.Context. It lets context find out how to end the contexts that are derived from this one.
func (w *work) Value(key any) any {
	w.mu.Lock()
	timed := w.timed
	w.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return w.Context.Value(key)
}

// Gone is closed when the client has gone: see evently.Gone.
func (w *work) Gone() <-chan struct{} { return w.Context.Done() }

// full returns a context that ends when w does.
func (w *work) full() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timed == nil {
		w.timed, w.cancel = context.WithDeadline(w.Context, w.deadline)
		if w.over {
			w.cancel()
		}
	}
	return w.timed
}

// end ends the context.
func (w *work) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.cancel != nil {
		w.cancel()
	}
}
