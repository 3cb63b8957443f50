package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently/cluster"
)

// serving waits until all members agree on who serves.
func serving(t *testing.T, members []*process, want ...*process) {
	t.Helper()
	ids := make(map[string]bool)
	for _, m := range want {
		ids[m.id] = true
	}
	eventually(t, func() string {
		for _, m := range members {
			got := make(map[string]bool)
			for _, other := range m.do(request{Do: "members"}).Members {
				if other.Serving {
					got[other.ID] = true
				}
			}
			if !maps.Equal(got, ids) {
				return fmt.Sprintf("%s says that %v serve, want %v", m.id, got, ids)
			}
		}
		return ""
	})
}

// agreed waits until all members name the same owners of n identities, and returns them.
func agreed(t *testing.T, n int, members []*process) map[string]string {
	t.Helper()
	var first map[string]string
	eventually(t, func() string {
		first = members[0].do(request{Do: "owners by view", N: n}).Owners
		for _, m := range members[1:] {
			if other := m.do(request{Do: "owners by view", N: n}).Owners; !maps.Equal(first, other) {
				return fmt.Sprintf("%s and %s do not agree", members[0].id, m.id)
			}
		}
		return ""
	})
	return first
}

func TestWithdraw_MemberRoutesAndHostsNothing(t *testing.T) {
	t.Parallel()
	members := three(t)
	const identities = 60
	before := owners(t, identities, members...)
	if got := agreed(t, identities, members); !maps.Equal(got, before) {
		t.Errorf("served by %v, owned by %v", before, got)
	}
	idle, others := members[2], members[:2]
	active := spread(before)[idle.id]
	var its string
	for identity, id := range before {
		if id == idle.id {
			its = identity
		}
	}

	began := time.Now()
	idle.do(request{Do: "withdraw"})
	if got := others[0].do(request{Do: "activate", Arg: idle.addr, Identity: "fresh"}); got.N != 1 {
		t.Errorf("withdrawn, but activated: %+v", got)
	}
	after := owners(t, identities, members...)
	t.Logf("all served by the others after %s", time.Since(began))
	for identity, id := range after {
		if id == idle.id || before[identity] != idle.id && id != before[identity] {
			t.Errorf("%s went from %s to %s", identity, before[identity], id)
		}
	}
	drainedAll(t, idle, active)
	serving(t, members, others...)
	if got := agreed(t, identities, members); !maps.Equal(got, after) {
		t.Errorf("served by %v, owned by %v", after, got)
	}
	see(t, members...) // alive all the same
	ready(t, members...)
	if got, want := idle.do(request{Do: "membership"}).State, (cluster.Membership{Members: 3, Quorate: true}); got != want {
		t.Errorf("membership %+v, want %+v", got, want)
	}
	if n := idle.metric("evently_cluster_serving"); n != 0 {
		t.Errorf("serving is %d", n)
	}
	views := others[0].metric("evently_cluster_view_changes_total")
	idle.do(request{Do: "withdraw"})
	if pid := idle.do(request{Do: "locate", Identity: its}).PID; pid[0] == idle.addr {
		t.Errorf("%s located at %v", its, pid)
	}

	idle.do(request{Do: "resume"})
	idle.do(request{Do: "resume"})
	serving(t, members, members...)
	if n := others[0].metric("evently_cluster_view_changes_total") - views; n != 1 {
		t.Errorf("%d changes of the view, want 1", n)
	}
	if got := owners(t, identities, members...); !maps.Equal(got, before) {
		t.Errorf("served by %v, want as before by %v", got, before)
	}
}

func TestWithdraw_TheLastWordCounts(t *testing.T) {
	t.Parallel()
	members := three(t)
	for range 3 {
		members[1].do(request{Do: "flap", N: 50})
		serving(t, members, members...)
		members[1].do(request{Do: "withdraw"})
		serving(t, members, members[0], members[2])
		throughout(t, 300*time.Millisecond, func() string { // no older word comes back
			for _, m := range members {
				for id := range spread(m.do(request{Do: "owners by view", N: 30}).Owners) {
					if id == members[1].id {
						return m.id + " takes the withdrawn member for an owner again"
					}
				}
			}
			return ""
		})
		members[1].do(request{Do: "resume"})
		serving(t, members, members...)
	}
	owners(t, 20, members...)
}

func TestWithdraw_TakesEffectBeforeAnybodyHasHeard(t *testing.T) {
	h := start(t)
	ctx := deadline(t)
	for i := range 100 {
		where(t, h, fmt.Sprint(i))
	}
	h.Withdraw()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if pid, err := h.Locate(short, kindEvent, "new"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v, want the deadline", pid, err)
	}
	if n := h.spawned("new"); n != 0 {
		t.Errorf("%d actors spawned after the withdrawal", n)
	}
	eventually(t, func() string {
		if n := activations(t, h); n != 0 {
			return fmt.Sprintf("%v activations left", n)
		}
		return ""
	})
	if n := h.drained(); n != 100 {
		t.Errorf("%d activations were asked to go, want 100", n)
	}
	if err := h.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if owner, ok := h.Owner(kindEvent, "new"); ok {
		t.Errorf("owned by %s, want nobody", owner)
	}
	h.Resume()
	if id := where(t, h, "new"); id != h.ID() {
		t.Errorf("served by %s", id)
	}
}

func TestWithdraw_RacingLookupsLeaveNothing(t *testing.T) {
	h := start(t)
	ctx, cancel := context.WithCancel(deadline(t))
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := h.Locate(ctx, kindEvent, fmt.Sprint(worker, "-", i)); err != nil && ctx.Err() == nil {
					t.Errorf("locate: %v", err)
					return
				}
			}
		})
	}
	for round := range 20 {
		spawned := h.spawned("")
		h.Resume()
		eventually(t, func() string {
			if h.spawned("") < spawned+20 {
				return "too few look-ups"
			}
			return ""
		})
		h.Withdraw()
		eventually(t, func() string {
			if n := activations(t, h); n != 0 {
				return fmt.Sprintf("round %d: %v activations left", round, n)
			}
			return ""
		})
	}
	cancel()
	group.Wait()
}
