package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// slowCatalogue answers when it is told to.
type slowCatalogue struct {
	evently.Catalogue
	state func(ctx context.Context, id evently.EventID) (*evently.State, error)
	lists func(ctx context.Context) ([]*evently.State, error)
}

func (s *slowCatalogue) State(ctx context.Context, id evently.EventID) (*evently.State, error) {
	return s.state(ctx, id)
}

func (s *slowCatalogue) States(ctx context.Context, _ evently.EventFilter, _ evently.Page) ([]*evently.State, *evently.Cursor, error) {
	states, err := s.lists(ctx)
	return states, nil, err
}

// newSlowCaches makes caches of a catalogue, and where they log.
func newSlowCaches(catalogue *slowCatalogue) (*caches, *logBuffer) {
	logs := new(logBuffer)
	config := &Config{Catalogue: catalogue, Now: time.Now, Logger: slog.New(slog.NewJSONHandler(logs, nil))}
	return newCaches(config, newMetrics(prometheus.NewRegistry())), logs
}

// stateOf is a state of event 1 after a number of entries.
func stateOf(seq uint64) *evently.State {
	state := &evently.State{
		Event: &evently.Event{ID: 1, Version: 1}, Availability: evently.Availability{Event: 1, Seq: seq, AsOf: time.Now()},
	}
	state.Add(evently.TierAvailability{Capacity: 100, Held: int(seq)})
	return state
}

// wantSeq gets event 1 and compares its Seq.
func wantSeq(t *testing.T, c *caches, want uint64) {
	t.Helper()
	state, err := c.states.get(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if state.Seq != want {
		t.Errorf("got the state after entry %d, want %d", state.Seq, want)
	}
}

func TestCache_OneLoadServesAllWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 100
		var loads atomic.Int64
		release := make(chan struct{})
		c, _ := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			loads.Add(1)
			<-release
			return stateOf(7), nil
		}})
		got := make(chan error, requests)
		for i := range requests {
			go func() {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if i == 0 {
					cancel() // who began the load may go; the others still want it
				}
				state, err := c.states.get(ctx, 1)
				if err == nil && state.Seq != 7 {
					err = fmt.Errorf("got entry %d", state.Seq)
				}
				if i == 0 && errors.Is(err, context.Canceled) {
					err = nil
				}
				got <- err
			}()
		}
		synctest.Wait()
		close(release)
		for range requests {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		if n := loads.Load(); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
		if hits, misses := testutil.ToFloat64(c.states.hits), testutil.ToFloat64(c.states.misses); hits != 0 || misses != requests {
			t.Errorf("%v hits and %v misses, want 0 and %d", hits, misses, requests)
		}
	})
}

func TestCache_LoadsAgainAfterTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seq atomic.Uint64
		c, _ := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			return stateOf(seq.Add(1)), nil
		}})
		wantSeq(t, c, 1)
		<-time.After(cacheTTL - 1)
		wantSeq(t, c, 1)
		<-time.After(1)
		wantSeq(t, c, 2)
		if hits, misses := testutil.ToFloat64(c.states.hits), testutil.ToFloat64(c.states.misses); hits != 1 || misses != 2 {
			t.Errorf("%v hits and %v misses, want 1 and 2", hits, misses)
		}
	})
}

func TestCache_NotFoundIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		c, _ := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			if loads++; loads > 1 {
				return stateOf(1), nil
			}
			return nil, evently.ErrEventNotFound
		}})
		for range 5 {
			if _, err := c.states.get(t.Context(), 1); !errors.Is(err, evently.ErrEventNotFound) {
				t.Fatalf("got %v", err)
			}
		}
		if loads != 1 {
			t.Errorf("%d loads, want 1", loads)
		}
		<-time.After(cacheTTL)
		wantSeq(t, c, 1)
	})
}

func TestCache_DeletedEventIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := stateOf(1)
		c, _ := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			if state == nil {
				return nil, evently.ErrEventNotFound
			}
			return state, nil
		}})
		wantSeq(t, c, 1)
		state = nil
		c.changed(1)
		if _, err := c.states.get(t.Context(), 1); !errors.Is(err, evently.ErrEventNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCache_ServesWhatItKnowsWhenLoadingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error
		loads := 0
		c, logs := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			loads++
			return stateOf(uint64(loads)), fail
		}})
		known := time.Now()
		wantSeq(t, c, 1)
		fail = evently.ErrUnavailable
		<-time.After(time.Minute)
		for range 5 {
			wantSeq(t, c, 1) // one load fails, and then the database rests
		}
		if loads != 2 {
			t.Errorf("%d loads, want 2", loads)
		}
		state, err := c.states.get(t.Context(), 1)
		if err != nil || !state.AsOf.Equal(known) {
			t.Errorf("as of %v, %v; want %v", state.AsOf, err, known)
		}
		if lines := logs.lines(); len(lines) != 1 || !bytes.Contains([]byte(lines[0]), []byte("unavailable")) {
			t.Errorf("logged %q, want the failure once", lines)
		}
		if got := testutil.ToFloat64(c.states.stale); got != 1 {
			t.Errorf("%v stale, want 1", got)
		}
		fail = nil
		<-time.After(cacheTTL)
		wantSeq(t, c, 3)
	})
}

