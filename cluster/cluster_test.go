package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently/cluster"
)

// three launches three members that see one another.
func three(t testing.TB) []*process {
	t.Helper()
	return form(t, cluster.ProfileLAN, 3)
}

// form launches n members that see one another.
func form(t testing.TB, profile cluster.Profile, n int) []*process {
	t.Helper()
	var members []*process
	for range n {
		members = append(members, launch(t, spec{Profile: profile, Join: seeds(members...)}))
	}
	see(t, members...)
	return members
}

func seeds(members ...*process) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.gossipAddr)
	}
	return list
}

// see waits until each of the members has exactly them in its view.
func see(t testing.TB, members ...*process) {
	t.Helper()
	eventually(t, func() string {
		for _, m := range members {
			alive := make(map[string]bool)
			for _, other := range m.do(request{Do: "members"}).Members {
				if other.State == cluster.MemberAlive {
					alive[other.ID] = true
				}
			}
			for _, other := range members {
				if len(alive) != len(members) || !alive[other.id] {
					return fmt.Sprintf("%s sees %v, want %s and %d others", m.id, alive, other.id, len(members)-1)
				}
			}
		}
		return ""
	})
}

// owners has all members ask for n identities at the same time, demands one answer for each, and returns it.
func owners(t testing.TB, n int, members ...*process) map[string]string {
	t.Helper()
	var group sync.WaitGroup
	answers := make([]map[string]string, len(members))
	for i, m := range members {
		group.Go(func() { answers[i] = m.do(request{Do: "owners", N: n}).Owners })
	}
	group.Wait()
	for _, other := range answers {
		for identity, id := range answers[0] {
			if other[identity] != id {
				t.Errorf("%s is served by %s and by %s", identity, id, other[identity])
			}
		}
	}
	if len(answers[0]) != n {
		t.Errorf("%d identities answered, want %d", len(answers[0]), n)
	}
	return answers[0]
}

func spread(byIdentity map[string]string) map[string]int {
	counts := make(map[string]int)
	for _, id := range byIdentity {
		counts[id]++
	}
	return counts
}

func TestCluster_EveryMemberRoutesToTheOneActor(t *testing.T) {
	t.Parallel()
	members := three(t)
	const identities = 60
	counts := spread(owners(t, identities, members...))
	if len(counts) != len(members) {
		t.Errorf("identities on %v, want all three members", counts)
	}
	for _, m := range members {
		if n := m.do(request{Do: "spawned"}).N; n != counts[m.id] {
			t.Errorf("%s spawned %d actors, want one for each of its %d identities", m.id, n, counts[m.id])
		}
	}
}

func TestCluster_GracefulLeaveMovesIdentitiesAtOnce(t *testing.T) {
	t.Parallel()
	members := three(t)
	const identities = 30
	before := owners(t, identities, members...)
	gone, left := members[2], members[:2]
	began := time.Now()
	gone.do(request{Do: "drain"})
	drained := time.Since(began)
	stopped := make(chan time.Duration)
	go func() {
		gone.do(request{Do: "stop"})
		stopped <- time.Since(began)
	}()
	see(t, left...)
	seen := time.Since(began)
	after := owners(t, identities, left...)
	t.Logf("drained after %s, left after %s, all served after %s, stopped after %s", drained, seen, time.Since(began), <-stopped)
	for identity, id := range before {
		if id != gone.id && after[identity] != id {
			t.Errorf("%s moved from %s to %s although its owner stayed", identity, id, after[identity])
		}
		if after[identity] == gone.id {
			t.Errorf("%s is still on the member that left", identity)
		}
	}
	states := make(map[string]cluster.MemberState)
	for _, m := range left[0].do(request{Do: "members"}).Members {
		states[m.ID] = m.State
	}
	if len(states) != 3 || states[gone.id] != cluster.MemberGone {
		t.Errorf("states %v, want %s gone", states, gone.id)
	}
}

