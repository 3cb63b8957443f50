package actors

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/evently/evently"
)

func TestBackoff_DoublesUpToItsBound(t *testing.T) {
	var b backoff
	now := opening
	if got := b.wait(77, now); got != 0 {
		t.Fatalf("an event that was never lost waits %v", got)
	}
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		want *= time.Millisecond
		b.lost(77, now, 0)
		if got := b.wait(77, now); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
		if got := b.wait(77, now.Add(want-1)); got != 1 {
			t.Errorf("just before its end a pause of %v lasts %v", want, got)
		}
		now = now.Add(want)
		if got := b.wait(77, now); got != 0 {
			t.Errorf("after a pause of %v the event waits %v more", want, got)
		}
	}
	if got := b.wait(78, now); got != 0 {
		t.Errorf("another event waits %v", got)
	}
}

func TestBackoff_IsSpread(t *testing.T) {
	for spread, want := range map[float64]time.Duration{0: 100 * time.Millisecond, 0.5: 75 * time.Millisecond, 1: 50 * time.Millisecond} {
		var b backoff
		b.lost(77, opening, spread)
		if got := b.wait(77, opening); got != want {
			t.Errorf("spread %v: got %v, want %v", spread, got, want)
		}
	}
}

func TestBackoff_IsForgottenAfterAQuietWhile(t *testing.T) {
	for _, test := range []struct{ quiet, want time.Duration }{
		{backoffQuiet - 1, 2 * backoffMin}, {backoffQuiet, backoffMin}, {3 * backoffQuiet, backoffMin},
	} {
		var b backoff
		b.lost(77, opening, 0)
		now := opening.Add(test.quiet)
		b.lost(77, now, 0)
		if got := b.wait(77, now); got != test.want {
			t.Errorf("lost again after %v: got %v, want %v", test.quiet, got, test.want)
		}
	}
}

// A clock that goes back must not keep an event from being served.
func TestBackoff_ClockThatGoesBackEndsThePause(t *testing.T) {
	var b backoff
	b.lost(77, opening, 0)
	earlier := opening.Add(-time.Hour)
	if got := b.wait(77, earlier); got != 0 {
		t.Errorf("an hour earlier the event waits %v", got)
	}
	b.lost(77, earlier, 0)
	if got := b.wait(77, earlier); got != backoffMin {
		t.Errorf("lost an hour earlier: got %v, want %v", got, backoffMin)
	}
}

func TestBackoff_MemoryIsBounded(t *testing.T) {
	var b backoff
	for event := range evently.EventID(3 * backoffEvents) {
		b.lost(event, opening, 0)
	}
	if got := len(b.recent) + len(b.before); got > 2*backoffEvents {
		t.Errorf("%d events remembered, want at most %d", got, 2*backoffEvents)
	}
	for event := range evently.EventID(backoffEvents) {
		if got := b.wait(3*backoffEvents-1-event, opening); got != backoffMin {
			t.Fatalf("one of the last %d events waits %v, want %v", backoffEvents, got, backoffMin)
		}
	}
}

// Two nodes that both believe to own an event: whenever one has acquired it, the other one loses it and acquires it again as soon
// as it may.
func TestBackoff_RivalsSettleDown(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var rivals [2]backoff
	acquisitions, owner := 0, 0
	for now := opening; now.Before(opening.Add(time.Minute)); now = now.Add(time.Millisecond) {
		if rival := 1 - owner; rivals[rival].wait(77, now) == 0 {
			acquisitions++
			rivals[owner].lost(77, now, random.Float64())
			owner = rival
		}
	}
	if acquisitions < 10 || acquisitions > 60 {
		t.Errorf("%d acquisitions in a minute, want 10 to 60", acquisitions)
	}
}
