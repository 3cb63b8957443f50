package http

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// newSignalled makes a Server that has nothing but caches of a catalogue.
func newSignalled(catalogue *slowCatalogue) (*Server, *caches) {
	c, _ := newSlowCaches(catalogue)
	return &Server{config: Config{Now: time.Now}, caches: c, revoked: &revocations{soon: make(chan struct{}, 1)}}, c
}

// wantListed gets a list and compares the Seq of its only event.
func wantListed(t *testing.T, c *caches, want uint64) {
	t.Helper()
	list, err := c.lists.get(t.Context(), listQuery{limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := list.states[0].Seq; got != want {
		t.Errorf("the list has the state after entry %d, want %d", got, want)
	}
}

// Nobody polls here: the site does not serve.
func TestSessionEnded_IsRefusedAtOnce(t *testing.T) {
	w := newSite(t, nil)
	token, who := w.token(t, evently.RoleUser)
	other, _ := w.token(t, evently.RoleUser)
	if a := w.do(t, "GET", "/me", "", "Authorization", token); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.server.SessionEnded(who.Session)
	w.do(t, "GET", "/me", "", "Authorization", token).problem(t, evently.CodeUnauthenticated)
	if a := w.do(t, "GET", "/me", "", "Authorization", other); a.status != http.StatusOK {
		t.Errorf("another session: %d %s", a.status, a.body)
	}
}

func TestSignalsResumed_ReadsRevocationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		r := followed(t, accounts, new(logBuffer))
		c, _ := newSlowCaches(&slowCatalogue{})
		s := &Server{config: Config{Now: time.Now}, caches: c, revoked: r}
		after(revokedPeriod + time.Millisecond)
		accounts.addRevoked(evently.SessionID{1}, time.Now())
		begun := time.Now()
		s.SignalsResumed()
		synctest.Wait()
		if !r.has(evently.SessionID{1}) || !time.Now().Equal(begun) {
			t.Errorf("known: %v, after %s", r.has(evently.SessionID{1}), time.Since(begun))
		}
		// The next read is due when it was before.
		reads := accounts.revokedReads()
		after(revokedPeriod)
		if n := accounts.revokedReads() - reads; n != 1 {
			t.Errorf("%d reads in a period", n)
		}
	})
}

func TestSignalsResumed_NeitherWaitsNorPilesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		config := Config{Accounts: accounts, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		c, _ := newSlowCaches(&slowCatalogue{})
		s := &Server{caches: c, revoked: newRevocations(&config, newMetrics(prometheus.NewRegistry()))}
		for range 100 { // nobody reads yet
			s.SignalsResumed()
		}
		if err := s.revoked.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer s.revoked.stop()
		synctest.Wait()
		if n := accounts.revokedReads(); n != 2 {
			t.Errorf("%d reads, want that of the start and one more", n)
		}
	})
}

func TestEventChanged_IsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seq atomic.Uint64
		seq.Store(1)
		s, c := newSignalled(&slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) { return stateOf(seq.Load()), nil },
			lists: func(context.Context) ([]*evently.State, error) { return []*evently.State{stateOf(seq.Load())}, nil },
		})
		wantSeq(t, c, 1)
		wantListed(t, c, 1)
		after(outdatedRest)
		seq.Store(2)
		wantSeq(t, c, 1)
		wantListed(t, c, 1)
		s.EventChanged(1)
		wantListed(t, c, 2)
		wantSeq(t, c, 2)
		// Others stay as they are.
		seq.Store(3)
		s.EventChanged(2)
		wantSeq(t, c, 2)
	})
}

func TestEventChanged_OfAnAddedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var added atomic.Bool
		s, c := newSignalled(&slowCatalogue{state: func(context.Context, evently.EventID) (*evently.State, error) {
			if !added.Load() {
				return nil, evently.ErrEventNotFound
			}
			return stateOf(1), nil
		}})
		if _, err := c.states.get(t.Context(), 1); !errors.Is(err, evently.ErrEventNotFound) {
			t.Fatalf("got %v", err)
		}
		added.Store(true)
		s.EventChanged(1)
		wantSeq(t, c, 1)
	})
}

