package http

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func newWork(t *testing.T, bound time.Duration) (*work, context.CancelFunc) {
	t.Helper()
	type key struct{}
	client, hangUp := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	w := &work{Context: client, deadline: time.Now().Add(bound)}
	t.Cleanup(func() {
		w.end()
		hangUp()
	})
	if w.Value(key{}) != "value" {
		t.Error("a value of the request's context is not there")
	}
	return w, hangUp
}

// The context ends as one of context.WithDeadline does, whether somebody has waited for it before or not, and so do those that
// are derived from it.
func TestWork_Ends(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *work, hangUp context.CancelFunc)
		want error
	}{
		"at its deadline":               {func(*work, context.CancelFunc) { <-time.After(time.Second) }, context.DeadlineExceeded},
		"when the client hangs up":      {func(_ *work, hangUp context.CancelFunc) { hangUp() }, context.Canceled},
		"when the answer has been made": {func(w *work, _ context.CancelFunc) { w.end() }, context.Canceled},
	} {
		for _, watched := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, hangUp := newWork(t, time.Second)
					derived := context.Context(w)
					if watched {
						var cancel context.CancelFunc
						derived, cancel = context.WithTimeout(w, time.Hour)
						defer cancel()
					}
					if err := errors.Join(w.Err(), derived.Err()); err != nil {
						t.Fatalf("ended at once: %v", err)
					}
					c.end(w, hangUp)
					synctest.Wait()
					if err := w.Err(); !errors.Is(err, c.want) {
						t.Errorf("Err is %v, want %v", err, c.want)
					}
					for _, ctx := range []context.Context{w, derived} {
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

// What the deadline ends does not count as the client's leaving.
func TestWork_GoneIsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, hangUp := newWork(t, time.Second)
		gone := evently.Gone(w)
		<-time.After(2 * time.Second)
		select {
		case <-gone:
			t.Error("gone at the deadline")
		default:
		}
		if evently.Gone(t.Context()) != t.Context().Done() {
			t.Error("a context of another kind is gone when it is done")
		}
		hangUp()
		<-gone
	})
}

// When the client has gone, Err tells so at once: who waits for Gone asks for the reason then. The contexts that are derived from the
// client's may end a moment later.
func TestWork_WhoIsGoneHasAReason(t *testing.T) {
	for range 100 {
		client := &hungUp{t.Context(), make(chan struct{})}
		w := &work{Context: client, deadline: time.Now().Add(time.Hour)}
		w.Done() // somebody has waited for the end before
		close(client.gone)
		<-evently.Gone(w)
		if err := w.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("Err is %v when the client has gone", err)
		}
		w.end()
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

// RequestTimeout bounds the work of handlers that wait for it to end, and tells its deadline to those that do not.
func TestWork_IsBoundedByTheRequestTimeout(t *testing.T) {
	const bound = 100 * time.Millisecond
	for _, key := range []string{"", "key-1"} {
		w := newSite(t, func(c *Config) { c.RequestTimeout = bound }, route{
			method: "POST", path: "/slow", key: keyOptional, handle: func(c *gin.Context) error {
				ctx := c.Request.Context()
				if deadline, bounded := ctx.Deadline(); !bounded || time.Until(deadline) > bound {
					t.Errorf("the deadline is %s, %v", deadline, bounded)
				}
				<-ctx.Done()
				return ctx.Err()
			},
		})
		headers := []string{"Idempotency-Key", key}
		if key == "" {
			headers = nil
		}
		if a := w.do(t, "POST", "/slow", "{}", headers...); a.status != http.StatusServiceUnavailable {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
}
