package cluster

import (
	"fmt"
	"testing"

	protocluster "github.com/asynkron/protoactor-go/cluster"
)

// viewOf returns a view of n members with ids like a real one's, on consecutive ports.
func viewOf(n, quorum int, kinds ...string) *view {
	var members []*protocluster.Member
	for i := range n {
		members = append(members, &protocluster.Member{
			Id: fmt.Sprintf("3XbdGX1tCZZ9g%03d", i), Host: "127.0.0.1", Port: int32(7000 + i), Kinds: kinds,
		})
	}
	return newView(1, members, quorum)
}

func TestView_IdentitiesAreBalanced(t *testing.T) {
	const identities, tolerance = 200_000, 0.02
	for n := 3; n <= 7; n++ {
		v := viewOf(n, 0, "event")
		counts := make(map[string]int)
		for i := range identities {
			counts[v.owner("event", key{"event", fmt.Sprintf("evt_%d", i)}.hash()).id]++
		}
		fair := float64(identities) / float64(n)
		for id, got := range counts {
			if off := float64(got)/fair - 1; off < -tolerance || off > tolerance {
				t.Errorf("%d members: %s owns %d, %+.1f%% off its fair share %.0f", n, id, got, 100*off, fair)
			}
		}
		if len(counts) != n {
			t.Errorf("%d of %d members own something", len(counts), n)
		}
	}
}

func TestView_OnlyIdentitiesOfTheMemberThatLeftMove(t *testing.T) {
	for n := 3; n <= 7; n++ {
		before, after := viewOf(n, 0, "event"), viewOf(n-1, 0, "event")
		left := before.byKind["event"][n-1].id
		taken := make(map[string]int)
		for i := range 20_000 {
			hash := key{"event", fmt.Sprint(i)}.hash()
			from, to := before.owner("event", hash).id, after.owner("event", hash).id
			if from != left && from != to {
				t.Fatalf("%d members: %d moved from %s to %s although %s left", n, i, from, to, left)
			}
			if from == left {
				taken[to]++
			}
		}
		if len(taken) != n-1 {
			t.Errorf("%d members: what %s had went to %v, want all others", n, left, taken)
		}
	}
}

func TestView_OwnerIsTheSameInEveryRelease(t *testing.T) {
	// Change these only together with a migration plan: members of two releases would disagree about owners.
	if got, want := (key{"event", "0193e2a4"}).hash(), uint64(0x37b944036c92bc); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
	v := viewOf(5, 0, "event")
	var got string
	for i := range 16 {
		id := v.owner("event", key{"event", fmt.Sprint(i)}.hash()).id
		got += id[len(id)-1:]
	}
	if want := "1122421014222231"; got != want {
		t.Errorf("owners %s, want %s", got, want)
	}
}

func TestView_OnlyMembersWithTheKindOwn(t *testing.T) {
	v := newView(1, []*protocluster.Member{
		{Id: "api", Host: "a", Port: 1}, {Id: "worker", Host: "b", Port: 2, Kinds: []string{"event"}},
	}, 0)
	for i := range 100 {
		if owner := v.owner("event", key{"event", fmt.Sprint(i)}.hash()); owner.id != "worker" || owner.addr != "b:2" {
			t.Errorf("%d is owned by %v", i, owner)
		}
	}
	if owner := v.owner("other", 1); owner != nil {
		t.Errorf("a kind that nobody hosts is owned by %v", owner)
	}
	if !v.contains("api") || v.contains("event") {
		t.Error("contains is wrong")
	}
}

func TestTopologyHash_TellsIdsAndKindsApart(t *testing.T) {
	lists := [][]*protocluster.Member{
		nil,
		{{Id: "a"}},
		{{Id: "a", Kinds: []string{"event"}}},
		{{Id: "a", Kinds: []string{"event", "limit"}}},
		{{Id: "a"}, {Id: "event"}},
		{{Id: "a"}, {Id: "b", Kinds: []string{"event"}}},
		{{Id: "a", Kinds: []string{"event"}}, {Id: "b"}},
		{{Id: "aevent"}},
	}
	seen := make(map[uint64]int)
	for i, members := range lists {
		hash := topologyHash(members)
		if other, ok := seen[hash]; ok {
			t.Errorf("lists %d and %d have one hash", other, i)
		}
		seen[hash] = i
	}
}

func TestView_WithoutQuorumNobodyOwns(t *testing.T) {
	for members := range 6 {
		owner := viewOf(members, 3, "event").owner("event", 1)
		if (owner != nil) != (members >= 3) {
			t.Errorf("%d members, quorum 3: owner %v", members, owner)
		}
	}
}

func BenchmarkView_Owner(b *testing.B) {
	v := viewOf(7, 0, "event")
	k := key{"event", "0193e2a4-7b1c-7c3e-9d57-5f0d2e8c1a44"}
	b.ReportAllocs()
	for b.Loop() {
		v.owner(k.kind, k.hash())
	}
}
