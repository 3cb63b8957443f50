package cluster

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/eventstream"
	"github.com/asynkron/protoactor-go/remote"
	"github.com/hashicorp/memberlist"
)

const (
	// publishDebounce collects the events of one change, such as a join that brings several members.
	publishDebounce = 20 * time.Millisecond
	// publishEvery repeats the publication, for what no event tells: an evicted member that is still there.
	publishEvery = time.Second
	// announceTimeout bounds the wait until somebody has heard that the own kinds changed. It goes round after that, too.
	announceTimeout = time.Second
	// announceAgain is the pause before own kinds are told again that were not taken.
	announceAgain = 50 * time.Millisecond
	// leaveTimeout bounds the wait until the others have been told.
	leaveTimeout = 3 * time.Second
	// departedMax bounds the members that Members reports although they are gone.
	departedMax = 32
	// blockedMax bounds the ids that may not come back. One forgotten after that many departures would be let in again,
	// which the epoch in the store makes harmless.
	blockedMax = 4096
)

// Messages between members, besides gossip. They may be lost.
var (
	evictNotice = []byte("evict:") // followed by a member id: tells that member that it was taken for dead
	leaveNotice = []byte("leave:") // followed by the own id: what comes is no failure
)

// graceRounds is how many rounds of gossip a member that was called dead has to say that it lives. Whoever was not scheduled
// for a while calls healthy members dead; they hear of it within a round or two.
const graceRounds = 3

// peer is a member as memberlist knows it.
type peer struct {
	meta
	node       memberlist.Node // name and gossip address only
	aliveUntil time.Time       // zero: it lives; else it was called dead and counts until then
}

// provider is Proto.Actor's ClusterProvider over memberlist: it publishes the full list of members as ClusterTopology, from
// one goroutine. Memberlist's callbacks run under its lock, so they copy and signal and never call back.
type provider struct {
	cfg     Config
	start   time.Time
	log     *slog.Logger
	metrics *Metrics
	ending  *ending
	told    chan<- error // how StartMember went

	id      string
	name    string // in the gossip
	list    *memberlist.Memberlist
	address netip.AddrPort // own gossip address as others see it
	grace   time.Duration  // graceRounds

	serving, idle []byte      // own meta with and without the kinds
	withdrawn     atomic.Bool // idle is in force

	short atomic.Bool // the view in force is below the quorum

	mu       sync.Mutex
	peers    map[string]peer // alive members by node name, the own one included
	departed []Member        // oldest first

	published *protocluster.MemberSet // this and the next three belong to the publishing goroutine
	hash      uint64                  // of what is published
	blocked   []string                // ids that left the list, oldest first
	warned    []string                // blocked ids that were alive at the last publication

	changed   chan struct{}
	announced chan struct{} // the own meta has changed
	stop      chan struct{}
	halted    sync.Once
	closed    sync.Once
	loops     sync.WaitGroup
}

var (
	_ protocluster.ClusterProvider = (*provider)(nil)
	_ memberlist.EventDelegate     = (*provider)(nil)
	_ memberlist.AliveDelegate     = (*provider)(nil)
	_ memberlist.Delegate          = (*provider)(nil)
)

func newProvider(cfg Config, start time.Time, metrics *Metrics, end *ending, told chan<- error) *provider {
	return &provider{
		cfg:       cfg,
		start:     start,
		log:       cfg.Logger,
		metrics:   metrics,
		ending:    end,
		told:      told,
		peers:     make(map[string]peer),
		published: protocluster.NewMemberSet(nil),
		changed:   make(chan struct{}, 1),
		announced: make(chan struct{}, 1),
		stop:      make(chan struct{}),
	}
}

// StartMember implements ClusterProvider. It returns when a seed was joined, or at once where a quorum keeps this member from
// serving alone, and the first view is in force. It tells its result to the starting node.
func (p *provider) StartMember(c *protocluster.Cluster) error {
	err := p.startMember(c)
	p.told <- err
	return err
}

