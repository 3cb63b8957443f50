package actors

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

func TestPause_IsBoundedAndNoneForWhoWasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		took := func(attempt int, err error) time.Duration {
			began := time.Now()
			if !pause(ctx, attempt, err) {
				t.Errorf("attempt %d after %v: no time is left", attempt, err)
			}
			return time.Since(began)
		}
		if got := took(0, errMoved); got != 0 {
			t.Errorf("the first time that it was moved, a request waits %v", got)
		}
		for attempt, limit := range []time.Duration{pauseMin, 2 * pauseMin, 4 * pauseMin, 8 * pauseMin, 16 * pauseMin, pauseMax, pauseMax} {
			for _, err := range []error{errMoved, errUnresolved, errNotLocated, errNoAnswer} {
				if got := took(attempt, err); got >= limit {
					t.Errorf("attempt %d after %v: a request waits %v, want less than %v", attempt, err, got, limit)
				}
			}
		}
		<-ctx.Done()
		for _, err := range []error{errMoved, errUnresolved} {
			if pause(ctx, 0, err) {
				t.Errorf("after %v: there is time left after the deadline", err)
			}
		}
	})
}

// ended is a locator of a node that serves no more.
type ended struct{ asked int }

func (l *ended) Locate(context.Context, string, string) (*actor.PID, error) {
	l.asked++
	return nil, fmt.Errorf("locate: %w", endOfService{})
}

func (*ended) Forget(string, string, *actor.PID) {}

type endOfService struct{}

func (endOfService) Error() string { return "the node serves no more" }
func (endOfService) Final() bool   { return true }

func TestEngine_DoesNotTryAgainWhenItsNodeServesNoMore(t *testing.T) {
	system := newSystem()
	defer system.Shutdown()
	locator := &ended{}
	engine := NewEngine(system, locator, nil, NewMetrics(prometheus.NewRegistry()))
	if _, err := engine.Do(t.Context(), book(1, 1)); !errors.Is(err, evently.ErrUnavailable) || !errors.Is(err, endOfService{}) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
	if locator.asked != 1 {
		t.Errorf("%d look-ups, want 1", locator.asked)
	}
}
