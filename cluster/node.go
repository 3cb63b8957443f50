package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
)

// never is the interval of Proto.Actor's own gossip, which is turned off: see the package comment.
const never = 10 * 365 * 24 * time.Hour

// hangUpTimeout bounds the end of connections. One that is just being tried takes connectTimeout and two seconds more.
const hangUpTimeout = 5 * time.Second

// deadLetterInterval is how long a goroutine outlives a dead letter to count more of them for a record that is dropped.
const deadLetterInterval = 100 * time.Millisecond

// Node is this process's member of the cluster. Its methods can be called concurrently.
type Node struct {
	log       *slog.Logger
	system    *actor.ActorSystem
	cluster   *protocluster.Cluster
	provider  *provider
	placement *placement
	notices   *notices
	ending    *ending
	hosting   sync.Mutex // held by Withdraw and Resume, so that what they change changes together

	outcome chan error    // how starting went; told once
	asleep  chan struct{} // closed when Proto.Actor's StartMember has returned
	watch   sync.WaitGroup

	stopOnce sync.Once
	stopErr  error
}

// Member is one member of the cluster.
type Member struct {
	ID         string
	Addr       string // of actor messages, host:port
	GossipAddr string
	Kinds      []string // what it hosts now, sorted
	Start      time.Time
	State      MemberState
	Serving    bool // hosts something by the view in force: alive, not withdrawn, and not made without kinds
}

// Membership is what this member thinks of the cluster.
type Membership struct {
	Members int  // in the view in force, this one included
	Quorum  int  // members needed before this one serves; 0: none
	Quorate bool // they are there
	Serving bool // this member activates what it owns: quorate, not withdrawn, draining or ended, and with kinds
}

// MemberState says whether a member takes part.
type MemberState string

// The states of a member.
const (
	MemberAlive   MemberState = "alive"   // in the view in force
	MemberBlocked MemberState = "blocked" // alive, but was taken for dead or replaced: it must restart
	MemberGone    MemberState = "gone"    // left or failed; the last 32 are kept
)

// Start joins the cluster, or makes one if cfg.Join is empty, and returns when look-ups work. A quorum may be missing
// still: see Ready. With a quorum of 2 or more it does not wait for the seeds: below the quorum nothing is served, and they are
// tried on. Otherwise it waits until one has answered.
//
// It fails when cfg is wrong, an address is taken, or ctx ends too early; a call to a seed then under way is waited for,
// 1 to 6 s by profile. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	metrics := NewMetrics(cfg.Registerer)
	transport, err := remoteConfig(cfg, metrics)
	if err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	system := actor.NewActorSystem(
		actor.WithDeadLetterRequestLogging(false),
		actor.WithDeadLetterThrottleInterval(deadLetterInterval),
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
			return slog.New(protoLog{cfg.Logger.With("lib", "protoactor").Handler()})
		}))
	cfg.Logger = cfg.Logger.With("node", system.ID)
	end := newEnding()
	n := &Node{
		log:       cfg.Logger,
		system:    system,
		placement: newPlacement(cfg, system, metrics, end),
		ending:    end,
		outcome:   make(chan error, 1),
		asleep:    make(chan struct{}),
	}
	n.notices = newNotices(system, &n.placement.view, metrics, cfg.Logger)
	n.provider = newProvider(cfg, time.Now(), metrics, end, n.outcome)
	// The kinds are not registered with Proto.Actor: its Kind has one Props for all identities and adds messages and a
	// PID cache of its own. Placement spawns from Config.Kinds.
	config := protocluster.Configure(cfg.Name, n.provider, n.placement, transport)
	config.GossipInterval = never
	n.cluster = protocluster.New(system, config)
	n.watch.Go(func() {
		<-end.done
		n.provider.halt() // a seed called on now would be waited for in the end
		n.placement.gauge()
		n.placement.sweep()
	})
	n.notices.start()
	go n.startMember()

	select {
	case err = <-n.outcome:
	case <-ctx.Done():
		n.provider.halt()
		err = errors.Join(ctx.Err(), <-n.outcome)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start cluster member: %w", err), n.shutdown(false))
	}
	n.log.Info("cluster member started", "addr", system.Address(), "gossip_addr", n.GossipAddr(), "cluster", cfg.Name)
	return n, nil
}

