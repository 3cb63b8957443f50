package actors

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/cluster"
)

// ownerEnv, in the environment, makes the test binary run a node that owns the test's event until its standard input ends. Its
// value is how long a commit takes.
const ownerEnv = "EVENTLY_TEST_OWNER"

// runOwner is the main function of that node. It prints where other nodes join it.
func runOwner() int {
	err := func() error {
		takes, err := time.ParseDuration(os.Getenv(ownerEnv))
		if err != nil {
			return err
		}
		kind := NewKind(Config{
			Journal: &memory{event: newEvent(evently.CapacityMax), takes: takes}, Observer: ignore{}, Logger: slog.New(slog.DiscardHandler),
			Metrics: NewMetrics(prometheus.NewRegistry()), Now: func() time.Time { return opening },
		})
		node, err := cluster.Start(context.Background(), member(map[string]cluster.Kind{Kind: {Props: kind, Drain: &DrainMessage{}}}))
		if err != nil {
			return err
		}
		fmt.Println(node.GossipAddr())
		_, err = io.Copy(io.Discard, os.Stdin)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(err, node.Stop(ctx))
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

const patience = 30 * time.Second

type ignore struct{}

func (ignore) Committed(*evently.State) {}

func member(kinds map[string]cluster.Kind, seeds ...string) cluster.Config {
	return cluster.Config{Profile: cluster.ProfileFast, Kinds: kinds, Messages: Messages(), Join: seeds, Logger: slog.New(slog.DiscardHandler)}
}

// abroad returns the engine of a node in this process, all of whose events are on a node in another one. A commit takes a time. Two in one process
// would race: each start replaces gRPC's global logger without a lock.
func abroad(tb testing.TB, takes time.Duration) *Engine {
	tb.Helper()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"="+takes.String())
	var log strings.Builder
	owner.Stderr = &log
	stdin, err := owner.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := owner.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		stdin.Close() // an error means that it is gone, which Wait tells better
		if err := owner.Wait(); err != nil || log.Len() > 0 {
			tb.Errorf("the owner's node: %v\n%s", err, &log)
		}
	})
	seed, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		tb.Fatalf("the owner's node does not start: %v", err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	node, err := cluster.Start(ctx, member(nil, strings.TrimSpace(seed)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := node.Stop(ctx); err != nil {
			tb.Error(err)
		}
	})
	return NewEngine(node.System(), node, nil, NewMetrics(prometheus.NewRegistry()))
}

func TestEngine_OwnerInAnotherProcessDecides(t *testing.T) {
	engine := abroad(t, 0)
	do := func(request *evently.Request) (evently.Reply, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return engine.Do(ctx, request)
	}
	if reply, err := do(book(1, 2)); err != nil || reply.Reservation.ID != (evently.ReservationID{Event: 77, Token: 1}) || reply.Replayed {
		t.Errorf("got %+v %v", reply, err)
	}
	if reply, err := do(again(1, 2)); err != nil || !reply.Replayed || reply.Reservation.ID.Token != 1 {
		t.Errorf("replay: got %+v %v", reply, err)
	}
	if _, err := do(book(1, 3)); !errors.Is(err, evently.ErrKeyReused) {
		t.Errorf("got %v, want %v", err, evently.ErrKeyReused)
	}
	details := newEvent(1).EventDetails
	_, err := do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}})
	var refusal *evently.Error
	if !errors.As(err, &refusal) || refusal.Code != evently.CodeCapacityBelowSold || len(refusal.Fields) != 1 ||
		refusal.Fields[0].Field != "tiers[0].capacity" {
		t.Errorf("got %#v", err)
	}
	details.Tiers[0].Capacity = 5
	if reply, err := do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}}); err != nil ||
		reply.Event.Capacity() != 5 || reply.Event.Version != 2 {
		t.Errorf("got %+v %v", reply, err)
	}
	_, err = do(book(2, 4))
	if !errors.As(err, &refusal) || refusal.Code != evently.CodeSoldOut || refusal.Available != 3 {
		t.Errorf("got %#v", err)
	}
}

// home returns an engine all of whose events are in this process. A commit takes a time.
func home(tb testing.TB, takes time.Duration) *Engine {
	tb.Helper()
	system := newSystem()
	tb.Cleanup(system.Shutdown)
	metrics := NewMetrics(prometheus.NewRegistry())
	kind := NewKind(Config{
		Journal: &memory{event: newEvent(evently.CapacityMax), takes: takes}, Observer: ignore{}, Logger: slog.New(slog.DiscardHandler),
		Metrics: metrics, Now: func() time.Time { return opening },
	})
	return NewEngine(system, &spawner{system: system, props: kind}, nil, metrics)
}

// bookers book one seat each time they are asked, in turn.
type bookers struct {
	engine *Engine
	last   atomic.Uint64
}

func (b *bookers) book(tb testing.TB) {
	n := b.last.Add(1)
	request := &evently.Request{Event: 77, Who: 7, ID: "r", Command: &evently.Book{
		User: 7, Key: evently.Key{Lo: n}, Token: evently.Token(n), Items: evently.OneItem(evently.Item{Quantity: 1}),
	}}
	if _, err := b.engine.Do(tb.Context(), request); err != nil {
		tb.Error(err)
	}
}

// round lets a number of callers book together and returns the time it took.
func (b *bookers) round(tb testing.TB, callers, bookings int) time.Duration {
	began := time.Now()
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for range bookings / callers {
				b.book(tb)
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

// Bookings of 128 callers whose event lives in this process, and of 128 whose event lives in another one on this machine, in
// turn, with a journal in memory whose commits take no time, or the time of a fast disk. The time per operation is that of 5120
// bookings of each.
func BenchmarkEngine_Hop(b *testing.B) {
	for _, takes := range []time.Duration{0, time.Millisecond} {
		b.Run("commits of "+takes.String(), func(b *testing.B) { benchmarkHop(b, takes) })
	}
}

func benchmarkHop(b *testing.B, takes time.Duration) {
	const callers, bookings = 128, 128 * 40
	here, there := &bookers{engine: home(b, takes)}, &bookers{engine: abroad(b, takes)}
	here.book(b)
	there.book(b)
	var local, remote time.Duration
	rounds := 0
	b.ReportAllocs()
	for b.Loop() {
		local += here.round(b, callers, bookings)
		remote += there.round(b, callers, bookings)
		rounds++
	}
	each := float64(rounds * bookings)
	b.ReportMetric(each/local.Seconds(), "local/s")
	b.ReportMetric(each/remote.Seconds(), "remote/s")
	b.ReportMetric(100*local.Seconds()/remote.Seconds(), "%of-local")
}

// A booking whose event lives in another process on this machine, with a journal in memory.
func BenchmarkEngine_BookInAnotherProcess(b *testing.B) {
	there := &bookers{engine: abroad(b, 0)}
	b.Run("one caller", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			there.book(b)
		}
	})
	b.Run("128 callers", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				there.book(b)
			}
		})
	})
}
