package http

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

func TestPasswords_AreHashedAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hashesMax, requests = 2, 9
		p := newPasswords(hashesMax, newMetrics(prometheus.NewRegistry()))
		var running, most atomic.Int64
		turn, ended := make(chan struct{}), make(chan error)
		for range requests {
			go func() {
				ended <- p.inTurn(t.Context(), func() error {
					most.Store(max(most.Load(), running.Add(1)))
					<-turn
					running.Add(-1)
					return nil
				})
			}()
		}
		synctest.Wait()
		if running.Load() != hashesMax || testutil.ToFloat64(p.metrics.passwordQueue) != requests-hashesMax {
			t.Errorf("%d run, %v wait", running.Load(), testutil.ToFloat64(p.metrics.passwordQueue))
		}
		for range requests {
			turn <- struct{}{}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if most.Load() > hashesMax || testutil.ToFloat64(p.metrics.passwords) != requests {
			t.Errorf("%d ran at a time, %v counted", most.Load(), testutil.ToFloat64(p.metrics.passwords))
		}
	})
}

func TestPasswords_WaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(1, newMetrics(prometheus.NewRegistry()))
		let, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- p.inTurn(t.Context(), func() error { <-let; return nil })
		}()
		synctest.Wait()
		begun := time.Now()
		err := p.inTurn(t.Context(), func() error { t.Error("out of turn"); return nil })
		if waited := time.Since(begun); !errors.Is(err, evently.ErrOverloaded) || waited != passwordWaitMax {
			t.Errorf("after %v: %v", waited, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.inTurn(ctx, func() error { t.Error("without a client"); return nil }); err == nil {
			t.Error("a turn without a client")
		}
		close(let)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestHashPassword(t *testing.T) {
	hash, err := HashPassword("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash is %s", hash)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct horse ": false, "": false} {
		if match, err := argon2id.ComparePasswordAndHash(password, hash); match != want || err != nil {
			t.Errorf("%q: %v, %v", password, match, err)
		}
	}
	for _, password := range []string{"", "1234567", strings.Repeat("é", PasswordRunesMax+1), "1234567\xff"} {
		if _, err := HashPassword(password); !errors.Is(err, &evently.Error{Code: evently.CodeInvalidRequest}) {
			t.Errorf("%q: %v", password, err)
		}
	}
}

// The decoy costs what a real hash costs, and no password fits it.
func TestDecoyHash(t *testing.T) {
	match, params, err := argon2id.CheckHash("correct horse", decoyHash)
	if match || err != nil || *params != *passwordParams {
		t.Errorf("%v, %+v, %v", match, params, err)
	}
}