// startMember runs Proto.Actor's start, which panics when it fails and sleeps for a second after it has worked: the
// provider tells the outcome before.
func (n *Node) startMember() {
	defer close(n.asleep)
	defer func() {
		if reason := recover(); reason != nil {
			select {
			case n.outcome <- fmt.Errorf("%v", reason):
			default: // told by the provider
			}
		}
	}()
	n.cluster.StartMember()
}

// ID returns the member's id. Every process start has a new one.
func (n *Node) ID() string { return n.system.ID }

// Addr returns the address for actor messages that other members use.
func (n *Node) Addr() string { return n.system.Address() }

// GossipAddr returns the address that other members can join.
func (n *Node) GossipAddr() string { return n.provider.gossipAddr() }

// System returns the actor system. Do not shut it down: Stop does.
func (n *Node) System() *actor.ActorSystem { return n.system }

// Cluster returns Proto.Actor's cluster. Do not shut it down: Stop does. Its Request ignores deadlines; use Locate and a
// future instead.
func (n *Node) Cluster() *protocluster.Cluster { return n.cluster }

// Locate returns the actor that serves an identity, activated by its owner if need be. A PID of this member is known not
// to be stopping; one of another member may be stale: when it does not answer, Forget it and locate again. Locate tries
// until ctx ends, so give it a deadline. Its errors wrap ErrNoOwner, ErrNoAnswer or nothing together with ctx's error; ErrNoOwner
// alone, when the view in force has had no owner for a second; or one of ErrDraining, ErrStopped, ErrEvicted, ErrMinority, at once.
func (n *Node) Locate(ctx context.Context, kind, identity string) (*actor.PID, error) {
	return n.placement.locate(ctx, key{kind, identity})
}

// Forget drops pid as the known actor of an identity, because it did not answer or said it was not the owner.
// Forgetting another PID than the known one, or a local one, has no effect.
func (n *Node) Forget(kind, identity string, pid *actor.PID) {
	n.placement.forget(key{kind, identity}, pid)
}

// IsLocal reports whether pid is an actor of this member.
func (n *Node) IsLocal(pid *actor.PID) bool { return pid.GetAddress() == n.system.Address() }

// Members returns the members, this one included, by start time.
func (n *Node) Members() []Member {
	members := n.provider.snapshot()
	view := n.placement.view.Load()
	for i := range members {
		if members[i].State == MemberAlive && !view.contains(members[i].ID) {
			members[i].State = MemberBlocked
		}
		_, members[i].Serving = view.serving[members[i].ID]
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID)) })
	return members
}

// Ready returns nil while requests may come here: this member sees a quorum, is not draining and has not ended. It may have
// withdrawn; then it routes to others.
func (n *Node) Ready() error {
	switch {
	case n.ending.cause() != nil:
		return n.ending.cause()
	case n.placement.draining.Load():
		return ErrDraining
	}
	if m := n.Membership(); !m.Quorate {
		return fmt.Errorf("%w: %d of the %d members needed", ErrNoOwner, m.Members, m.Quorum)
	}
	return nil
}

// Membership returns what this member thinks of the cluster. It does not block.
func (n *Node) Membership() Membership {
	view := n.placement.view.Load()
	return Membership{
		Members: len(view.addrs), Quorum: n.placement.quorum,
		Quorate: view.quorate && n.ending.cause() == nil, Serving: n.placement.serving(),
	}
}

