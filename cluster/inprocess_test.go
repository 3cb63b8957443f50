//go:build !race

package cluster_test

import (
	"fmt"
	"testing"

	"github.com/evently/evently/cluster"
)

// Without the race detector, members can share a process: see start for the race that upstream has then.
func TestCluster_ThreeActorSystemsInOneProcess(t *testing.T) {
	a := start(t)
	joinA := func(cfg *cluster.Config) { cfg.Join = []string{a.GossipAddr()} }
	hosts := []*host{a, start(t, joinA), start(t, joinA)}
	agree := func(hosts []*host) {
		t.Helper()
		eventually(t, func() string {
			for _, h := range hosts {
				alive := 0
				for _, m := range h.Members() {
					if m.State == cluster.MemberAlive {
						alive++
					}
				}
				if alive != len(hosts) {
					return fmt.Sprintf("%s sees %d members, want %d", h.ID(), alive, len(hosts))
				}
			}
			return ""
		})
		for i := range 30 {
			identity := fmt.Sprint(i)
			served := where(t, hosts[0], identity)
			for _, h := range hosts[1:] {
				if other := where(t, h, identity); other != served {
					t.Errorf("%s is served by %s and by %s", identity, served, other)
				}
			}
		}
	}
	agree(hosts)
	for _, h := range hosts {
		if h.spawned("") == 0 {
			t.Errorf("%s got no identities", h.ID())
		}
	}
	if err := hosts[2].Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	agree(hosts[:2])
}
