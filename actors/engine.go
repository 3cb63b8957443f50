package actors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
)

// Locator finds the actor that serves an identity.
type Locator interface {
	// Locate returns the actor's PID, activating it when needed.
	Locate(ctx context.Context, kind, identity string) (*actor.PID, error)
	// Forget drops a PID that did not answer, so that the next Locate resolves anew.
	Forget(kind, identity string, pid *actor.PID)
}

// Bounds of one Engine.Do.
const (
	// A request to another node can be lost; one to an actor of this process is answered unless the actor is just ending. Each
	// further attempt may take twice as long.
	attemptRemoteMax = 500 * time.Millisecond
	attemptLocalMax  = 2 * time.Second

	pauseMin = 50 * time.Millisecond // bounds of the pause between two attempts, which is random and grows
	pauseMax = time.Second
	doMax    = 8 * time.Second // all attempts, when the caller has no earlier deadline
)

// Engine implements evently.Engine: it brings requests to the actors that own their events, and brings them again when an
// owner moved or died, until the caller's deadline.
type Engine struct {
	system  *actor.ActorSystem
	locator Locator
	history evently.History
	metrics *Metrics
}

var _ evently.Engine = (*Engine)(nil)

// NewEngine returns an engine. History answers for reservations that ended so long ago that their ledger has forgotten them.
func NewEngine(system *actor.ActorSystem, locator Locator, history evently.History, metrics *Metrics) *Engine {
	return &Engine{system, locator, history, metrics}
}

// Do implements evently.Engine.
func (e *Engine) Do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, doMax)
	defer cancel()
	identity := request.Event.String()
	for attempt := 0; ; attempt++ {
		reply, err := e.attempt(ctx, attempt, identity, request)
		var refusal *evently.Error
		switch {
		case err == nil:
			e.metrics.attempts.WithLabelValues("ok").Inc()
			return reply, nil
		case errors.As(err, &refusal):
			e.metrics.attempts.WithLabelValues(string(refusal.Code)).Inc()
			if refusal.Code == evently.CodeReservationNotFound || refusal.Code == evently.CodeEventNotFound {
				return e.unknown(ctx, request, err)
			}
			return evently.Reply{}, err
		}
		e.metrics.attempts.WithLabelValues("retry").Inc()
		if !errors.Is(err, errMoved) && !repeatable(request.Command) || !pause(ctx, attempt) {
			return evently.Reply{}, fmt.Errorf("%w: event %s: %w", evently.ErrUnavailable, identity, err)
		}
	}
}

// attempt asks the event's owner once. A request that must not be repeated has all the time there is.
func (e *Engine) attempt(ctx context.Context, attempt int, identity string, request *evently.Request) (evently.Reply, error) {
	pid, err := e.locator.Locate(ctx, Kind, identity)
	if err != nil {
		return evently.Reply{}, fmt.Errorf("%w: locate: %w", errMoved, err)
	}
	local := pid.Address == e.system.Address()
	if repeatable(request.Command) {
		limit := attemptRemoteMax
		if local {
			limit = attemptLocalMax
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit<<min(attempt, 3))
		defer cancel()
	}
	var reply evently.Reply
	if local {
		reply, err = sendLocal(ctx, e.system, pid, request)
	} else {
		deadline, _ := ctx.Deadline() // Do has set one
		reply, err = e.sendRemote(ctx, time.Until(deadline), pid, request)
	}
	if errors.Is(err, errMoved) || errors.Is(err, errUnresolved) || ctx.Err() != nil {
		e.locator.Forget(Kind, identity, pid)
	}
	return reply, err
}

// repeatable reports whether a request that may have taken effect can be sent again. A Revise cannot: its second
// decision would find its own first one and call it a conflict.
func repeatable(command evently.Command) bool {
	_, revise := command.(*evently.Revise)
	return !revise
}

// pause waits a moment before the next attempt; false: ctx ended.
func pause(ctx context.Context, attempt int) bool {
	limit := min(pauseMin<<min(attempt, 10), pauseMax)
	timer := time.NewTimer(rand.N(limit)) //nolint:gosec // spreads retries; not a secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// unknown answers a request for an event or a reservation that nobody knows. A reservation that its ledger does not
// know never was, or it ended so long ago that only its row remains.
func (e *Engine) unknown(ctx context.Context, request *evently.Request, err error) (evently.Reply, error) {
	var user evently.UserID
	var token evently.Token
	switch command := request.Command.(type) {
	case *evently.Confirm:
		user, token = command.User, command.Token
	case *evently.Release:
		user, token = command.User, command.Token
	case *evently.Cancel:
		user, token = command.User, command.Token
	default:
		return evently.Reply{}, err
	}
	reservation, err := e.history.Reservation(ctx, evently.ReservationID{Event: request.Event, Token: token})
	if err != nil {
		return evently.Reply{}, err
	}
	if reservation.User != user {
		return evently.Reply{}, evently.ErrReservationNotFound
	}
	return answerEnded(request.Command, reservation)
}

// answerEnded gives the answer that the ledger gave while it remembered the reservation.
func answerEnded(command evently.Command, r *evently.Reservation) (evently.Reply, error) {
	reply := evently.Reply{Reservation: *r}
	if r.Status.Live() { // held or booked since the ledger was asked: cannot be, its token came from us
		return evently.Reply{}, evently.ErrUnavailable
	}
	switch command.(type) {
	case *evently.Confirm:
		if r.Status == evently.Expired {
			return evently.Reply{}, evently.ErrReservationExpired
		}
		return evently.Reply{}, evently.ErrReservationCancelled
	case *evently.Cancel:
		if r.Status == evently.Expired {
			return evently.Reply{}, evently.ErrReservationExpired
		}
	}
	return reply, nil
}
