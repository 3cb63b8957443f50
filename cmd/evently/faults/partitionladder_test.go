package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

var (
	rungs    = flag.Int("rungs", 1, "how many times the ladder harms its cluster")
	seed     = flag.Uint64("seed", 1, "of what the ladder does")
	auditing = flag.Int("audit", 10, "rungs between two audits of the ladder")
)

const (
	// strikesMax is how many things go wrong, one after the other, before all is made good again.
	strikesMax = 4
	// strikeMax bounds the time from one to the next. Some are shorter than the detection of a dead node, and some longer.
	strikeMax = 6 * time.Second
)

// ladder breaks the network anew where it is broken already, heals it for a moment, and meanwhile kills nodes and stops them: at
// random, and the same again with the same seed, but for the clients.
func (p *partitioned) ladder(t *testing.T) {
	t.Helper()
	t.Logf("the ladder, with -rungs=%d -seed=%d", *rungs, *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	for rung := 1; rung <= *rungs; rung++ {
		p.climb(t, random, fmt.Sprintf("rung %d", rung))
		if rung%*auditing == 0 && rung < *rungs {
			p.settle(t)
			p.contest = p.Contest(t, p.crowd, contestEvents)
			p.crowd.Open(t, crowdSize)
		}
	}
}

// climb harms the cluster, makes it good again and waits until the cluster is whole.
func (p *partitioned) climb(t *testing.T, random *rand.Rand, name string) {
	t.Helper()
	everywhere, before := p.Servers(), p.crowd.Count()
	p.pulse.reset()
	var told []string
	paused := make(map[*proctest.Member]bool)
	for range 1 + random.IntN(strikesMax) {
		p.contest.Round(everywhere...)
		lasting := time.Duration(random.Int64N(int64(strikeMax))).Round(time.Millisecond)
		told = append(told, fmt.Sprintf("%s (%s)", p.strike(t, random, paused), lasting))
		<-time.After(lasting)
	}
	p.contest.Round(everywhere...)
	for m := range paused {
		m.Resume(t)
	}
	t.Logf("%s: %s", name, strings.Join(told, ", "))
	p.heal(t, name)
	t.Logf("%s: %v", name, p.crowd.Count().Since(before))
}

// strike does one thing to the cluster and says what.
func (p *partitioned) strike(t *testing.T, random *rand.Rand, paused map[*proctest.Member]bool) string {
	t.Helper()
	nodes := random.Perm(len(p.Members))
	some := nodes[1 : 2+random.IntN(len(nodes)-2)]
	switch random.IntN(9) {
	case 0, 1:
		p.net.Split(some...)
		return fmt.Sprint("split off ", some)
	case 2:
		p.net.CutOneWay(nodes[0], some...)
		return fmt.Sprintf("%d does not reach %v", nodes[0], some)
	case 3:
		p.net.Cut(nodes[0], nodes[1])
		return fmt.Sprintf("cut %d from %d", nodes[0], nodes[1])
	case 4:
		p.net.Heal()
		p.net.Split(some...)
		return fmt.Sprintf("split off %v instead", some)
	case 5:
		for _, node := range nodes {
			p.net.Isolate(node)
		}
		return "cut all from all"
	case 6:
		p.net.Heal()
		return "heal"
	case 7:
		m := p.Members[nodes[0]]
		if paused[m] {
			m.Resume(t)
			delete(paused, m)
		}
		m.Crash(t)
		return fmt.Sprint("kill ", m.Number)
	default:
		m := p.Members[nodes[0]]
		m.Pause(t)
		paused[m] = true
		return fmt.Sprint("stop ", m.Number)
	}
}
