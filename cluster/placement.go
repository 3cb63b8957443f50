package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"golang.org/x/sync/singleflight"
)

const (
	// activatorName is the actor of each member that activates on behalf of others.
	activatorName = "evently-activator"
	// activationTimeout bounds one request to an owner. It is asked again until the caller's deadline.
	activationTimeout = 500 * time.Millisecond
	// retryMin and retryMax bound the pause before an owner that refused or failed is asked again; it doubles.
	retryMin = 10 * time.Millisecond
	retryMax = 160 * time.Millisecond
	// ownerWaitMax is how long a look-up waits for a view that has an owner. Below the quorum that can take for ever.
	ownerWaitMax = time.Second
	// remotePIDsPerShard bounds the known remote PIDs, to 65,536 in all. Beyond it one is forgotten for each new one.
	remotePIDsPerShard = 1024
)

// remotePID is an activation on another member, as that member told it.
type remotePID struct {
	pid   *actor.PID
	owner string // member id; the entry counts only while this member is the owner
}

// placement is Proto.Actor's IdentityLookup: it decides by rendezvous hashing which member serves an identity, activates
// there, and remembers where.
type placement struct {
	self       string // member id
	system     *actor.ActorSystem
	kinds      map[string]Kind
	quorum     int
	log        *slog.Logger
	metrics    *Metrics
	supervisor *stopOnFailure
	ending     *ending

	view     atomic.Pointer[view]
	formed   bool        // a quorum was seen; used by the publisher of views only
	ready    atomic.Bool // Setup was called: remoting is up
	draining atomic.Bool
	idle     atomic.Bool // withdrawn
	local    *table[*activation]
	remote   *table[remotePID]
	flights  singleflight.Group // requests to owners under way, one per owner and identity

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // flights, for close to wait for
}

var _ protocluster.IdentityLookup = (*placement)(nil)

func newPlacement(cfg Config, system *actor.ActorSystem, metrics *Metrics, end *ending) *placement {
	metrics.quorum.Set(float64(cfg.Quorum))
	p := &placement{
		self:       system.ID,
		system:     system,
		kinds:      cfg.Kinds,
		quorum:     cfg.Quorum,
		log:        cfg.Logger,
		metrics:    metrics,
		supervisor: &stopOnFailure{cfg.Logger},
		ending:     end,
		local:      newTable[*activation](),
		remote:     newTable[remotePID](),
	}
	p.view.Store(newView(0, nil, 1)) // nothing is owned before the first publication
	return p
}

// Setup implements IdentityLookup. Proto.Actor calls it once, before the provider starts.
func (p *placement) Setup(*protocluster.Cluster, []string, bool) {
	if _, err := p.system.Root.SpawnNamed(actor.PropsFromFunc(p.receive), activatorName); err != nil {
		panic(fmt.Sprintf("cluster: activator spawned twice: %v", err))
	}
	p.system.EventStream.Subscribe(func(event any) {
		switch event := event.(type) {
		case *protocluster.ClusterTopology:
			p.publish(newView(event.TopologyHash, event.Members, p.quorum))
		case *protocluster.ActivationTerminating:
			p.retire(event)
		}
	})
	p.ready.Store(true)
}

// publish puts a view in force. Proto.Actor calls the subscriber above from the provider's one publishing goroutine.
func (p *placement) publish(v *view) {
	old := p.view.Swap(v)
	close(old.changed)
	p.metrics.views.Inc()
	p.metrics.members.Set(float64(len(v.addrs)))
	if !v.contains(p.self) { // a younger member has the same address
		p.ending.end(ErrEvicted)
	}
	if v.quorate {
		p.formed = true
	} else if p.formed {
		p.ending.end(ErrMinority)
	}
	p.gauge()
	p.log.Info("cluster view", "members", len(v.addrs), "serving", len(v.serving), "quorate", v.quorate, "hash", v.hash)
	p.sweep()
}

