package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// supersede lets another owner take the hall's event, and the hall notice.
func (h *hall) supersede(n int) {
	h.Helper()
	if _, err := h.do(book(n, 1)); err != nil {
		h.Fatal(err)
	}
	h.journal.mu.Lock()
	h.journal.epoch++
	h.journal.mu.Unlock()
	pid := h.locator.pid
	if _, err := sendLocal(h.Context(), time.Minute, h.locator.system, pid, book(n, 1)); !errors.Is(err, errMoved) {
		h.Fatalf("superseded: got %v, want %v", err, errMoved)
	}
	h.awaitEnd(pid)
}

func (h *hall) awaitEnd(pid *actor.PID) {
	h.Helper()
	h.await("the end of the actor", func() bool {
		_, alive := h.locator.system.ProcessRegistry.GetLocal(pid.Id)
		return !alive
	})
}

func (h *hall) epoch() uint64 {
	h.journal.mu.Lock()
	defer h.journal.mu.Unlock()
	return h.journal.epoch
}

func realTime(c *Config) {
	began := time.Now()
	c.Now = func() time.Time { return opening.Add(time.Since(began)) }
}

// Two nodes that both believe to own an event, with callers at each, do not fence each other all the time.
func TestEventActor_RivalsTakeTurns(t *testing.T) {
	const stretch = 1500 * time.Millisecond
	one := newHall(t, evently.CapacityMax, realTime)
	two := newHall(t, evently.CapacityMax, realTime, func(c *Config) { c.Journal = one.journal })
	ctx, cancel := context.WithTimeout(t.Context(), stretch)
	defer cancel()
	var tokens atomic.Int64
	var booked [2]atomic.Int64
	var group sync.WaitGroup
	for i, h := range []*hall{one, two} {
		for range 2 {
			group.Go(func() {
				for ctx.Err() == nil {
					if _, err := h.engine.Do(ctx, book(int(tokens.Add(1)), 1)); err == nil {
						booked[i].Add(1)
					} else if !errors.Is(err, evently.ErrUnavailable) {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	// A node pauses for at least 50, 100, 200, 400 and 800 ms between its acquisitions.
	if got := one.epoch(); got < 3 || got > 2*(1+5) {
		t.Errorf("%d acquisitions in %v, want 3 to 12", got, stretch)
	}
	if booked[0].Load() == 0 || booked[1].Load() == 0 {
		t.Errorf("%d and %d bookings, want some at each node", booked[0].Load(), booked[1].Load())
	}
}

func TestEventActor_WaitsBeforeItAcquiresALostEventAgain(t *testing.T) {
	h := newHall(t, 50, realTime)
	h.supersede(1)
	began, epoch := time.Now(), h.epoch()
	if _, err := h.do(book(1, 1)); err != nil {
		t.Errorf("got %v, want an answer after the pause", err)
	}
	if took := time.Since(began); took < backoffMin/2-10*time.Millisecond { // which began when the actor noticed
		t.Errorf("acquired again after %v, want at least %v", took, backoffMin/2)
	}
	if got := testutil.ToFloat64(h.metrics.backoffs); got != 1 || h.epoch() != epoch+1 {
		t.Errorf("%v activations waited, %d acquisitions; want 1 and 1", got, h.epoch()-epoch)
	}
}

// During a long pause the callers go and see, and those who come wait for a moment only. The actor ends at once when it is told to.
func TestEventActor_CallersAreMovedDuringALongPause(t *testing.T) {
	for name, end := range map[string]func(*hall, *actor.PID){
		"drain": func(h *hall, pid *actor.PID) { h.locator.system.Root.Send(pid, &DrainMessage{}) },
		"stop":  func(h *hall, pid *actor.PID) { h.locator.system.Root.Stop(pid) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			h := newHall(t, 50, func(c *Config) { c.Now = func() time.Time { return opening.Add(time.Duration(ahead.Load())) } })
			for n := range 7 { // then the next pause takes 2.5 s at least
				ahead.Add(int64(backoffMax))
				h.supersede(n + 1)
			}
			epoch := h.epoch()
			pid, err := h.locator.Locate(t.Context(), Kind, evently.EventID(77).String())
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			ask := func() {
				_, err := sendLocal(t.Context(), time.Minute, h.locator.system, pid, book(100, 1))
				told <- err
			}
			for range 2 {
				go ask()
				if err := <-told; !errors.Is(err, errMoved) {
					t.Errorf("got %v, want %v", err, errMoved)
				}
			}
			go ask()
			h.await("a request that waits", func() bool { return testutil.ToFloat64(h.metrics.waiting) == 1 })
			end(h, pid)
			if err := <-told; !errors.Is(err, errMoved) && !errors.Is(err, errUnresolved) {
				t.Errorf("at the end: got %v, want %v", err, errMoved)
			}
			h.awaitEnd(pid)
			if got := testutil.ToFloat64(h.metrics.waiting); got != 0 || h.epoch() != epoch {
				t.Errorf("%v requests wait, %d acquisitions; want none", got, h.epoch()-epoch)
			}
		})
	}
}

// Another owner may come between the acquisition and the end of the load.
func TestEventActor_LostWhileLoading(t *testing.T) {
	h := newHall(t, 5, realTime)
	h.journal.refuse = []error{fmt.Errorf("acquire: %w", evently.ErrFenced)}
	if _, err := h.do(book(1, 1)); err != nil {
		t.Errorf("got %v, want an answer of the next activation", err)
	}
	if got := testutil.ToFloat64(h.metrics.activations.WithLabelValues("fenced")); got != 1 || testutil.ToFloat64(h.metrics.backoffs) != 1 {
		t.Errorf("%v activations fenced, %v waited; want 1 and 1", got, testutil.ToFloat64(h.metrics.backoffs))
	}
}
