package cluster_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cluster"
)

// Ports of free. Systems give others to those who ask for any, from 32768 on Linux, so that nobody takes the port of a member that is
// down for a while.
const (
	freePortMin = 20_000
	freePorts   = 12_000
)

// freePort is where free looks on.
var freePort atomic.Uint32

func init() { freePort.Store(rand.Uint32N(freePorts)) }

// free returns n addresses that nobody uses now, each of them once.
func free(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range freePorts {
		if len(addrs) == n {
			return addrs
		}
		addr := fmt.Sprintf("127.0.0.1:%d", freePortMin+freePort.Add(1)%freePorts)
		listener, err := net.Listen("tcp", addr)
		if err == nil {
			var packets net.PacketConn // which gossip has as well
			packets, err = net.ListenPacket("udp", addr)
			if err == nil {
				err = packets.Close()
			}
			err = errors.Join(err, listener.Close())
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, addr)
	}
	t.Fatal("no free ports")
	return nil
}

// throughout polls for as long as given and fails at the first thing wrong.
func throughout(t *testing.T, period time.Duration, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(period); ; {
		if what := wrong(); what != "" {
			t.Fatal(what)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// ready waits until all members are.
func ready(t *testing.T, members ...*process) {
	t.Helper()
	eventually(t, func() string {
		for _, m := range members {
			if a := m.try(request{Do: "ready"}); a.Err != "" {
				return fmt.Sprintf("%s: %s", m.id, a.Err)
			}
		}
		return ""
	})
}

// alone checks for a while that a member below its quorum is up, says why it does not serve, and owns nothing.
func alone(t *testing.T, m *process, want cluster.Membership) {
	t.Helper()
	throughout(t, 1200*time.Millisecond, func() string {
		said := fmt.Sprintf("%d of the %d members needed", want.Members, want.Quorum)
		if a := m.try(request{Do: "ready"}); !strings.Contains(a.Err, said) {
			return fmt.Sprintf("ready: %q, want %q", a.Err, said)
		}
		if got := m.do(request{Do: "membership"}).State; got != want {
			return fmt.Sprintf("membership %+v, want %+v", got, want)
		}
		if got := m.do(request{Do: "owners by view", N: 10}).Owners; len(got) > 0 {
			return fmt.Sprintf("owners %v, want none", got)
		}
		return ""
	})
	m.fail(request{Do: "locate", Identity: "e", Timeout: 20 * time.Millisecond}, cluster.ErrNoOwner)
	if n := m.do(request{Do: "spawned"}).N; n != 0 {
		t.Errorf("%d actors spawned below the quorum", n)
	}
}

func TestStart_UnderAQuorumWaitsForNoSeed(t *testing.T) {
	t.Parallel()
	for _, order := range [][3]int{{0, 1, 2}, {2, 0, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			addrs := free(t, 3)
			next := func(i int) *process { return launch(t, spec{Quorum: 2, Gossip: addrs[order[i]], Join: addrs}) }
			first := next(0)
			alone(t, first, cluster.Membership{Members: 1, Quorum: 2})
			second := next(1)
			began := time.Now()
			ready(t, first, second)
			t.Logf("formed after %s", time.Since(began))
			third := next(2)
			see(t, first, second, third)
			ready(t, third)
			if got, want := third.do(request{Do: "membership"}).State,
				(cluster.Membership{Members: 3, Quorum: 2, Quorate: true, Serving: true}); got != want {
				t.Errorf("membership %+v, want %+v", got, want)
			}
			owners(t, 20, first, second, third)
		})
	}
}

func TestStart_SeedThatCannotBeFoundDoesNotKeepTheOthersApart(t *testing.T) {
	t.Parallel()
	addrs := append(free(t, 2), "nowhere.invalid:7946")
	a := launch(t, spec{Quorum: 2, Gossip: addrs[0], Join: addrs})
	b := launch(t, spec{Quorum: 2, Gossip: addrs[1], Join: addrs})
	ready(t, a, b)
}

func TestQuorum_MinorityOfFiveEndsAndComesBackWithTheOthers(t *testing.T) {
	t.Parallel()
	addrs, remotes := free(t, 5), free(t, 5)
	at := func(i int) *process {
		return launch(t, spec{Quorum: 3, Gossip: addrs[i], Remote: remotes[i], Join: addrs})
	}
	members := []*process{at(0), at(1), at(2), at(3), at(4)}
	see(t, members...)
	ready(t, members...)
	lost, left := members[:3], members[3:]
	for _, m := range lost {
		m.kill()
	}
	began := time.Now()
	var group sync.WaitGroup
	for _, m := range left {
		group.Go(func() { m.fail(request{Do: "await end"}, cluster.ErrMinority) })
	}
	group.Wait()
	t.Logf("minority ended after %s", time.Since(began))
	for _, m := range left {
		m.end() // its addresses must be free
	}
	fresh := []*process{at(3), at(4)}
	see(t, fresh...)
	alone(t, fresh[0], cluster.Membership{Members: 2, Quorum: 3})
	began = time.Now()
	fresh = append(fresh, at(0), at(1), at(2))
	ready(t, fresh...)
	t.Logf("the five ready %s after the others came", time.Since(began))
	see(t, fresh...)
	owners(t, 20, fresh...)
}

func TestQuorum_RestartOnTheSameAddressBeforeTheOldIsDead(t *testing.T) {
	t.Parallel()
	addrs, remotes := free(t, 3), free(t, 3)
	at := func(i int) *process {
		return launch(t, spec{Quorum: 2, Gossip: addrs[i], Remote: remotes[i], Join: addrs})
	}
	members := []*process{at(0), at(1), at(2)}
	see(t, members...)
	ready(t, members...)
	old := members[2]
	old.kill()
	began := time.Now()
	members[2] = at(2)
	see(t, members...)
	ready(t, members...)
	t.Logf("whole again after %s", time.Since(began))
	owners(t, 20, members...)
	// The old id ends some seconds later, and nothing that carries the new one with it.
	eventually(t, func() string {
		for _, m := range members[0].do(request{Do: "members"}).Members {
			if m.ID == old.id && m.State != cluster.MemberGone {
				return fmt.Sprintf("%s is %s", m.ID, m.State)
			}
		}
		return ""
	})
	see(t, members...)
	ready(t, members...)
}
