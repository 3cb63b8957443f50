package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evently/evently"
)

// RunAnswers checks an evently.Answers. open returns two on the same storage, as two nodes have them.
func RunAnswers(t *testing.T, open func(t *testing.T) (one, other evently.Answers)) {
	for name, test := range map[string]func(t *testing.T, one, other evently.Answers){
		"FirstAnswerIsGivenAgain":          firstAnswerIsGivenAgain,
		"ReleasedKeyHasNoAnswer":           releasedKeyHasNoAnswer,
		"OtherRequestWithTheKeyIsRefused":  otherRequestWithTheKeyIsRefused,
		"OneOfManyDoesTheWork":             oneOfManyDoesTheWork,
		"OtherKeysDoNotWait":               otherKeysDoNotWait,
		"WaitEndsWithItsContext":           waitEndsWithItsContext,
		"AnswerIsStoredForAClientThatLeft": answerIsStoredForAClientThatLeft,
	} {
		t.Run(name, func(t *testing.T) {
			one, other := open(t)
			test(t, one, other)
		})
	}
}

func randomKey() evently.Key { return evently.Key{Hi: rand.Uint64(), Lo: rand.Uint64()} }

// claim claims a key that nobody has answered.
func claim(t *testing.T, answers evently.Answers, key evently.Key) evently.Claim {
	t.Helper()
	answer, claim, err := answers.Claim(t.Context(), key, digest(1))
	if err != nil || answer != nil {
		t.Fatalf("claim: got answer %v error %v, want a claim", answer, err)
	}
	return claim
}

func firstAnswerIsGivenAgain(t *testing.T, one, other evently.Answers) {
	for name, want := range map[string]*evently.Answer{
		"full": {Status: 201, Header: map[string]string{"Location": "/events/1", "ETag": `"1"`}, Body: []byte("{\"a\":\"\x00\xff\"}")},
		"bare": {Status: 204},
	} {
		t.Run(name, func(t *testing.T) {
			key := randomKey()
			held := claim(t, one, key)
			if err := held.Store(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			held.Release() // as a deferred call does it
			for _, answers := range []evently.Answers{one, other, one} {
				got, claim, err := answers.Claim(t.Context(), key, digest(1))
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || claim != nil || diff != "" {
					t.Errorf("claim %v error %v (-want +got):\n%s", claim, err, diff)
				}
			}
		})
	}
}

func releasedKeyHasNoAnswer(t *testing.T, one, other evently.Answers) {
	key := randomKey()
	for _, answers := range []evently.Answers{one, other, one} {
		held := claim(t, answers, key)
		held.Release()
		held.Release()
	}
}

func otherRequestWithTheKeyIsRefused(t *testing.T, one, other evently.Answers) {
	key := randomKey()
	if err := claim(t, one, key).Store(t.Context(), &evently.Answer{Status: 200}); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the refusal keeps nothing
		if _, _, err := other.Claim(t.Context(), key, digest(2)); !errors.Is(err, evently.ErrKeyReused) {
			t.Fatalf("got %v, want %v", err, evently.ErrKeyReused)
		}
	}
	if answer, _, err := other.Claim(t.Context(), key, digest(1)); err != nil || answer == nil {
		t.Errorf("the same request: got %v %v, want the answer", answer, err)
	}
}

func oneOfManyDoesTheWork(t *testing.T, one, other evently.Answers) {
	key := randomKey()
	var worked atomic.Int32
	results := concurrently(40, func(i int) error {
		answers := one
		if i%2 == 1 {
			answers = other
		}
		answer, claim, err := answers.Claim(t.Context(), key, digest(1))
		switch {
		case err != nil:
			return err
		case claim == nil:
			if answer.Status != 299 {
				t.Errorf("got the answer %+v", answer)
			}
			return nil
		}
		worked.Add(1)
		return claim.Store(t.Context(), &evently.Answer{Status: 299})
	})
	if n := worked.Load(); n != 1 || count(results, nil) != len(results) {
		t.Errorf("%d did the work, want 1; errors %v", n, results)
	}
}

func otherKeysDoNotWait(t *testing.T, one, other evently.Answers) {
	held := claim(t, one, randomKey())
	defer held.Release()
	claim(t, one, randomKey()).Release()
	claim(t, other, randomKey()).Release()
}

func waitEndsWithItsContext(t *testing.T, one, other evently.Answers) {
	key := randomKey()
	held := claim(t, one, key)
	for name, answers := range map[string]evently.Answers{"on this node": one, "on another": other} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _, err := answers.Claim(ctx, key, digest(1))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, evently.ErrOverloaded) && !errors.Is(err, evently.ErrUnavailable) {
			t.Errorf("%s: got %v, want overloaded or unavailable, because of %v", name, err, context.DeadlineExceeded)
		}
	}
	if err := held.Store(t.Context(), &evently.Answer{Status: 200}); err != nil {
		t.Errorf("the holder: %v", err)
	}
}

func answerIsStoredForAClientThatLeft(t *testing.T, one, other evently.Answers) {
	key := randomKey()
	ctx, cancel := context.WithCancel(t.Context())
	_, held, err := one.Claim(ctx, key, digest(1))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := held.Store(ctx, &evently.Answer{Status: 200}); err != nil {
		t.Errorf("store: %v", err)
	}
	if answer, _, err := other.Claim(t.Context(), key, digest(1)); err != nil || answer == nil {
		t.Errorf("got %v %v, want the answer", answer, err)
	}
}