func (p *provider) startMember(c *protocluster.Cluster) error {
	p.id = c.ActorSystem.ID
	address := c.ActorSystem.Address()
	conf, err := p.settings(address)
	if err != nil {
		return err
	}
	if p.list, err = memberlist.Create(conf); err != nil {
		return fmt.Errorf("listen for gossip on %s: %w", p.cfg.GossipAddr, err)
	}
	p.mu.Lock()
	own := p.peers[p.name].node
	p.mu.Unlock()
	ip, ok := netip.AddrFromSlice(own.Addr)
	if !ok {
		return fmt.Errorf("gossip address %v is no IP", own.Addr)
	}
	p.address = netip.AddrPortFrom(ip.Unmap(), own.Port)

	if p.cfg.Quorum <= 1 {
		if err := p.join(); err != nil {
			return err
		}
	}
	p.publish(c.ActorSystem.EventStream)
	p.loops.Go(func() { p.publishLoop(c.ActorSystem.EventStream) })
	p.loops.Go(p.rejoinLoop)
	p.loops.Go(p.announceLoop)
	return nil
}

// StartClient implements ClusterProvider. Nodes without kinds run as members: a client cannot be shut down.
func (p *provider) StartClient(*protocluster.Cluster) error {
	return errors.New("cluster: clients are not supported, start a member without kinds")
}

// settings returns memberlist's configuration. address is where this member receives actor messages.
func (p *provider) settings(address string) (*memberlist.Config, error) {
	host, port, err := splitAddr(address)
	if err != nil {
		return nil, fmt.Errorf("remote address: %w", err)
	}
	own := meta{
		Cluster: p.cfg.Name, ID: p.id, Host: host, Port: port, Start: p.start.UnixMilli(),
		Kinds: slices.Sorted(maps.Keys(p.cfg.Kinds)),
	}
	if p.serving, err = own.encode(); err != nil {
		return nil, err
	}
	own.Kinds = nil
	if p.idle, err = own.encode(); err != nil {
		return nil, err
	}
	conf, err := p.cfg.Profile.memberlist()
	if err != nil {
		return nil, err
	}
	if conf.SecretKey, err = readKey(p.cfg.KeyFile); err != nil {
		return nil, err
	}
	// Memberlist takes IPs only and listens everywhere on anything else.
	listen, err := net.ResolveTCPAddr("tcp", p.cfg.GossipAddr)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	conf.BindAddr, conf.BindPort = listen.IP.String(), listen.Port
	conf.AdvertisePort = listen.Port
	if advertised := p.cfg.AdvertiseAddrs.Gossip; advertised != "" {
		told, err := net.ResolveTCPAddr("tcp", advertised)
		if err != nil {
			return nil, fmt.Errorf("advertised gossip address: %w", err)
		}
		conf.AdvertiseAddr, conf.AdvertisePort = told.IP.String(), told.Port
	}
	p.grace = graceRounds * conf.GossipInterval
	p.name = address + "/" + p.id
	conf.Name = p.name
	conf.Label = p.cfg.Name // traffic of another cluster is dropped unread
	conf.Delegate, conf.Events, conf.Alive = p, p, p
	conf.Logger = log.New(gossipLog{p.log, p.stopped}, "", 0)
	return conf, nil
}

// withdraw says whether this member hosts its kinds. It does not wait until others have heard it.
func (p *provider) withdraw(withdrawn bool) {
	p.withdrawn.Store(withdrawn)
	select {
	case p.announced <- struct{}{}:
	default:
	}
}

// announceLoop tells changes of the own meta, one after the other: each is a newer incarnation of this member, so that no
// older one that comes late is taken for the present. The own view hears of it by NotifyUpdate like everybody's.
//
// When this member refutes a suspicion at the same moment, with the meta of before and a still newer incarnation, memberlist
// drops the change without a word. So it is told until the own view has it.
func (p *provider) announceLoop() {
	var again <-chan time.Time
	for {
		select {
		case <-p.stop:
			return
		case <-p.announced:
		case <-again:
		}
		if err := p.list.UpdateNode(announceTimeout); err != nil {
			p.log.Debug("own kinds not heard by anybody yet", "error", err)
		}
		again = nil
		if !p.taken() {
			again = time.After(announceAgain)
		}
	}
}