func TestCluster_KilledMemberIsNoticedAndItsIdentitiesAreServedAgain(t *testing.T) {
	t.Parallel()
	members := three(t)
	const identities = 30
	before := owners(t, identities, members...)
	killed, left := members[2], members[:2]
	lost := ""
	for identity, id := range before {
		if id == killed.id {
			lost = identity
		}
	}
	killed.kill()
	began := time.Now()
	// The caller finds the PID it knows dead, forgets it and asks on until a survivor owns the identity.
	if id := left[0].do(request{Do: "ask", Identity: lost, Arg: "where"}).Text; id == killed.id {
		t.Errorf("%s is served by the killed member", lost)
	}
	t.Logf("served again after %s", time.Since(began))
	see(t, left...)
	for identity, id := range owners(t, identities, left...) {
		if id == killed.id || before[identity] != killed.id && id != before[identity] {
			t.Errorf("%s went from %s to %s", identity, before[identity], id)
		}
	}
}

func TestCluster_JoiningMemberTakesItsIdentitiesOver(t *testing.T) {
	t.Parallel()
	a := launch(t, spec{})
	c := launch(t, spec{Join: seeds(a), Kindless: true})
	see(t, a, c)
	const identities = 60
	owners(t, identities, a, c)
	b := launch(t, spec{Join: seeds(a)})
	see(t, a, b, c)
	after := owners(t, identities, a, b)
	for identity, id := range after {
		if pid := c.do(request{Do: "locate", Identity: identity}).PID; (pid[0] == b.addr) != (id == b.id) {
			t.Errorf("%s belongs to %s, but a member that knew it on %s locates it on %s", identity, id, a.addr, pid[0])
		}
	}
	moved := spread(after)[b.id]
	if moved == 0 || moved == identities {
		t.Fatalf("%d of %d identities moved", moved, identities)
	}
	eventually(t, func() string {
		if n := a.do(request{Do: "drained"}).N; n != moved {
			return fmt.Sprintf("%d old activations were asked to go, want %d", n, moved)
		}
		return ""
	})
}

func TestCluster_ActivationOnAnotherThanTheOwnerIsRejected(t *testing.T) {
	t.Parallel()
	a := launch(t, spec{})
	b := launch(t, spec{Join: seeds(a)})
	see(t, a, b)
	of := make(map[string]string) // an identity by owner
	for identity, id := range owners(t, 30, a, b) {
		of[id] = identity
	}
	const rejections = "evently_cluster_activation_rejections_total"
	if got := b.do(request{Do: "activate", Arg: a.addr, Identity: of[a.id]}); got.N != 0 || got.PID[0] != a.addr {
		t.Errorf("the owner refused its identity: %+v", got)
	}
	before := a.do(request{Do: "metric", Arg: rejections}).N
	if got := b.do(request{Do: "activate", Arg: a.addr, Identity: of[b.id]}); got.N != 1 || got.PID[1] != "" {
		t.Errorf("not the owner, but activated: %+v", got)
	}
	if n := a.do(request{Do: "spawned", Identity: of[b.id]}).N; n != 0 {
		t.Errorf("not the owner, but spawned %d", n)
	}
	if n := a.do(request{Do: "metric", Arg: rejections}).N - before; n != 1 {
		t.Errorf("%d rejections counted, want 1", n)
	}
}

