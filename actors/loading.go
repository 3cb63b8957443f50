package actors

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
)

// standbyMax bounds the time that a caller waits for an event that may not be acquired yet. Then it is sent to ask again, for
// the event's owner may be another one by now. A caller on another node waits longer than that for an answer.
const standbyMax = 100 * time.Millisecond

// load acquires the event: at once, or after a pause when another owner took it from this node not long ago.
func (a *eventActor) load(ctx actor.Context) {
	a.shared.mu.Lock()
	a.pause = a.shared.backoff.wait(a.event, a.config.Now())
	a.shared.mu.Unlock()
	if a.pause > 0 {
		a.config.Metrics.backoffs.Inc()
		a.log().Debug("lost to another owner before; not acquired yet", "pause", a.pause)
	}
	a.await(ctx)
}

// await begins the next step of the pause or, when none is left, the acquisition.
func (a *eventActor) await(ctx actor.Context) {
	if a.pause <= 0 {
		a.acquire(ctx)
		return
	}
	step := min(a.pause, standbyMax)
	a.pause -= step
	a.loadTimer = a.after(ctx, step, standby{})
}

// standby ends a step of the pause.
func (a *eventActor) standby(ctx actor.Context) {
	if a.retired != nil {
		return
	}
	if a.pause > 0 {
		a.dismissEarly(errMoved)
	}
	a.await(ctx)
}

// lost notes that another owner has taken the event.
func (a *eventActor) lost() {
	a.log().Info("superseded by another owner")
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	a.shared.backoff.lost(a.event, a.config.Now(), rand.Float64()) //nolint:gosec // spreads retries; not a secret
}

// dismissEarly answers those who came while loading.
func (a *eventActor) dismissEarly(err error) {
	a.dismiss(a.early, err)
	a.early = nil
}

// acquire acquires the event on a goroutine of its own, which ends with the actor.
func (a *eventActor) acquire(ctx actor.Context) {
	root, self, config, shared, event := ctx.ActorSystem().Root, ctx.Self(), a.config, a.shared, a.event
	background, cancel := context.WithTimeout(context.Background(), config.AcquireTimeout)
	a.cancel = cancel
	go func() {
		defer cancel()
		result := &acquired{err: evently.ErrUnavailable}
		select {
		case shared.acquiring <- struct{}{}:
			began := config.Now()
			result.tenure, result.err = config.Journal.Acquire(background, event)
			ended := config.Now()
			result.took = ended.Sub(began)
			if result.err == nil {
				result.ahead = result.tenure.Now.Sub(ended)
			}
			<-shared.acquiring
		case <-background.Done():
		}
		root.Send(self, result)
	}()
}

func (a *eventActor) acquired(ctx actor.Context, result *acquired) {
	a.cancel = nil // the load has ended: its context need not stay
	if a.retired != nil {
		return
	}
	if result.err != nil {
		a.acquireFailed(ctx, result.err)
		return
	}
	a.config.Metrics.activations.WithLabelValues("ok").Inc()
	a.config.Metrics.activation.Observe(result.took.Seconds())
	a.config.Metrics.active.Inc()
	a.log().Debug("serving", "epoch", result.tenure.Epoch, "seq", result.tenure.Ledger.Seq(), "live", result.tenure.Ledger.Live(),
		"took", result.took)
	a.office = NewBoxOffice[*call](result.tenure)
	a.ahead = result.ahead
	a.idleTick = a.after(ctx, a.config.IdleAfter, idle{})
	early := a.early
	a.early = nil
	for _, c := range early {
		a.config.Metrics.waiting.Dec()
		a.request(ctx, c)
	}
	a.tick(ctx)
	if a.draining {
		a.finishDrain(ctx)
	}
}

func (a *eventActor) acquireFailed(ctx actor.Context, err error) {
	result, told := "failed", errMoved // perhaps not for long
	switch {
	case errors.Is(err, evently.ErrEventNotFound):
		result, told = "not_found", err
	case errors.Is(err, evently.ErrFenced): // between the acquisition and the end of the load
		result = "fenced"
		a.lost()
	case errors.Is(err, evently.ErrUnavailable):
		a.complain("acquire event", err)
	default:
		a.log().Error("acquire event", "error", err)
		told = evently.ErrUnavailable // damaged: another load would find the same
	}
	a.config.Metrics.activations.WithLabelValues(result).Inc()
	a.fail(ctx, "not_acquired", told)
}