// taken reports whether this member hosts for itself what it tells others.
func (p *provider) taken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	hosts := !p.withdrawn.Load() && len(p.cfg.Kinds) > 0
	return (len(p.peers[p.name].Kinds) > 0) == hosts
}

func (p *provider) publishLoop(stream *eventstream.EventStream) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		case <-p.changed:
			select {
			case <-p.stop:
				return
			case <-time.After(publishDebounce):
			}
		}
		p.publish(stream)
	}
}

// publish puts the present list of members in force, less those that left an earlier one: Proto.Actor's subscribers and
// placement's run on this goroutine.
//
// MemberList.UpdateClusterTopology would do the same, but it writes the list of blocked members while every connection
// that is made reads it without a lock.
func (p *provider) publish(stream *eventstream.EventStream) {
	p.bury(time.Now())
	var members protocluster.Members
	var outcasts []peer
	for _, m := range p.alive() {
		if slices.Contains(p.blocked, m.ID) {
			outcasts = append(outcasts, m)
		} else {
			members = append(members, m.proto())
		}
	}
	active := protocluster.NewMemberSet(members)
	// Proto.Actor's hash is of the ids alone; here a member that withdraws makes a new view.
	if hash := topologyHash(members); hash != p.hash {
		left := p.published.Except(active).Members()
		topology := &protocluster.ClusterTopology{
			TopologyHash: hash, Members: active.Members(),
			Joined: active.Except(p.published).Members(), Left: left,
		}
		p.published, p.hash = active, hash
		p.short.Store(active.Len() < p.cfg.Quorum)
		for _, m := range left {
			p.blocked = append(p.blocked, m.Id)
			// Not when a successor has the address: each closed connection terminates the next one there, without end.
			if !slices.ContainsFunc(members, func(other *protocluster.Member) bool { return other.Address() == m.Address() }) {
				stream.Publish(&remote.EndpointTerminatedEvent{Address: m.Address()})
			}
		}
		p.blocked = p.blocked[max(0, len(p.blocked)-blockedMax):]
		stream.Publish(topology)
	}
	p.metrics.memberStates(active.Len(), len(outcasts), p.gone())
	if active.Len() < p.cfg.Quorum {
		return // a minority does not judge others
	}
	warned := p.warned
	p.warned = nil
	for _, m := range outcasts {
		p.warned = append(p.warned, m.ID)
		if !slices.Contains(warned, m.ID) {
			p.log.Warn("member is alive but was taken for dead, telling it to restart", "member", m.ID, "addr", m.addr())
		}
		if err := p.list.SendBestEffort(&m.node, append(slices.Clone(evictNotice), m.ID...)); err != nil {
			p.log.Debug("eviction not sent", "member", m.ID, "error", err)
			continue
		}
		p.metrics.evictionsSent.Inc()
	}
}

// bury takes out the members that were called dead and have not said otherwise in time.
func (p *provider) bury(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, m := range p.peers {
		if !m.aliveUntil.IsZero() && !now.Before(m.aliveUntil) {
			p.remove(name)
		}
	}
}

// remove makes a peer one that has departed. The mutex is held.
func (p *provider) remove(name string) {
	p.departed = append(p.departed, p.peers[name].member(MemberGone))
	p.departed = p.departed[max(0, len(p.departed)-departedMax):]
	delete(p.peers, name)
}

// alive returns the live members in the order of their ids. Of several with one address the youngest counts: the others
// are earlier processes there that memberlist has not given up yet.
func (p *provider) alive() []peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	youngest := make(map[string]peer, len(p.peers))
	for _, m := range p.peers {
		if other, ok := youngest[m.addr()]; !ok || cmp.Or(cmp.Compare(m.Start, other.Start), cmp.Compare(m.ID, other.ID)) > 0 {
			youngest[m.addr()] = m
		}
	}
	return slices.SortedFunc(maps.Values(youngest), func(a, b peer) int { return cmp.Compare(a.ID, b.ID) })
}

func (p *provider) others() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.peers) - 1
}

func (p *provider) gone() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.departed)
}

// gossipAddr returns the own gossip address as others see it.
func (p *provider) gossipAddr() string { return p.address.String() }

// snapshot returns the live members and the last that went.
func (p *provider) snapshot() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.departed)
	for _, m := range p.peers {
		list = append(list, m.member(MemberAlive))
	}
	return list
}