// serving says whether this member activates what it owns.
func (p *placement) serving() bool {
	return p.ending.cause() == nil && !p.draining.Load() && !p.idle.Load() && p.view.Load().quorate && len(p.kinds) > 0
}

// gauge shows what the view in force, a withdrawal, a drain or the end has brought. The lock keeps an older state from being
// shown last.
func (p *placement) gauge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.metrics.quorate.Set(truth(p.ending.cause() == nil && p.view.Load().quorate))
	p.metrics.serving.Set(truth(p.serving()))
}

// withdraw says whether this member hosts its kinds. The order idle, then sweep is the bargain with spawn.
func (p *placement) withdraw(withdrawn bool) {
	p.idle.Store(withdrawn)
	p.gauge()
	p.sweep()
}

// retire stops handing out an activation that says it is about to stop. An actor that means to go (passivation) publishes
// ActivationTerminating on the event stream, answers what is queued and stops; look-ups wait for its end meanwhile.
func (p *placement) retire(event *protocluster.ActivationTerminating) {
	k := key{event.GetClusterIdentity().GetKind(), event.GetClusterIdentity().GetIdentity()}
	if a, ok := p.local.load(k.hash(), k); ok {
		select {
		case <-a.ready:
			if a.err == nil && a.pid.Equal(event.Pid) {
				a.leaving.Store(true)
			}
		default: // of an activation before, or so early that Stopping will tell
		}
	}
}

// owned returns nil if this member may activate the identity of that hash, or why not.
func (p *placement) owned(kind string, hash uint64) error {
	if err := p.ending.cause(); err != nil {
		return err
	}
	if p.draining.Load() {
		return ErrDraining
	}
	if owner := p.view.Load().owner(kind, hash); owner == nil || owner.id != p.self || p.idle.Load() {
		return errNotOwned
	}
	return nil
}

// locate returns the actor of k. It tries until ctx ends.
func (p *placement) locate(ctx context.Context, k key) (*actor.PID, error) {
	pid, err := p.resolve(ctx, k, k.hash())
	if err != nil {
		p.metrics.lookupsFailed.Inc()
		return nil, fmt.Errorf("locate %s: %w", k, err)
	}
	return pid, nil
}

func (p *placement) resolve(ctx context.Context, k key, hash uint64) (*actor.PID, error) {
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		if err := p.ending.cause(); err != nil {
			return nil, err
		}
		v := p.view.Load()
		owner := v.owner(k.kind, hash)
		var gone <-chan struct{}
		var err error
		switch {
		case owner == nil:
			err = ErrNoOwner
		case owner.id == p.self && p.draining.Load():
			return nil, ErrDraining
		case owner.id == p.self:
			var pid *actor.PID
			if pid, gone, err = p.activate(k, hash); pid != nil {
				p.metrics.lookupsLocal.Inc()
				return pid, nil
			}
		default:
			if known, ok := p.remote.load(hash, k); ok && known.owner == owner.id {
				p.metrics.lookupsCached.Inc()
				return known.pid, nil
			}
			var pid *actor.PID
			if pid, err = p.request(ctx, v, owner, k); pid != nil {
				p.remote.store(hash, k, remotePID{pid, owner.id}, remotePIDsPerShard)
				p.metrics.lookupsRemote.Inc()
				return pid, nil
			}
		}
		if err := p.await(ctx, v, gone, pause, err); err != nil {
			return nil, err
		}
	}
}

