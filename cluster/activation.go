package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
)

// errNotOwned refuses an activation that belongs to another member by the view in force.
var errNotOwned = errors.New("cluster: identity not owned by this member")

// activation is a virtual actor of this member, from the decision to spawn it until it has handled Stopped.
type activation struct {
	key     key
	hash    uint64
	ready   chan struct{} // closed when pid or err is set
	pid     *actor.PID
	err     error         // why it was not spawned
	leaving atomic.Bool   // it is stopping, or was asked to: not to be handed out
	gone    chan struct{} // closed when it has ended
}

// activate returns the local actor of k, spawning it if there is none. While one is on its way out, gone is returned
// instead, to wait for before trying again. It fails with errNotOwned, ErrDraining, the reason of the member's ending, or
// because the actor could not be made.
func (p *placement) activate(k key, hash uint64) (pid *actor.PID, gone <-chan struct{}, err error) {
	a, ok := p.local.load(hash, k)
	if !ok {
		fresh := &activation{key: k, hash: hash, ready: make(chan struct{}), gone: make(chan struct{})}
		if a, ok = p.local.loadOrStore(hash, k, fresh); !ok {
			p.spawn(a)
		}
	}
	<-a.ready
	switch {
	case a.err != nil:
		return nil, nil, a.err
	case a.leaving.Load():
		return nil, a.gone, nil
	}
	return a.pid, nil, nil
}

// spawn starts the actor of a, which is in the table already.
//
// The order table, then owned, then ready, then owned again is one half of the bargain with sweep and drain, which change
// what is owned first and then read the table: whatever they do not find ready is found not owned here.
func (p *placement) spawn(a *activation) {
	defer func() {
		if a.err != nil {
			p.remove(a)
		}
		close(a.ready)
		if a.err == nil && p.owned(a.key.kind, a.hash) != nil {
			p.evict(a)
		}
	}()
	if a.err = p.owned(a.key.kind, a.hash); a.err != nil {
		return
	}
	a.pid, a.err = p.start(a)
}

// start turns a panic in the kind's Props or producer into an error: others wait for a.
func (p *placement) start(a *activation) (pid *actor.PID, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("activate %s: %v", a.key, reason)
			p.log.Error("actor could not be made", "identity", a.key.String(), "reason", reason, "stack", string(debug.Stack()))
		}
	}()
	kind, ok := p.kinds[a.key.kind]
	if !ok {
		return nil, errNotOwned
	}
	props := kind.Props(a.key.identity).Clone(
		actor.WithReceiverMiddleware(p.lifecycle(a)),
		actor.WithGuardian(p.supervisor))
	// The suffix keeps the PIDs of successive activations apart: a message for an old one must not reach the new one.
	pid, err = p.system.Root.SpawnNamed(props, a.key.String()+p.system.ProcessRegistry.NextID())
	if err != nil {
		return nil, fmt.Errorf("activate %s: %w", a.key, err)
	}
	p.metrics.activations.WithLabelValues(a.key.kind).Inc()
	return pid, nil
}

// lifecycle follows the actor's own messages: they are the only notice of its end that costs no search.
func (p *placement) lifecycle(a *activation) actor.ReceiverMiddleware {
	return func(next actor.ReceiverFunc) actor.ReceiverFunc {
		return func(c actor.ReceiverContext, envelope *actor.MessageEnvelope) {
			switch envelope.Message.(type) {
			case *actor.Stopping:
				a.leaving.Store(true)
				p.last(a, next, c, envelope)
			case *actor.Stopped:
				p.last(a, next, c, envelope)
				p.metrics.activations.WithLabelValues(a.key.kind).Dec()
				p.remove(a)
			default:
				next(c, envelope)
			}
		}
	}
}

// last passes a message of the actor's end. A panic there would leave the actor half stopped for ever: Proto.Actor
// ignores the supervisor's Stop for an actor that is stopping already.
func (p *placement) last(a *activation, next actor.ReceiverFunc, c actor.ReceiverContext, envelope *actor.MessageEnvelope) {
	defer func() {
		if reason := recover(); reason != nil {
			p.log.Error("actor failed while stopping", "identity", a.key.String(), "reason", reason, "stack", string(debug.Stack()))
		}
	}()
	next(c, envelope)
}

func (p *placement) remove(a *activation) {
	p.local.deleteIf(a.hash, a.key, func(present *activation) bool { return present == a })
	close(a.gone)
}

// evict asks an activation to go. One that is not ready is left to its spawner.
func (p *placement) evict(a *activation) {
	select {
	case <-a.ready:
	default:
		return
	}
	if a.err != nil || !a.leaving.CompareAndSwap(false, true) {
		return
	}
	if drain := p.kinds[a.key.kind].Drain; drain != nil {
		p.system.Root.Send(a.pid, drain)
	} else {
		p.system.Root.Poison(a.pid)
	}
}

// sweep evicts what this member does not own any more.
func (p *placement) sweep() {
	for _, a := range p.local.all() {
		if p.owned(a.key.kind, a.hash) != nil {
			p.evict(a)
		}
	}
}

// drain stops activating, evicts everything and waits until it is gone.
func (p *placement) drain(ctx context.Context) error {
	p.draining.Store(true)
	p.gauge()
	all := p.local.all()
	for _, a := range all {
		p.evict(a)
	}
	for i, a := range all {
		select {
		case <-a.gone:
		case <-ctx.Done():
			return fmt.Errorf("drain: up to %d of %d activations left: %w", len(all)-i, len(all), ctx.Err())
		}
	}
	return nil
}

// kill stops what a drain has left, without regard to queued messages.
func (p *placement) kill() {
	for _, a := range p.local.all() {
		select {
		case <-a.ready:
			if a.err == nil {
				p.system.Root.Stop(a.pid)
			}
		default: // its spawner evicts it
		}
	}
}

// stopOnFailure is the supervisor of activations. An actor that failed has lost its place between memory and store:
// the next activation loads afresh.
type stopOnFailure struct{ log *slog.Logger }

// HandleFailure implements actor.SupervisorStrategy. It runs while the failed goroutine unwinds, so the stack is its.
func (s *stopOnFailure) HandleFailure(_ *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	_ *actor.RestartStatistics, reason, message any,
) {
	s.log.Error("actor failed", "pid", child.Id, "reason", reason, "message", fmt.Sprintf("%T", message), "stack", string(debug.Stack()))
	supervisor.StopChildren(child)
}
