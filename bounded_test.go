package evently

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func newBounded(t *testing.T, bound time.Duration) (*Bounded, context.CancelFunc) {
	t.Helper()
	type key struct{}
	client, hangUp := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	b := Within(client, time.Now().Add(bound))
	t.Cleanup(func() {
		b.End()
		hangUp()
	})
	if b.Value(key{}) != "value" {
		t.Error("a value of the request's context is not there")
	}
	return b, hangUp
}

// The context ends as one of context.WithDeadline does, whether somebody has waited for it before or not, and so do those that
// are derived from it.
func TestBounded_Ends(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(b *Bounded, hangUp context.CancelFunc)
		want error
	}{
		"at its deadline":               {func(*Bounded, context.CancelFunc) { <-time.After(time.Second) }, context.DeadlineExceeded},
		"when the client hangs up":      {func(_ *Bounded, hangUp context.CancelFunc) { hangUp() }, context.Canceled},
		"when the answer has been made": {func(b *Bounded, _ context.CancelFunc) { b.End() }, context.Canceled},
	} {
		for _, watched := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, hangUp := newBounded(t, time.Second)
					derived := context.Context(b)
					if watched {
						var cancel context.CancelFunc
						derived, cancel = context.WithTimeout(b, time.Hour)
						defer cancel()
						if err := errors.Join(b.Err(), derived.Err()); err != nil {
							t.Fatalf("ended at once: %v", err)
						}
					}
					c.end(b, hangUp)
					synctest.Wait()
					if err := b.Err(); !errors.Is(err, c.want) {
						t.Errorf("Err is %v, want %v", err, c.want)
					}
					for _, ctx := range []context.Context{b, derived} {
						select {
						case <-ctx.Done():
						default:
							t.Error("Done is open")
						}
						if err := ctx.Err(); !errors.Is(err, c.want) {
							t.Errorf("Err is %v, want %v", err, c.want)
						}
					}
				})
			})
		}
	}
}

// One within another ends when either does, and knows the same client.
func TestBounded_EndsWithItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, hangUp := newBounded(t, time.Second)
		for _, deadline := range []time.Duration{time.Minute, time.Millisecond} {
			inner := Within(outer, time.Now().Add(deadline))
			if at, ok := inner.Deadline(); !ok || time.Until(at) != min(deadline, time.Second) || inner.Err() != nil {
				t.Errorf("deadline %s, error %v", time.Until(at), inner.Err())
			}
			inner.End()
			if outer.Err() != nil {
				t.Errorf("the outer one has ended with it: %v", outer.Err())
			}
		}
		inner := Within(outer, time.Now().Add(time.Minute))
		defer inner.End()
		hangUp()
		<-Gone(inner)
		if err := inner.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("Err is %v when the client has gone", err)
		}
	})
}

// What the deadline ends does not count as the client's leaving.
func TestBounded_GoneIsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, hangUp := newBounded(t, time.Second)
		gone := Gone(b)
		<-time.After(2 * time.Second)
		select {
		case <-gone:
			t.Error("gone at the deadline")
		default:
		}
		if Gone(t.Context()) != t.Context().Done() {
			t.Error("a context of another kind is gone when it is done")
		}
		hangUp()
		<-gone
	})
}

// When the client has gone, Err tells so at once: who waits for Gone asks for the reason then. The contexts that are derived from the
// client's may end a moment later.
func TestBounded_WhoIsGoneHasAReason(t *testing.T) {
	for range 100 {
		client := &hungUp{t.Context(), make(chan struct{})}
		b := Within(client, time.Now().Add(time.Hour))
		b.Done() // somebody has waited for the end before
		close(client.gone)
		<-Gone(b)
		if err := b.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("Err is %v when the client has gone", err)
		}
		b.End()
	}
}

// hungUp is the context of a client that has gone when gone is closed.
type hungUp struct {
	context.Context
	gone chan struct{}
}

func (h *hungUp) Done() <-chan struct{} { return h.gone }

func (h *hungUp) Err() error {
	select {
	case <-h.gone:
		return context.Canceled
	default:
		return nil
	}
}
