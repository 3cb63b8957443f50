package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

func mustClaim(t *testing.T, answers *Answers, key evently.Key) evently.Claim {
	t.Helper()
	answer, claim, err := answers.Claim(t.Context(), key, [32]byte{1})
	if err != nil || answer != nil {
		t.Fatalf("claim: got answer %v error %v, want a claim", answer, err)
	}
	return claim
}

// Half of the pool's connections can be claims; requests that hold a claim find a connection for their work.
func TestAnswers_ClaimsLeaveConnectionsToTheWork(t *testing.T) {
	pool := openPool(t, pgtest.Database(t), 4)
	answers := NewAnswers(pool)
	first, second := mustClaim(t, answers, evently.Key{Hi: 1}), mustClaim(t, answers, evently.Key{Hi: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := answers.Claim(ctx, evently.Key{Hi: 3}, [32]byte{1}); !errors.Is(err, evently.ErrOverloaded) {
		t.Errorf("a claim beyond the bound: got %v, want %v", err, evently.ErrOverloaded)
	}
	if _, err := pool.Exec(t.Context(), "select 1"); err != nil {
		t.Errorf("work while claims are held: %v", err)
	}
	first.Release()
	mustClaim(t, answers, evently.Key{Hi: 3}).Release()
	second.Release()
	answers.expectIdle(t)
}

func (a *Answers) expectIdle(t *testing.T) {
	t.Helper()
	if len(a.busy) != 0 || !a.slots.TryAcquire(int64(a.pool.Config().MaxConns/2)) {
		t.Errorf("%d keys are in use, or a slot is", len(a.busy))
	}
	// A connection that died is given back in the background.
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for a.pool.Stat().AcquiredConns() != 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections are in use", a.pool.Stat().AcquiredConns())
		}
	}
}

// Many requests with one key wait outside of Postgres: requests with other keys pass.
func TestAnswers_RepeatedRequestsDoNotCrowdOutOthers(t *testing.T) {
	answers := NewAnswers(openPool(t, pgtest.Database(t), 4))
	held := mustClaim(t, answers, evently.Key{Hi: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			_, claim, err := answers.Claim(ctx, evently.Key{Hi: 1}, [32]byte{1})
			if err == nil {
				claim.Release()
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for i := range uint64(10) {
		mustClaim(t, answers, evently.Key{Hi: 100 + i}).Release()
	}
	cancel()
	held.Release()
	group.Wait()
	answers.expectIdle(t)
}

// The connection of a claim dies: the answer cannot be stored, and the key is free for the next request.
func TestAnswers_ClaimEndsWithItsConnection(t *testing.T) {
	answers := NewAnswers(openPool(t, pgtest.Database(t), 4))
	key := evently.Key{Hi: 1}
	for _, end := range []string{"store", "release"} {
		held := mustClaim(t, answers, key)
		killed, err := answers.pool.Exec(t.Context(), `
			select pg_terminate_backend(pid) from pg_stat_activity
			where state = 'idle in transaction' and datname = current_database()`)
		if err != nil || killed.RowsAffected() != 1 {
			t.Fatalf("killed %d connections, %v", killed.RowsAffected(), err)
		}
		if end == "store" {
			if err := held.Store(t.Context(), &evently.Answer{Status: 200}); !errors.Is(err, evently.ErrUnavailable) {
				t.Errorf("store: got %v, want %v", err, evently.ErrUnavailable)
			}
		}
		held.Release()
	}
	mustClaim(t, answers, key).Release()
	answers.expectIdle(t)
}

func TestAnswers_StoreAfterTheEndIsAnError(t *testing.T) {
	answers := NewAnswers(openPool(t, pgtest.Database(t), 4))
	held := mustClaim(t, answers, evently.Key{Hi: 1})
	held.Release()
	if err := held.Store(t.Context(), &evently.Answer{Status: 200}); err == nil {
		t.Error("a claim that was released stored an answer")
	}
	mustClaim(t, answers, evently.Key{Hi: 1}).Release()
}

// A crowd over few keys on two nodes: each key is worked on once, and nothing is left in use.
func TestAnswers_CrowdLeavesNothingInUse(t *testing.T) {
	url := pgtest.Database(t)
	nodes := []*Answers{NewAnswers(openPool(t, url, 6)), NewAnswers(openPool(t, url, 6))}
	var group sync.WaitGroup
	var mu sync.Mutex
	worked := make(map[evently.Key]int)
	for i := range 200 {
		group.Go(func() {
			key := evently.Key{Hi: uint64(i % 7), Lo: 1}
			answer, claim, err := nodes[i%2].Claim(t.Context(), key, [32]byte{1})
			switch {
			case err != nil:
				t.Error(err)
			case claim != nil && i%3 == 0:
				claim.Release()
			case claim != nil:
				mu.Lock()
				worked[key]++
				mu.Unlock()
				if err := claim.Store(t.Context(), &evently.Answer{Status: 200, Body: fmt.Append(nil, key.Hi)}); err != nil {
					t.Error(err)
				}
			case string(answer.Body) != fmt.Sprint(key.Hi):
				t.Errorf("key %d got the answer %q", key.Hi, answer.Body)
			}
		})
	}
	group.Wait()
	for key, n := range worked {
		if n != 1 {
			t.Errorf("key %d was worked on %d times", key.Hi, n)
		}
	}
	for _, answers := range nodes {
		answers.expectIdle(t)
	}
}
