package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/evently/evently/cluster"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(specEnv); spec != "" {
		os.Exit(runMember(spec))
	}
	// Tests of member processes mostly wait for them. What -parallel says goes before.
	if err := flag.Set("test.parallel", fmt.Sprint(max(parallelMin, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, known)
}

// parallelMin is how many tests of member processes run at once, however few processors there are.
const parallelMin = 4

// known is the one goroutine that outlives Stop: memberlist's Shutdown does not wait for the probe under way, which ends
// with its own timeout, at most ProbeInterval times the awareness score. Proto.Actor's leaks are avoided: its gossip loop
// is closed by name, its connections' goroutines end with their actors, and the counter of dead letters ends after 100 ms.
var known = goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode")

// patience bounds every wait of the tests.
const patience = 30 * time.Second

const kindEvent = "event"

// fragile is an identity whose actor panics while it stops.
const fragile = "fragile"

// leave is the drain message of the test kind.
type leave struct{}

// host is a member in this process together with a record of what happened on it.
type host struct {
	*cluster.Node
	registry *prometheus.Registry
	mu       sync.Mutex
	heard    []string // notices, "member: body"
	spawns   map[string]int
	left     map[string]int // drain messages
}

func newHost() *host {
	return &host{registry: prometheus.NewRegistry(), spawns: make(map[string]int), left: make(map[string]int)}
}

func (h *host) count(counts map[string]int, identity string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts[identity]++
}

// spawned returns how often identity was activated, or how often any was if it is empty.
func (h *host) spawned(identity string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if identity != "" {
		return h.spawns[identity]
	}
	return sum(h.spawns)
}

// drained returns how many drain messages came.
func (h *host) drained() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sum(h.left)
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

// metric returns the sum of a metric's values, those with the label value only if one follows the name after a space.
func (h *host) metric(name string) (float64, error) {
	name, label, _ := strings.Cut(name, " ")
	families, err := h.registry.Gather()
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				if label != "" && metric.GetLabel()[0].GetValue() != label {
					continue
				}
				total += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	return total, nil
}

// props makes an actor that answers "where" with its member's id, obeys "stop", "retire" and "panic", and goes on leave.
func (h *host) props(identity string) *actor.Props {
	h.count(h.spawns, identity)
	return actor.PropsFromFunc(func(c actor.Context) {
		switch message := c.Message().(type) {
		case *actor.Stopping:
			if identity == fragile {
				panic("while stopping")
			}
		case leave:
			h.count(h.left, identity)
			c.Stop(c.Self())
		case *wrapperspb.StringValue:
			switch message.Value {
			case "where":
				c.Respond(wrapperspb.String(c.ActorSystem().ID))
			case "stop":
				c.Stop(c.Self())
			case "retire":
				c.ActorSystem().EventStream.Publish(&protocluster.ActivationTerminating{
					Pid: c.Self(), ClusterIdentity: protocluster.NewClusterIdentity(identity, kindEvent),
				})
				c.Respond(wrapperspb.String("retired"))
			case "panic":
				panic("asked to")
			}
		}
	})
}

func (h *host) config() cluster.Config {
	return cluster.Config{
		Name:       "test",
		Profile:    cluster.ProfileLAN, // a faster one takes members for dead on a busy machine
		Kinds:      map[string]cluster.Kind{kindEvent: {Props: h.props, Drain: leave{}}},
		Messages:   []string{"google.protobuf.StringValue"},
		Logger:     slog.New(slog.DiscardHandler),
		Registerer: h.registry,
	}
}

// ask locates the actor and sends it a command. It tries again, as an engine does, until it is answered.
func (h *host) ask(ctx context.Context, identity, command string) (string, error) {
	for {
		pid, err := h.Locate(ctx, kindEvent, identity)
		if err != nil {
			return "", err
		}
		answer, err := h.System().Root.RequestFuture(pid, wrapperspb.String(command), 200*time.Millisecond).Result()
		if value, ok := answer.(*wrapperspb.StringValue); ok && err == nil {
			return value.Value, nil
		}
		if ctx.Err() != nil {
			return "", errors.Join(ctx.Err(), err)
		}
		h.Forget(kindEvent, identity, pid)
	}
}

// start runs a member in this process until the test ends. Each edit changes its configuration. Tests of several members
// use launch, and those that use start are not parallel: two remotes in one process race, for each start of one replaces gRPC's global
// logger without a lock.
func start(t *testing.T, edits ...func(*cluster.Config)) *host {
	t.Helper()
	h := newHost()
	cfg := h.config()
	for _, edit := range edits {
		edit(&cfg)
	}
	var err error
	if h.Node, err = cluster.Start(deadline(t), cfg); err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return h
}

// deadline returns a context that ends with the test or after patience.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until missing returns "", which otherwise says what is.
func eventually(t testing.TB, missing func() string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		what := missing()
		if what == "" {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("after %s: %s", patience, what)
		}
	}
}
