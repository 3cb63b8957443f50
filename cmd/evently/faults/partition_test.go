package faults

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

var long = flag.Bool("long", false, "have all partitions last as long as the longest one")

// short is how long most partitions last.
func short() time.Duration {
	if *long {
		return longPartition
	}
	return shortPartition
}

const (
	// longPartition outlasts every time-out between nodes; shortPartition outlasts the detection of a dead node.
	longPartition  = 25 * time.Second
	shortPartition = 5 * time.Second
	// takeoverMax bounds the time until the nodes that remain serve every event. With the fast profile they miss the others
	// after some two seconds.
	takeoverMax = 10 * time.Second
	// noticeMax bounds the time until nodes in a minority know it.
	noticeMax = 15 * time.Second
	// healedMax bounds the time from the end of a partition until all nodes serve as one cluster and every event is served.
	healedMax = 15 * time.Second
	// stallMin is a pause of the whole machine that may evict nodes by itself. What it falls into is bounded by proctest.UpMax alone.
	stallMin = 500 * time.Millisecond
)

// partitioned is a cluster on a network of its own, with its clients. The crowd goes wherever a load balancer sends it; the
// contest goes everywhere.
type partitioned struct {
	*proctest.Cluster
	net     *proctest.Net
	crowd   *proctest.Crowd
	contest *proctest.Contest
	pulse   *pulse
}

const (
	crowdSize     = 6
	contestEvents = 20
)

// startPartitioned returns nil where there can be no networks. Nodes reach Postgres whatever is cut, or lose it, too, when they
// are isolated.
func startPartitioned(t *testing.T, nodes int, losePostgres bool) *partitioned {
	t.Helper()
	n := proctest.NewNet(t, nodes)
	if n == nil {
		return nil
	}
	config := proctest.Config{Nodes: nodes, Prefix: n.Exec}
	for host := range nodes {
		config.Hosts = append(config.Hosts, n.IP(host))
	}
	if losePostgres {
		config.Postgres = proctest.StartPostgres(t)
		relay := proctest.NewRelay(t, n.ServiceIP()+":0", config.Postgres.DSN())
		config.Database = func(int) string { return relay.DSN() }
	}
	p := &partitioned{Cluster: proctest.Start(t, config), net: n, pulse: startPulse(t)}
	p.crowd = p.Crowd(t, proctest.Sales{Events: 30, Scarce: 10, ScarceSeats: 200})
	p.contest = p.Contest(t, p.crowd, contestEvents)
	p.crowd.Open(t, crowdSize)
	p.crowd.More(t, 100)
	return p
}

// split is one partition.
type split struct {
	name string
	cut  func()
	// minority are the numbers of the nodes that can serve nothing meanwhile. The others serve everything.
	minority []int
	// partial means that there are no sides: nodes of the minority do not reach some others, and serve what they can.
	partial bool
	lasting time.Duration
}

// endure lets the network be split for a while, with clients on every side, and checks what has to hold meanwhile and after.
func (p *partitioned) endure(t *testing.T, s split) {
	t.Helper()
	var minority, majority []*proctest.Member
	for _, m := range p.Members {
		if slices.Contains(s.minority, m.Number) {
			minority = append(minority, m)
		} else {
			majority = append(majority, m)
		}
	}
	everywhere, before := p.Servers(), p.crowd.Count()
	p.pulse.reset()
	p.contest.Round(everywhere...) // under way when the network is cut
	began := time.Now()
	s.cut()
	over := time.After(s.lasting)
	took := p.contest.Round(everywhere...).Await(t, proctest.UpMax, p.Servers(majority...)...)
	p.inTime(t, fmt.Sprintf("%s: the nodes %v serve all events after the cut", s.name, numbers(majority)), took, takeoverMax)
	if !s.partial {
		for _, m := range minority {
			proctest.Eventually(t, proctest.UpMax, func() error {
				if m.Probe(t.Context(), "/readyz") == nil {
					return fmt.Errorf("node %d, cut off, is ready", m.Number)
				}
				return nil
			})
			p.inTime(t, fmt.Sprintf("%s: node %d is not ready after the cut", s.name, m.Number), time.Since(began), noticeMax)
		}
	}
	round := p.contest.Round(everywhere...)
	took = round.Await(t, proctest.UpMax, p.Servers(majority...)...)
	p.inTime(t, fmt.Sprintf("%s: the nodes %v serve all events once more", s.name, numbers(majority)), took, takeoverMax)
	if s.lasting == longPartition && !s.partial {
		took := round.Refused(t, proctest.UpMax, p.Servers(minority...)...)
		t.Logf("%s: the nodes %v refused all events within %s", s.name, s.minority, took.Round(time.Millisecond))
	}
	<-over
	for _, m := range minority {
		answered, asked := round.Answered(&m.Server)
		t.Logf("%s: node %d answered %d of %d bookings", s.name, m.Number, answered, asked)
		if !s.partial && m.Probe(t.Context(), "/readyz") == nil {
			t.Errorf("%s: node %d is ready, after %s", s.name, m.Number, time.Since(began))
		}
	}
	t.Logf("%s, %s: %v", s.name, time.Since(began).Round(time.Millisecond), p.crowd.Count().Since(before))

	p.heal(t, s.name)
}