// Owner returns the member that serves an identity by the view in force. ok is false when there is none: no quorum, no member
// that hosts the kind, or an end of this member. It asks nobody and activates nothing.
func (n *Node) Owner(kind, identity string) (memberID string, ok bool) {
	owner := n.placement.view.Load().owner(kind, key{kind, identity}.hash())
	if owner == nil || n.ending.cause() != nil {
		return "", false
	}
	return owner.id, true
}

// Withdraw makes this member host no kinds, because it could not serve them well, until Resume. It stays a member, counts for
// the quorum and routes. From the return on it activates nothing; its activations are asked to go, and the others learn by
// gossip, in tenths of a second, that they are the owners now. Withdrawing twice is withdrawing once.
//
// When all members withdraw, look-ups wait for one that resumes, a second at most.
func (n *Node) Withdraw() { n.host(false) }

// Resume ends what Withdraw began: this member owns again what it did before, once the others know. Without Withdraw before it
// has no effect.
func (n *Node) Resume() { n.host(true) }

func (n *Node) host(kinds bool) {
	n.hosting.Lock()
	defer n.hosting.Unlock()
	if n.placement.idle.Load() == kinds {
		n.log.Info("hosting changes", "kinds", kinds)
		n.placement.withdraw(!kinds)
		n.provider.withdraw(!kinds)
	}
}

// Done is closed when this member serves no more: others evicted it, it lost its quorum, or it was stopped. It never
// serves again: drain what is in flight, Stop, and restart the process.
func (n *Node) Done() <-chan struct{} { return n.ending.done }

// Err returns why Done is closed: ErrEvicted, ErrMinority or ErrStopped. It returns nil before.
func (n *Node) Err() error { return n.ending.cause() }

// Drain stops activating on this member, sends every local activation its kind's Drain message and waits until all have
// ended, or ctx ends. Members go on routing here until Stop. It can be called again to wait longer.
func (n *Node) Drain(ctx context.Context) error { return n.placement.drain(ctx) }

// Stop drains, leaves the cluster and closes the listeners. ctx bounds the drain: what is left of it then is stopped
// without regard to its queue, and the error says so. Leaving takes some gossip intervals (0.9 s with ProfileLAN), at most
// leaveTimeout + hangUpTimeout. Later calls wait for the first and return its result.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() {
		err := n.Drain(ctx)
		if err != nil {
			n.placement.kill()
		}
		n.stopErr = errors.Join(err, n.shutdown(true))
		n.log.Info("cluster member stopped", "error", n.stopErr)
	})
	return n.stopErr
}

// shutdown takes Proto.Actor apart in its own order. Cluster.Shutdown would stop the actor system before the others are
// told, sleep two seconds, and panic if called twice or before all has started.
func (n *Node) shutdown(graceful bool) error {
	err := n.provider.Shutdown(graceful)
	n.ending.end(ErrStopped)
	n.watch.Wait()
	n.placement.Shutdown()
	err = errors.Join(err, n.notices.shutdown())
	<-n.asleep
	n.cluster.Gossip.Shutdown()
	if n.placement.ready.Load() {
		err = errors.Join(err, n.closeRemote())
	}
	n.system.Shutdown()
	return err
}

// closeRemote hangs up on the other members and stops listening. It does not use Remote.Shutdown(true), which clears fields
// that the connections' goroutines still read (a nil dereference ends the process) and may wait ten seconds for the others
// to hang up. Everything has been answered by now.
func (n *Node) closeRemote() error {
	hungUp := make(chan error, 1)
	go func() {
		hungUp <- errors.Join(
			n.system.Root.StopFuture(n.system.NewLocalPID("EndpointSupervisor")).Wait(), // its children own the connections
			n.system.Root.StopFuture(n.system.NewLocalPID("activator")).Wait())
	}()
	var err error
	select {
	case err = <-hungUp:
	case <-time.After(hangUpTimeout): // the future behind it ends within 10 s
		err = errors.New("a connection does not end")
	}
	n.cluster.Remote.Shutdown(false)
	if err != nil {
		return fmt.Errorf("close remote: %w", err)
	}
	return nil
}
