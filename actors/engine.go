package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
)

// Locator finds the actor that serves an identity.
type Locator interface {
	// Locate returns the actor's PID, activating it when needed. An error with a method Final() bool that is true, or that wraps
	// one, says that it is no use to try again soon: this node serves no more, or sees too few others.
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

// identityBytes is more than the text of an event's id takes.
const identityBytes = 24

// Engine implements evently.Engine: it brings requests to the actors that own their events, and brings them again when an
// owner moved or died, until the caller's deadline.
type Engine struct {
	system  *actor.ActorSystem
	locator Locator
	history evently.History
	metrics *Metrics
	answers *answers // from other nodes

	// Logger is told at debug level of attempts that no owner answered. Set it before the first Do; default: nobody.
	Logger *slog.Logger
}

var _ evently.Engine = (*Engine)(nil)

// NewEngine returns an engine. It receives answers for as long as the system lives. History answers for reservations that ended
// so long ago that their ledger has forgotten them.
func NewEngine(system *actor.ActorSystem, locator Locator, history evently.History, metrics *Metrics) *Engine {
	return &Engine{
		system: system, locator: locator, history: history, metrics: metrics, answers: newAnswers(system),
		Logger: slog.New(slog.DiscardHandler),
	}
}

// Do implements evently.Engine.
func (e *Engine) Do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	bounded := evently.Within(ctx, time.Now().Add(doMax))
	defer bounded.End()
	identity := string(request.Event.AppendText(make([]byte, 0, identityBytes)))
	for attempt := 0; ; attempt++ {
		reply, err := e.attempt(bounded, attempt, identity, request)
		if err == nil {
			e.metrics.answered.Inc()
			return reply, nil
		}
		if refusal, ok := asRefusal(err); ok {
			e.metrics.attempts.WithLabelValues(string(refusal.Code)).Inc()
			if refusal.Code == evently.CodeReservationNotFound || refusal.Code == evently.CodeEventNotFound {
				return e.unknown(bounded, request, err)
			}
			return evently.Reply{}, err
		}
		e.redirected(request, attempt, identity, err)
		if !errors.Is(err, errMoved) && !repeatable(request.Command) || isFinal(err) || !pause(bounded, attempt, err) {
			return evently.Reply{}, fmt.Errorf("%w: event %s: %w", evently.ErrUnavailable, identity, err)
		}
	}
}

// redirected notes an attempt that no owner answered.
func (e *Engine) redirected(request *evently.Request, attempt int, identity string, err error) {
	reason := "timeout" // or the caller has left
	switch {
	case errors.Is(err, errNotLocated):
		reason = "not_located"
	case errors.Is(err, errMoved):
		reason = "moved"
	case errors.Is(err, errUnresolved):
		reason = "unresolved"
	case errors.Is(err, errOwnerLeft):
		reason = "owner_left"
	}
	e.metrics.redirects.WithLabelValues(reason).Inc()
	if e.Logger.Enabled(context.Background(), slog.LevelDebug) {
		e.Logger.LogAttrs(context.Background(), slog.LevelDebug, "redirected", append(origin(request),
			slog.String("event", identity), slog.Int("attempt", attempt), slog.String("reason", reason), slog.Any("error", err))...)
	}
}

// attempt asks the event's owner once. A request that must not be repeated has all the time there is.
func (e *Engine) attempt(ctx context.Context, attempt int, identity string, request *evently.Request) (evently.Reply, error) {
	pid, err := e.locator.Locate(ctx, Kind, identity)
	if err != nil {
		return evently.Reply{}, fmt.Errorf("%w: %w", errNotLocated, err)
	}
	local := pid.Address == e.system.Address()
	deadline, _ := ctx.Deadline()
	limit := time.Until(deadline)
	switch {
	case limit <= 0:
		return evently.Reply{}, context.DeadlineExceeded // whose timers may be late
	case !repeatable(request.Command):
	case local:
		limit = min(limit, attemptLocalMax<<min(attempt, 3))
	default:
		limit = min(limit, attemptRemoteMax<<min(attempt, 3))
	}
	var reply evently.Reply
	if local {
		reply, err = sendLocal(ctx, limit, e.system, pid, request)
	} else {
		reply, err = e.sendRemote(ctx, limit, pid, request)
	}
	if err != nil {
		if _, ok := asRefusal(err); !ok {
			e.locator.Forget(Kind, identity, pid)
		}
	}
	return reply, err
}

func asRefusal(err error) (refusal *evently.Error, ok bool) {
	ok = errors.As(err, &refusal)
	return refusal, ok
}

// isFinal reports whether nothing is gained by trying again.
func isFinal(err error) bool {
	var end interface{ Final() bool }
	return errors.As(err, &end) && end.Final()
}

// repeatable reports whether a request that may have taken effect can be sent again. One that names a version cannot: its second
// decision would find its own first one and call it a conflict.
func repeatable(command evently.Command) bool {
	switch command := command.(type) {
	case *evently.Revise:
		return false
	case *evently.SetPricing:
		return command.DryRun
	}
	return true
}

// pause waits a moment before the next attempt; false: ctx ended. Who was told that the event has moved asks for its new place at
// once, for Locate itself waits until there is one.
func pause(ctx context.Context, attempt int, err error) bool {
	if attempt == 0 && errors.Is(err, errMoved) && !errors.Is(err, errNotLocated) {
		return ctx.Err() == nil
	}
	limit := min(pauseMin<<min(attempt, 10), pauseMax)
	if errors.Is(err, errOwnerLeft) {
		limit = pauseMin // there is another owner now
	}
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