// heal makes the network good again and waits until the cluster is whole.
func (p *partitioned) heal(t *testing.T, name string) {
	t.Helper()
	p.net.Heal()
	healed := time.Now()
	p.Whole(t, proctest.UpMax)
	whole := time.Since(healed)
	p.contest.Round(p.Servers()...).Await(t, proctest.UpMax, p.Servers()...)
	p.inTime(t, fmt.Sprintf("%s: whole %s after the heal, all events served by all nodes", name, whole.Round(time.Millisecond)),
		time.Since(healed), healedMax)
	p.contest.Settle(t, proctest.UpMax)
}

// inTime logs how long something took, and holds it against its bound.
func (p *partitioned) inTime(t *testing.T, what string, took, within time.Duration) {
	t.Helper()
	t.Logf("%s: %s", what, took.Round(time.Millisecond))
	if took <= within {
		return
	}
	if stall := p.pulse.worst(); stall < stallMin {
		t.Errorf("%s: it took %s, want at most %s", what, took, within)
	} else {
		t.Logf("want at most %s, but for the machine, which stood still for %s", within, stall)
	}
}

func numbers(members []*proctest.Member) (numbers []int) {
	for _, m := range members {
		numbers = append(numbers, m.Number)
	}
	return numbers
}

// Five nodes are split in several ways, one after the other, and all reach Postgres all the time: the dangerous case, as each
// side could write. In the end everything happens at random.
func TestPartition_FiveNodesNeverContradictThemselves(t *testing.T) {
	t.Parallel()
	p := startPartitioned(t, 5, false)
	if p == nil {
		return
	}
	p.endure(t, split{name: "two of five cut off", cut: func() { p.net.Split(0, 1) }, minority: []int{0, 1}, lasting: longPartition})
	p.endure(t, split{
		name: "one does not reach another", cut: func() { p.net.CutOneWay(2, 3) }, minority: []int{2, 3}, partial: true, lasting: short(),
	})
	p.endure(t, split{
		name: "one does not reach two others", cut: func() { p.net.CutOneWay(4, 0, 1) }, minority: []int{0, 1, 4}, partial: true, lasting: short(),
	})
	owner, _ := p.Owner(t)
	p.endure(t, split{
		name: "an owner cut off", cut: func() { p.net.Isolate(owner.Number) }, minority: []int{owner.Number}, lasting: short(),
	})
	p.ladder(t)
	p.settle(t)
}

// Three nodes lose Postgres together with the others, or reach it alone.
func TestPartition_ThreeNodesNeverContradictThemselves(t *testing.T) {
	t.Parallel()
	p := startPartitioned(t, 3, true)
	if p == nil {
		return
	}
	owner, _ := p.Owner(t)
	p.endure(t, split{
		name: "an owner cut off from Postgres, too", cut: func() { p.net.Isolate(owner.Number) }, minority: []int{owner.Number}, lasting: short(),
	})
	p.endure(t, split{name: "one of three cut off", cut: func() { p.net.Split(1) }, minority: []int{1}, lasting: short()})
	p.settle(t)
}

// settle audits all that was promised, and that no event was oversold.
func (p *partitioned) settle(t *testing.T) {
	t.Helper()
	p.Audit(t, p.crowd)
	p.Audit(t, p.contest.Crowd)
	if p.contest.Count().SoldOut == 0 && !t.Failed() {
		t.Error("no event of the contest was sold out: the test does not show that none is oversold")
	}
}

// pulse notices when the machine is too busy to run anything, or stands still.
type pulse struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration // between two beats
}

const pulseEvery = 20 * time.Millisecond

func startPulse(t *testing.T) *pulse {
	p, stop, stopped := &pulse{last: time.Now()}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(pulseEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.worst()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return p
}

// worst is how long the machine stood still since reset, at worst.
func (p *pulse) worst() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.longest, p.last = max(p.longest, now.Sub(p.last)), now
	return p.longest
}

func (p *pulse) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = 0
}
