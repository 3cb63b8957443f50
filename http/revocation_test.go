package http

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// followed starts to follow revocations in a bubble of fake time.
func followed(t *testing.T, accounts *fakeAccounts, logs *logBuffer) *revocations {
	t.Helper()
	config := Config{
		Accounts: accounts, Now: time.Now, Logger: slog.New(slog.NewTextHandler(logs, nil)), Tokens: TokenConfig{AccessTTL: accessTTLDefault},
	}
	r := newRevocations(&config, newMetrics(prometheus.NewRegistry()))
	if err := r.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r
}

// after returns when so much fake time has passed and all that was due is done.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (f *fakeAccounts) addRevoked(id evently.SessionID, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[id] = &fakeSession{revokedAt: at}
}

func TestRevocation_ElsewhereIsKnownWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		r := followed(t, accounts, new(logBuffer))
		for i := range byte(20) {
			after(time.Duration(i) * 37 * time.Millisecond)
			id := evently.SessionID{1, i}
			accounts.addRevoked(id, time.Now())
			if r.has(id) {
				t.Fatal("known before it was read")
			}
			after(time.Second - time.Millisecond)
			if !r.has(id) {
				t.Fatalf("session %d is not known after a second", i)
			}
		}
	})
}

func TestRevocation_StartKnowsAllThatMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		accounts.addRevoked(evently.SessionID{1}, time.Now().Add(-accessTTLDefault))
		accounts.addRevoked(evently.SessionID{2}, time.Now().Add(-accessTTLDefault-time.Hour))
		r := followed(t, accounts, new(logBuffer))
		if !r.has(evently.SessionID{1}) || r.has(evently.SessionID{2}) {
			t.Errorf("known: %v, %v", r.has(evently.SessionID{1}), r.has(evently.SessionID{2}))
		}
	})
}

// A transaction may commit late, and the clock of the node that revokes may be behind.
func TestRevocation_CommittedLateIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		r := followed(t, accounts, new(logBuffer))
		after(time.Minute)
		accounts.addRevoked(evently.SessionID{1}, time.Now().Add(-10*time.Second))
		after(time.Second)
		if !r.has(evently.SessionID{1}) {
			t.Error("not known")
		}
	})
}

func TestRevocation_OutageIsLoggedOnceAndCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts, logs := newFakeAccounts(), new(logBuffer)
		r := followed(t, accounts, logs)
		accounts.failWith(errors.New("database is away"))
		after(5 * time.Minute)
		accounts.addRevoked(evently.SessionID{1}, time.Now())
		after(5 * time.Minute)
		if n := len(logs.lines()); n != 1 {
			t.Errorf("%d lines logged: %q", n, logs.lines())
		}
		if n := testutil.ToFloat64(r.metrics.revokedErrors); n < 1000 {
			t.Errorf("%v errors counted", n)
		}
		accounts.failWith(nil)
		after(time.Second)
		if !r.has(evently.SessionID{1}) {
			t.Error("a session revoked during the outage is not known")
		}
		if age := float64(time.Now().UnixMilli())/1000 - testutil.ToFloat64(r.metrics.revokedRead); age < 0 || age > 1 {
			t.Errorf("age of the last read is %v s", age)
		}
	})
}

func TestRevocation_StartWaitsForTheFirstRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		accounts.failWith(errors.New("database is away"))
		accounts.addRevoked(evently.SessionID{1}, time.Now())
		go func() {
			<-time.After(revokedStartMax - time.Second)
			accounts.failWith(nil)
		}()
		if r := followed(t, accounts, new(logBuffer)); !r.has(evently.SessionID{1}) {
			t.Error("a revoked session is not known")
		}
	})
}

func TestRevocation_StartFailsWithoutTheFirstRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		accounts.failWith(errors.New("database is away"))
		config := newConfig()
		config.Accounts = accounts
		server, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := server.Serve(t.Context(), listen(t)); !errors.Is(err, accounts.fail) || time.Since(begun) != revokedStartMax {
			t.Errorf("got %v after %s", err, time.Since(begun))
		}
	})
}

func TestRevocation_StopEndsTheReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newFakeAccounts()
		config := Config{Accounts: accounts, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		r := newRevocations(&config, newMetrics(prometheus.NewRegistry()))
		ctx, cancel := context.WithCancel(t.Context())
		if err := r.start(ctx); err != nil {
			t.Fatal(err)
		}
		cancel() // while the server drains, requests are still answered
		after(10 * time.Second)
		if accounts.reads < 15 {
			t.Errorf("%d reads in 10 s", accounts.reads)
		}
		r.stop()
		reads := accounts.reads
		after(10 * time.Second)
		if accounts.reads != reads {
			t.Errorf("%d reads after stop", accounts.reads-reads)
		}
	})
}

func TestLogout_TakesEffectHereAtOnce(t *testing.T) {
	w := newSite(t, nil)
	token, _ := w.token(t, evently.RoleUser)
	ask := func(method, path string) *answer { return w.do(t, method, path, "", "Authorization", token) }
	if a := ask("GET", "/me"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := ask("POST", "/logout"); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ask("GET", "/me").problem(t, evently.CodeUnauthenticated)
	ask("POST", "/logout").problem(t, evently.CodeUnauthenticated)
}