func TestForget_OnlyDropsThePIDGiven(t *testing.T) {
	t.Parallel()
	b := launch(t, spec{})
	a := launch(t, spec{Join: seeds(b), Kindless: true}) // hosts nothing, locates all
	see(t, a, b)
	pid := a.do(request{Do: "locate", Identity: "e"}).PID
	if pid[0] != b.addr {
		t.Errorf("located %v, want it on the only member with the kind, %s", pid, b.addr)
	}
	check := func(remote, cached int) {
		t.Helper()
		if got := a.do(request{Do: "locate", Identity: "e"}).PID; got != pid {
			t.Errorf("located %v, want %v", got, pid)
		}
		const lookups = "evently_cluster_lookups_total "
		gotRemote, gotCached := a.do(request{Do: "metric", Arg: lookups + "remote"}).N, a.do(request{Do: "metric", Arg: lookups + "cached"}).N
		if gotRemote != remote || gotCached != cached {
			t.Errorf("owner asked %d times, cache used %d times, want %d and %d", gotRemote, gotCached, remote, cached)
		}
	}
	check(1, 1)
	a.do(request{Do: "forget", Identity: "e", PID: [2]string{pid[0], "other"}})
	check(1, 2)
	a.do(request{Do: "forget", Identity: "e", PID: pid})
	check(2, 2)
}

func TestQuorum_NothingIsServedBeforeItAndNothingAfterItsLoss(t *testing.T) {
	t.Parallel()
	a := launch(t, spec{Quorum: 2})
	a.fail(request{Do: "locate", Identity: "e", Timeout: 50 * time.Millisecond}, cluster.ErrNoOwner)
	a.fail(request{Do: "ready"}, cluster.ErrNoOwner)
	b := launch(t, spec{Quorum: 2, Join: seeds(a)})
	see(t, a, b)
	a.do(request{Do: "ready"})
	active := spread(owners(t, 10, a, b))[a.id]
	b.kill()
	a.fail(request{Do: "await end"}, cluster.ErrMinority)
	a.fail(request{Do: "locate", Identity: "e"}, cluster.ErrMinority)
	drainedAll(t, a, active)
}

func TestEviction_MemberTakenForDeadIsTold(t *testing.T) {
	t.Parallel()
	members := three(t)
	judge, judged := members[0], members[2]
	active := spread(owners(t, 10, members...))[judged.id]
	judge.do(request{Do: "misjudge", Arg: judged.id})
	judged.fail(request{Do: "await end"}, cluster.ErrEvicted)
	judged.fail(request{Do: "ready"}, cluster.ErrEvicted)
	const evictions = "evently_cluster_evictions_total "
	eventually(t, func() string { // it is counted when it is on its way
		if sent, received := judge.metric(evictions+"sent"), judged.metric(evictions+"received"); sent == 0 || received == 0 {
			return fmt.Sprintf("%d evictions sent, %d received", sent, received)
		}
		return ""
	})
	if n := judge.metric("evently_cluster_members_by_state blocked"); n != 1 {
		t.Errorf("%d members blocked, want 1", n)
	}
	for _, name := range []string{"evently_cluster_quorate", "evently_cluster_serving"} {
		eventually(t, func() string { // Done comes before the view of it
			if ours, theirs := judge.metric(name), judged.metric(name); ours != 1 || theirs != 0 {
				return fmt.Sprintf("%s is %d at the judge and %d at the judged, want 1 and 0", name, ours, theirs)
			}
			return ""
		})
	}
	drainedAll(t, judged, active)
	for _, m := range judge.do(request{Do: "members"}).Members {
		if m.ID == judged.id && m.State != cluster.MemberBlocked {
			t.Errorf("member %s is %s, want blocked", m.ID, m.State)
		}
	}
	judge.do(request{Do: "ready"})
}

func TestEviction_WhoeverContradictsInTimeIsNotEvicted(t *testing.T) {
	t.Parallel()
	members := three(t)
	judge, judged := members[0], members[2]
	const views = "evently_cluster_view_changes_total"
	before := judge.metric(views)
	judge.do(request{Do: "accuse", Arg: judged.id})
	if after := judge.metric(views); after != before {
		t.Errorf("%d views, then %d", before, after)
	}
	for _, m := range judge.do(request{Do: "members"}).Members {
		if m.State != cluster.MemberAlive {
			t.Errorf("member %s is %s", m.ID, m.State)
		}
	}
	judged.do(request{Do: "ready"})
}

