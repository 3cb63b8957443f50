package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/evently/evently/cluster"
)

func TestNode_OneMemberServesAtOnce(t *testing.T) {
	began := time.Now()
	h := start(t)
	if id := where(t, h, "a"); id != h.ID() {
		t.Errorf("served by %s, want %s", id, h.ID())
	}
	took := time.Since(began)
	t.Logf("started and served in %s", took)
	if took > 900*time.Millisecond { // Proto.Actor's own start sleeps for a second
		t.Errorf("start and first answer took %s, want at most 900ms", took)
	}
	members := h.Members()
	if len(members) != 1 || members[0].ID != h.ID() || members[0].Addr != h.Addr() || members[0].GossipAddr != h.GossipAddr() ||
		members[0].State != cluster.MemberAlive || members[0].Start.Before(began.Add(-time.Second)) {
		t.Errorf("members %+v, want the one", members)
	}
	if err := h.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func TestLocate_ConcurrentFirstLookupsSpawnOneActor(t *testing.T) {
	h := start(t)
	const callers = 100
	pids := make([]*actor.PID, callers)
	var group sync.WaitGroup
	begin := make(chan struct{})
	for i := range callers {
		group.Go(func() {
			<-begin
			var err error
			if pids[i], err = h.Locate(deadline(t), kindEvent, "a"); err != nil {
				t.Errorf("locate: %v", err)
			}
		})
	}
	close(begin)
	group.Wait()
	for _, pid := range pids {
		if !pid.Equal(pids[0]) {
			t.Errorf("got %v and %v", pid, pids[0])
		}
	}
	if n := h.spawned("a"); n != 1 {
		t.Errorf("%d actors spawned, want 1", n)
	}
	if !h.IsLocal(pids[0]) {
		t.Errorf("%v is not local", pids[0])
	}
}

func TestLocate_StoppedActorIsActivatedAgain(t *testing.T) {
	h := start(t)
	ctx := deadline(t)
	ways := map[string]string{"a": "stop", "b": "panic", fragile: "stop"}
	for identity, way := range ways {
		t.Run(identity+" "+way, func(t *testing.T) {
			first, err := h.Locate(ctx, kindEvent, identity)
			if err != nil {
				t.Fatal(err)
			}
			h.System().Root.Send(first, wrapperspb.String(way))
			eventually(t, func() string {
				second, err := h.Locate(ctx, kindEvent, identity)
				if err != nil {
					t.Fatal(err)
				}
				if second.Equal(first) {
					return "still the first actor"
				}
				return ""
			})
			if id := where(t, h, identity); id != h.ID() {
				t.Errorf("served by %s", id)
			}
			if n := h.spawned(identity); n != 2 {
				t.Errorf("%d actors spawned, want 2", n)
			}
		})
	}
	if n := activations(t, h); n != float64(len(ways)) {
		t.Errorf("%v activations counted, want %d", n, len(ways))
	}
}

func TestLocate_RetiringActorIsNotHandedOut(t *testing.T) {
	h := start(t)
	ctx := deadline(t)
	first, err := h.Locate(ctx, kindEvent, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ask(ctx, "a", "retire"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if pid, err := h.Locate(short, kindEvent, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v while %v retires, want to wait", pid, err, first)
	}
	// It still answers those that found it before.
	if answer, err := h.System().Root.RequestFuture(first, wrapperspb.String("where"), patience).Result(); err != nil {
		t.Errorf("retiring actor: %v, %v", answer, err)
	}
	h.System().Root.Send(first, wrapperspb.String("stop"))
	if second, err := h.Locate(ctx, kindEvent, "a"); err != nil || second.Equal(first) {
		t.Errorf("got %v, %v after %v has stopped", second, err, first)
	}
}

func TestLocate_ActorThatCannotBeMade(t *testing.T) {
	h := start(t, func(cfg *cluster.Config) {
		cfg.Kinds["broken"] = cluster.Kind{Props: func(string) *actor.Props { panic("no props") }}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if pid, err := h.Locate(ctx, "broken", "a"); pid != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v, want the deadline", pid, err)
	}
	if pid, err := h.Locate(ctx, "unknown", "a"); pid != nil || !errors.Is(err, cluster.ErrNoOwner) {
		t.Errorf("got %v, %v, want ErrNoOwner", pid, err)
	}
}

func TestDrain_WaitsForEveryActivation(t *testing.T) {
	h := start(t, func(cfg *cluster.Config) {
		cfg.Kinds["plain"] = cluster.Kind{Props: cfg.Kinds[kindEvent].Props} // default drain: poison
	})
	const events = 1000
	ctx := deadline(t)
	for i := range events {
		for _, kind := range []string{kindEvent, "plain"} {
			if _, err := h.Locate(ctx, kind, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := activations(t, h); n != 2*events {
		t.Errorf("%v activations, want %d", n, 2*events)
	}
	began := time.Now()
	if err := h.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("drained %d in %s", 2*events, time.Since(began))
	if n := h.drained(); n != events {
		t.Errorf("%d actors got the drain message, want %d", n, events)
	}
	if n := activations(t, h); n != 0 {
		t.Errorf("%v activations left", n)
	}
	if _, err := h.Locate(ctx, kindEvent, "0"); !errors.Is(err, cluster.ErrDraining) {
		t.Errorf("locate after drain: %v, want ErrDraining", err)
	}
	if err := h.Ready(); !errors.Is(err, cluster.ErrDraining) {
		t.Errorf("ready after drain: %v, want ErrDraining", err)
	}
}

func TestDrain_WaitsForAnActorThatIsJustBeingMade(t *testing.T) {
	making, made := make(chan struct{}), make(chan struct{})
	h := start(t, func(cfg *cluster.Config) {
		props := cfg.Kinds[kindEvent].Props
		cfg.Kinds[kindEvent] = cluster.Kind{Drain: leave{}, Props: func(identity string) *actor.Props {
			close(making)
			<-made
			return props(identity)
		}}
	})
	ctx := deadline(t)
	var group sync.WaitGroup
	group.Go(func() {
		if pid, err := h.Locate(ctx, kindEvent, "a"); !errors.Is(err, cluster.ErrDraining) {
			t.Errorf("got %v, %v, want ErrDraining", pid, err)
		}
	})
	<-making
	group.Go(func() {
		if err := h.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		if h.spawned("a") != 1 || h.drained() != 1 {
			t.Errorf("drain ended with %d actors spawned and %d drained, want 1 and 1", h.spawned("a"), h.drained())
		}
	})
	eventually(t, func() string {
		if err := h.Ready(); !errors.Is(err, cluster.ErrDraining) {
			return fmt.Sprintf("ready: %v", err)
		}
		return ""
	})
	close(made)
	group.Wait()
}

func TestDrain_RacingLookupsLeaveNothing(t *testing.T) {
	h := start(t)
	ctx := deadline(t)
	var group sync.WaitGroup
	started := make(chan struct{}, 8)
	for worker := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				if _, err := h.Locate(ctx, kindEvent, fmt.Sprint(worker, "-", i)); errors.Is(err, cluster.ErrDraining) {
					return
				} else if err != nil {
					t.Errorf("locate: %v", err)
					return
				}
				if i == 50 {
					started <- struct{}{}
				}
			}
		})
	}
	<-started
	if err := h.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if n := activations(t, h); n != 0 {
		t.Errorf("%v activations left", n)
	}
	group.Wait()
	if n := h.drained(); n != h.spawned("") {
		t.Errorf("%d spawned, %d drained", h.spawned(""), n)
	}
}

func TestStop_DeafActorDoesNotHoldIt(t *testing.T) {
	h := start(t, func(cfg *cluster.Config) {
		deaf := func(string) *actor.Props { return actor.PropsFromFunc(func(actor.Context) {}) }
		cfg.Kinds["deaf"] = cluster.Kind{Props: deaf, Drain: leave{}}
	})
	if _, err := h.Locate(deadline(t), "deaf", "a"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("drain: %v, want the deadline", err)
	}
	if err := h.Node.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("stop: %v, want the deadline", err)
	}
	h.Node = start(t).Node // the cleanup must not see the wanted error again
}

func TestStop_Twice(t *testing.T) {
	h := start(t)
	ctx := deadline(t)
	if h.Err() != nil {
		t.Errorf("ended: %v", h.Err())
	}
	var group sync.WaitGroup
	began := time.Now()
	for range 3 {
		group.Go(func() {
			if err := h.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
	group.Wait()
	t.Logf("stopped in %s", time.Since(began))
	<-h.Done()
	if !errors.Is(h.Err(), cluster.ErrStopped) {
		t.Errorf("ended with %v, want ErrStopped", h.Err())
	}
	if _, err := h.Locate(ctx, kindEvent, "a"); !errors.Is(err, cluster.ErrStopped) {
		t.Errorf("locate after stop: %v, want ErrStopped", err)
	}
}

func TestStart_Failures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	nobody := taken.Addr().String() // accepts, never answers
	for name, edit := range map[string]func(*cluster.Config){
		"remote address taken": func(cfg *cluster.Config) { cfg.RemoteAddr = nobody },
		"gossip address taken": func(cfg *cluster.Config) { cfg.GossipAddr = nobody },
		"seed does not answer": func(cfg *cluster.Config) { cfg.Join = []string{nobody} },
		"seed is no address":   func(cfg *cluster.Config) { cfg.Join = []string{"nowhere"} },
		"key file is missing":  func(cfg *cluster.Config) { cfg.KeyFile = t.TempDir() + "/none" },
		"too many kinds": func(cfg *cluster.Config) {
			for i := range 100 {
				cfg.Kinds[fmt.Sprint("kind", i)] = cfg.Kinds[kindEvent]
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newHost().config()
			edit(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := cluster.Start(ctx, cfg); err == nil {
				t.Error("started")
			} else {
				t.Log(err)
			}
		})
	}
}

// where returns the id of the member that serves identity.
func where(t *testing.T, h *host, identity string) string {
	t.Helper()
	id, err := h.ask(deadline(t), identity, "where")
	if err != nil {
		t.Fatalf("ask %s: %v", identity, err)
	}
	return id
}

func activations(t *testing.T, h *host) float64 {
	t.Helper()
	n, err := h.metric("evently_cluster_activations")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMetrics_AreNamedAsPrometheusWants(t *testing.T) {
	h := start(t)
	problems, err := testutil.GatherAndLint(h.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func BenchmarkLocate(b *testing.B) {
	node, err := cluster.Start(b.Context(), newHost().config())
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := node.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	const identity = "0193e2a4-7b1c-7c3e-9d57-5f0d2e8c1a44"
	b.Run("local", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := node.Locate(b.Context(), kindEvent, identity); err != nil {
				b.Fatal(err)
			}
		}
	})
}