// What is being read when the signal comes may have been read before the change. It answers who asked before, and counts for
// nothing afterwards, however late it arrives.
func TestEventChanged_DuringARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := make(chan struct{})
		var loads, listings atomic.Int64
		s, c := newSignalled(&slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) {
				if loads.Add(1) == 1 {
					<-first
					return stateOf(1), nil
				}
				return stateOf(2), nil
			},
			lists: func(context.Context) ([]*evently.State, error) {
				if listings.Add(1) == 1 {
					<-first
					return []*evently.State{stateOf(1)}, nil
				}
				return []*evently.State{stateOf(2)}, nil
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
		after(outdatedRest)
		s.EventChanged(1)
		wantSeq(t, c, 2)
		wantListed(t, c, 2)
		close(first)
		for range 2 {
			<-old // 1, or the newer state that is known by now
		}
		wantSeq(t, c, 2)
		wantListed(t, c, 2)
		if loads.Load() != 2 || listings.Load() != 2 {
			t.Errorf("%d loads and %d of lists, want 2", loads.Load(), listings.Load())
		}
	})
}

// A list that was read before the change must not make an event known that nobody knew when the signal came.
func TestEventChanged_BeforeAListMakesItKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, c := newSignalled(&slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) { return stateOf(2), nil },
			lists: func(context.Context) ([]*evently.State, error) {
				<-release
				return []*evently.State{stateOf(1)}, nil
			},
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := c.lists.get(context.Background(), listQuery{limit: 1}); err != nil {
				t.Error(err)
			}
		}()
		after(time.Millisecond)
		s.EventChanged(1)
		close(release)
		<-done
		wantSeq(t, c, 2)
	})
}

// However many events change, a list is loaded every outdatedRest at the most, and is never older than that.
func TestEventChanged_InAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var listings atomic.Int64
		var readAt atomic.Pointer[time.Time]
		s, c := newSignalled(&slowCatalogue{lists: func(context.Context) ([]*evently.State, error) {
			listings.Add(1)
			readAt.Store(new(time.Now()))
			return []*evently.State{stateOf(1)}, nil
		}})
		const storm = 2 * time.Second
		for begun := time.Now(); time.Since(begun) < storm; after(time.Millisecond) {
			for id := range evently.EventID(10) {
				s.EventChanged(id + 1)
			}
			wantListed(t, c, 1)
			if age := time.Since(*readAt.Load()); age > outdatedRest {
				t.Fatalf("a list %s old is served", age)
			}
		}
		if n, most := listings.Load(), int64(storm/outdatedRest); n > most {
			t.Errorf("%d loads in %s, want at most %d", n, storm, most)
		}
		if n := c.states.entries.len(); n != 1 {
			t.Errorf("%d events are cached, and one was asked for", n)
		}
	})
}

// While the database is slow, requests do not pile up reads.
func TestEventChanged_InAStormOnASlowDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		s, c := newSignalled(&slowCatalogue{lists: func(context.Context) ([]*evently.State, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-time.After(time.Second)
			return []*evently.State{stateOf(1)}, nil
		}})
		done := make(chan error, 2000)
		for range cap(done) {
			s.EventChanged(1)
			go func() {
				_, err := c.lists.get(context.Background(), listQuery{limit: 1})
				done <- err
			}()
			after(time.Millisecond)
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if n := most.Load(); n > int64(time.Second/outdatedRest)+1 {
			t.Errorf("%d reads at a time", n)
		}
	})
}

func TestSignalsResumed_AllThatIsCachedIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seq atomic.Uint64
		seq.Store(1)
		s, c := newSignalled(&slowCatalogue{
			state: func(context.Context, evently.EventID) (*evently.State, error) { return stateOf(seq.Load()), nil },
			lists: func(context.Context) ([]*evently.State, error) { return []*evently.State{stateOf(seq.Load())}, nil },
		})
		wantSeq(t, c, 1)
		wantListed(t, c, 1)
		after(outdatedRest)
		seq.Store(2)
		s.SignalsResumed()
		wantSeq(t, c, 2)
		wantListed(t, c, 2)
		// What was read a moment ago is good for a moment, and no longer.
		seq.Store(3)
		after(outdatedRest / 2)
		s.SignalsResumed()
		wantSeq(t, c, 2)
		after(outdatedRest / 2)
		wantSeq(t, c, 3)
		wantListed(t, c, 3)
	})
}