// await blocks until another attempt makes sense: a new view, the predecessor's end, or else a pause. It returns an error
// at the end of ctx, with the reason why the last attempt failed.
func (p *placement) await(ctx context.Context, v *view, gone <-chan struct{}, pause time.Duration, reason error) error {
	var retry, hopeless <-chan time.Time
	if errors.Is(reason, ErrNoOwner) { // only a new view brings an owner
		timer := time.NewTimer(ownerWaitMax)
		defer timer.Stop()
		hopeless = timer.C
	} else if gone == nil {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		retry = timer.C
	}
	select {
	case <-v.changed:
	case <-gone:
		if pause > retryMin { // it keeps ending at once
			return p.await(ctx, v, nil, pause, reason)
		}
	case <-retry:
	case <-hopeless:
		return reason
	case <-p.ending.done:
	case <-ctx.Done():
		if reason != nil {
			return fmt.Errorf("%w: %w", reason, ctx.Err())
		}
		return ctx.Err()
	}
	return nil
}

// request asks the owner for its activation of k. Concurrent callers share one message.
func (p *placement) request(ctx context.Context, v *view, owner *member, k key) (*actor.PID, error) {
	flight := p.flights.DoChan(owner.id+"/"+k.String(), func() (any, error) {
		if !p.enter() {
			return nil, ErrStopped
		}
		defer p.calls.Done()
		answer, err := p.system.Root.RequestFuture(actor.NewPID(owner.addr, activatorName), &protocluster.ActivationRequest{
			ClusterIdentity: protocluster.NewClusterIdentity(k.identity, k.kind),
			TopologyHash:    v.hash,
		}, activationTimeout).Result()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNoAnswer, owner.addr, err)
		}
		response, ok := answer.(*protocluster.ActivationResponse)
		if !ok || response.Failed || response.Pid == nil {
			return nil, fmt.Errorf("%w: %s refused", ErrNoAnswer, owner.addr)
		}
		return response.Pid, nil
	})
	select {
	case result := <-flight:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*actor.PID), nil
	case <-v.changed: // the owner may be another now; the flight ends by itself
		return nil, ErrNoAnswer
	case <-p.ending.done:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, ErrNoAnswer
	}
}

// receive is the activator. It never waits: the asking member tries again.
func (p *placement) receive(c actor.Context) {
	request, ok := c.Message().(*protocluster.ActivationRequest)
	if !ok {
		return
	}
	k := key{request.GetClusterIdentity().GetKind(), request.GetClusterIdentity().GetIdentity()}
	hash := k.hash()
	err := p.owned(k.kind, hash)
	var pid *actor.PID
	if err == nil {
		pid, _, err = p.activate(k, hash)
	}
	if pid == nil {
		p.metrics.rejections.Inc()
		p.log.Debug("activation refused", "identity", k.String(), "reason", err,
			"view", p.view.Load().hash, "view_asking", request.TopologyHash)
	}
	c.Respond(&protocluster.ActivationResponse{Pid: pid, Failed: pid == nil, TopologyHash: p.view.Load().hash})
}

// forget drops a remote PID, so that the next look-up asks the owner. A local PID is forgotten when its actor stops.
func (p *placement) forget(k key, pid *actor.PID) {
	p.remote.deleteIf(k.hash(), k, func(known remotePID) bool { return known.pid.Equal(pid) })
}

// Get implements IdentityLookup.
func (p *placement) Get(identity *protocluster.ClusterIdentity) *actor.PID {
	ctx, cancel := context.WithTimeout(context.Background(), activationTimeout)
	defer cancel()
	pid, err := p.locate(ctx, key{identity.Kind, identity.Identity})
	if err != nil {
		p.log.Warn("look-up failed", "error", err)
		return nil
	}
	return pid
}

// RemovePid implements IdentityLookup.
func (p *placement) RemovePid(identity *protocluster.ClusterIdentity, pid *actor.PID) {
	p.forget(key{identity.Kind, identity.Identity}, pid)
}

// enter admits one flight, unless close has begun.
func (p *placement) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.calls.Add(1)
	}
	return !p.closed
}

// Shutdown implements IdentityLookup. It waits for requests under way, at most activationTimeout: Proto.Actor's remote
// does not survive a message sent while it shuts down.
func (p *placement) Shutdown() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.calls.Wait()
}