func TestCache_HungDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := false
		c, _ := newSlowCaches(&slowCatalogue{state: func(ctx context.Context, id evently.EventID) (*evently.State, error) {
			if hung {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return stateOf(1), nil
		}})
		wantSeq(t, c, 1)
		hung = true
		<-time.After(time.Minute)
		done := make(chan error, 1)
		go func() {
			_, err := c.states.get(context.Background(), 1)
			done <- err
		}()
		synctest.Wait()
		begun := time.Now()
		wantSeq(t, c, 1)
		if took := time.Since(begun); took != staleWaitMax {
			t.Errorf("who could have a known value waited %v, want %v", took, staleWaitMax)
		}
		if err := <-done; err != nil || time.Since(begun) != loadTimeout {
			t.Errorf("the load ended after %v with %v, want %v", time.Since(begun), err, loadTimeout)
		}
		begun = time.Now()
		if _, err := c.states.get(t.Context(), 2); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != loadTimeout {
			t.Errorf("of nothing known: %v after %v", err, time.Since(begun))
		}
	})
}

func TestCache_OlderStateNeverReplacesANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var loaded *evently.State
		catalogue := &slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) {
				<-release
				return loaded, nil
			},
			lists: func(context.Context) ([]*evently.State, error) { return []*evently.State{loaded}, nil },
		}
		c, _ := newSlowCaches(catalogue)
		s := &Server{config: Config{Now: time.Now}, caches: c, streams: new(hub)}

		// Committed while an older state is being loaded.
		loaded = stateOf(4)
		got := make(chan *evently.State, 1)
		go func() {
			state, err := c.states.get(context.Background(), 1)
			if err != nil {
				t.Error(err)
			}
			got <- state
		}()
		synctest.Wait()
		s.Committed(stateOf(5))
		close(release)
		if state := <-got; state.Seq != 5 {
			t.Errorf("got the state after entry %d, want 5", state.Seq)
		}
		wantSeq(t, c, 5)

		// An owner that was superseded, and then a late read of a list.
		s.Committed(stateOf(3))
		wantSeq(t, c, 5)
		list, err := c.lists.get(t.Context(), listQuery{limit: 1})
		if err != nil || list.states[0].Seq != 5 {
			t.Errorf("list has %+v, %v; want entry 5", list, err)
		}
		wantSeq(t, c, 5)
		s.Committed(stateOf(6))
		wantSeq(t, c, 6)
		if got := c.newest(list.states)[0].Seq; got != 6 {
			t.Errorf("list shows entry %d, want 6", got)
		}
		if list.states[0].Seq != 5 {
			t.Error("the shared list was changed")
		}
	})
}

func TestCache_SameSeqSharesDetailsAndTakesTheLaterTime(t *testing.T) {
	early, late := stateOf(5), stateOf(5)
	late.AsOf = early.AsOf.Add(time.Second)
	if got := newestState(early, late); got.Event != early.Event || !got.AsOf.Equal(late.AsOf) {
		t.Errorf("got %+v", got)
	}
	if got := newestState(late, early); got != late {
		t.Errorf("got %+v", got)
	}
}

func TestCache_WhatWasReadBeforeAChangeIsNotFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := make(chan struct{})
		loads := 0
		c, _ := newSlowCaches(&slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) {
				if loads++; loads == 1 {
					<-first
					return stateOf(1), nil
				}
				return stateOf(2), nil
			},
			lists: func(context.Context) ([]*evently.State, error) {
				<-time.After(time.Second / 2)
				return []*evently.State{stateOf(1)}, nil
			},
		})
		old := make(chan uint64, 2)
		go func() {
			state, err := c.states.get(context.Background(), 1)
			if err != nil {
				t.Error(err)
			}
			old <- state.Seq
		}()
		go func() {
			list, err := c.lists.get(context.Background(), listQuery{limit: 1})
			if err != nil {
				t.Error(err)
			}
			old <- list.states[0].Seq
		}()
		synctest.Wait()
		<-time.After(time.Millisecond)
		c.changed(1)
		close(first)
		if a, b := <-old, <-old; a != 1 || b != 1 {
			t.Errorf("who asked before the change got entries %d and %d", a, b)
		}
		wantSeq(t, c, 2) // neither the load nor the list from before the change counts
		if _, known := c.lists.peek(listQuery{limit: 1}); known {
			t.Error("the list from before the change is remembered")
		}
	})
}

func TestCache_IsBounded(t *testing.T) {
	loads := 0
	config := &Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	c := newCache[int, int](3, "test", config, newMetrics(prometheus.NewRegistry()))
	c.newest = func(_, offered int) int { return offered }
	c.load = func(_ context.Context, key int) (int, error) {
		loads++
		return -key, nil
	}
	for _, key := range []int{1, 2, 3, 1, 4, 1, 5, 1} { // 1 is used and stays
		if got, err := c.get(t.Context(), key); err != nil || got != -key {
			t.Fatalf("key %d: got %d, %v", key, got, err)
		}
		if n := c.entries.len(); n > 3 {
			t.Fatalf("%d entries, want at most 3", n)
		}
	}
	if loads != 5 {
		t.Errorf("%d loads, want 5", loads)
	}
	if _, known := c.peek(2); known {
		t.Error("the entry used least recently is still there")
	}
}

func TestCache_LoadThatPanicsLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		loads := 0
		c, _ := newSlowCaches(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			if loads++; loads == 1 {
				<-release
				panic("torn")
			}
			return stateOf(1), nil
		}})
		go func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, err := c.states.get(context.Background(), 1)
			t.Errorf("got %v", err)
		}()
		synctest.Wait()
		waiting := make(chan error, 1)
		go func() {
			_, err := c.states.get(context.Background(), 1)
			waiting <- err
		}()
		synctest.Wait()
		close(release)
		if err := <-waiting; !errors.Is(err, evently.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		wantSeq(t, c, 1)
	})
}