// drainedAll waits until all n activations of the member were asked to go.
func drainedAll(t *testing.T, m *process, n int) {
	t.Helper()
	eventually(t, func() string {
		if got := m.do(request{Do: "drained"}).N; got != n {
			return fmt.Sprintf("%d of %d activations were asked to go", got, n)
		}
		return ""
	})
}

func TestCluster_RestartOnTheSameAddressReplacesTheKilledMemberAtOnce(t *testing.T) {
	t.Parallel()
	a, addrs := launch(t, spec{}), free(t, 2)
	b := launch(t, spec{Join: seeds(a), Remote: addrs[0], Gossip: addrs[1]})
	see(t, a, b)
	owners(t, 30, a, b)
	b.kill()
	began := time.Now()
	again := launch(t, spec{Join: seeds(a), Remote: b.addr, Gossip: b.gossipAddr})
	if again.id == b.id || again.addr != b.addr {
		t.Fatalf("restarted as %s at %s", again.id, again.addr)
	}
	// Memberlist still takes the old process for alive, and PIDs of its actors have the new one's address.
	see(t, a, again)
	counts := spread(owners(t, 30, a, again))
	t.Logf("all served %s after the kill", time.Since(began))
	if counts[a.id] == 0 || counts[again.id] == 0 || counts[b.id] != 0 {
		t.Errorf("identities on %v", counts)
	}
}

func TestCluster_SeedThatComesBackIsJoinedAgain(t *testing.T) {
	t.Parallel()
	addrs := free(t, 2)
	a := launch(t, spec{Remote: addrs[0], Gossip: addrs[1]})
	b := launch(t, spec{Join: seeds(a)})
	see(t, a, b)
	a.kill()
	see(t, b)
	// It joins nobody, and listens on all addresses but tells the one it had.
	everywhere := func(addr string) string { return strings.Replace(addr, "127.0.0.1", "0.0.0.0", 1) }
	again := launch(t, spec{
		Remote: everywhere(a.addr), Gossip: everywhere(a.gossipAddr),
		Advertise: cluster.Addrs{Gossip: a.gossipAddr, Remote: a.addr},
	})
	if again.addr != a.addr || again.gossipAddr != a.gossipAddr {
		t.Errorf("advertises %s and %s, want %s and %s", again.addr, again.gossipAddr, a.addr, a.gossipAddr)
	}
	began := time.Now()
	see(t, again, b)
	t.Logf("joined again after %s", time.Since(began))
	owners(t, 30, again, b)
}

// It is not parallel: see start.
func TestCluster_StrangersStayOut(t *testing.T) {
	key := func(fill byte) string {
		secret := make([]byte, 32)
		secret[0] = fill
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := key(1)
	a := launch(t, spec{KeyFile: first})
	b := launch(t, spec{KeyFile: first, Join: seeds(a)})
	see(t, a, b)
	for name, edit := range map[string]func(*cluster.Config){
		"other key":  func(cfg *cluster.Config) { cfg.KeyFile = key(2) },
		"no key":     func(*cluster.Config) {},
		"other name": func(cfg *cluster.Config) { cfg.KeyFile = first; cfg.Name = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newHost().config()
			cfg.Join = seeds(a)
			edit(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := cluster.Start(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("start: %v, want the deadline", err)
			}
		})
	}
	see(t, a, b)
}

func TestCluster_ActorTrafficOverTLS(t *testing.T) {
	t.Parallel()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cert.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	a := launch(t, spec{CertFile: path})
	b := launch(t, spec{CertFile: path, Join: seeds(a)})
	see(t, a, b)
	if counts := spread(owners(t, 20, a, b)); len(counts) != 2 {
		t.Errorf("identities on %v, want both members", counts)
	}
	plain := launch(t, spec{Join: seeds(a), Kindless: true}) // gossip is not encrypted here, so it becomes a member
	see(t, a, b, plain)
	plain.fail(request{Do: "ask", Identity: "e0", Arg: "where", Timeout: time.Second}, cluster.ErrNoAnswer)
}