func (m peer) member(state MemberState) Member {
	return Member{ID: m.ID, Addr: m.addr(), GossipAddr: m.node.Address(), Kinds: m.Kinds, Start: m.start(), State: state}
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses strangers.
func (p *provider) NotifyAlive(node *memberlist.Node) error {
	_, err := decodeMeta(node.Meta, p.cfg.Name)
	return err
}

// NotifyJoin implements memberlist.EventDelegate.
func (p *provider) NotifyJoin(node *memberlist.Node) {
	m, err := decodeMeta(node.Meta, p.cfg.Name)
	if err != nil {
		return // NotifyAlive has refused it already
	}
	p.mu.Lock()
	p.peers[node.Name] = peer{meta: m, node: memberlist.Node{Name: node.Name, Addr: bytes.Clone(node.Addr), Port: node.Port}}
	p.departed = slices.DeleteFunc(p.departed, func(gone Member) bool { return gone.ID == m.ID })
	p.mu.Unlock()
	p.signal()
}

// NotifyUpdate implements memberlist.EventDelegate.
func (p *provider) NotifyUpdate(node *memberlist.Node) { p.NotifyJoin(node) }

// NotifyLeave implements memberlist.EventDelegate: a member was called dead, which it has a moment to contradict, or left, which it
// has said before (sayGoodbye): memberlist does not tell the difference here.
func (p *provider) NotifyLeave(node *memberlist.Node) {
	p.mu.Lock()
	if m, ok := p.peers[node.Name]; ok {
		m.aliveUntil = time.Now().Add(p.grace)
		p.peers[node.Name] = m
		time.AfterFunc(p.grace, p.signal)
	}
	p.mu.Unlock()
	p.signal()
}

func (p *provider) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// NodeMeta implements memberlist.Delegate.
func (p *provider) NodeMeta(int) []byte {
	if p.withdrawn.Load() {
		return p.idle
	}
	return p.serving
}

// NotifyMsg implements memberlist.Delegate: another member says that it takes this one for dead, or that it leaves.
func (p *provider) NotifyMsg(message []byte) {
	if id, ok := bytes.CutPrefix(message, evictNotice); ok && string(id) == p.id {
		p.metrics.evictionsReceived.Inc()
		p.ending.end(ErrEvicted)
	}
	if id, ok := bytes.CutPrefix(message, leaveNotice); ok {
		p.mu.Lock()
		for name, m := range p.peers {
			if m.ID == string(id) {
				p.remove(name)
			}
		}
		p.mu.Unlock()
		p.signal()
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (p *provider) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (p *provider) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (p *provider) MergeRemoteState([]byte, bool) {}

func (p *provider) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// halt ends joining and publishing.
func (p *provider) halt() {
	p.halted.Do(func() { close(p.stop) })
}

// sayGoodbye tells every member that this one leaves. Memberlist tells by gossip, a few times to members at random, and not the
// difference from a failure.
func (p *provider) sayGoodbye() {
	var calls sync.WaitGroup
	for _, m := range p.alive() {
		if m.ID == p.id {
			continue
		}
		calls.Go(func() {
			if err := p.list.SendReliable(&m.node, append(slices.Clone(leaveNotice), p.id...)); err != nil {
				p.log.Debug("leaving not told", "member", m.ID, "error", err)
			}
		})
	}
	calls.Wait()
}

// Shutdown implements ClusterProvider. Gracefully, the others are told first, unless they have given this member up. It can be
// called again, but not while StartMember runs.
func (p *provider) Shutdown(graceful bool) (err error) {
	p.closed.Do(func() {
		p.halt()
		p.loops.Wait()
		if p.list == nil {
			return
		}
		if cause := p.ending.cause(); graceful && !errors.Is(cause, ErrEvicted) && !errors.Is(cause, ErrMinority) {
			p.sayGoodbye()
			// Nobody may be left to hear it. Whoever is finds out by probing.
			if unheard := p.list.Leave(leaveTimeout); unheard != nil {
				p.log.Warn("left the cluster unheard", "error", unheard)
			}
		}
		err = p.list.Shutdown()
	})
	return err
}
