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
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/cluster"
)

// ownerEnv, in the environment, makes the test binary run a node that owns the test's event until its standard input ends.
const ownerEnv = "EVENTLY_TEST_OWNER"

// runOwner is the main function of that node. It prints where other nodes join it.
func runOwner() int {
	err := func() error {
		kind := NewKind(Config{
			Journal: &memory{event: newEvent(evently.CapacityMax)}, Observer: ignore{}, Logger: slog.New(slog.DiscardHandler),
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
	return cluster.Config{Profile: cluster.ProfileFast, Kinds: kinds, Join: seeds, Logger: slog.New(slog.DiscardHandler)}
}

// abroad returns the engine of a node in this process, all of whose events are on a node in another one. Two in one process
// would race: each start replaces gRPC's global logger without a lock.
func abroad(tb testing.TB) *Engine {
	tb.Helper()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"=1")
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
	engine := abroad(t)
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

// A booking whose event lives in another process on this machine, with a journal in memory.
func BenchmarkEngine_BookInAnotherProcess(b *testing.B) {
	engine := abroad(b)
	var last atomic.Uint64
	bookOne := func(b *testing.B) {
		n := last.Add(1)
		request := &evently.Request{Event: 77, Who: 7, ID: "r", Command: &evently.Book{
			User: 7, Key: evently.Key{Lo: n}, Token: evently.Token(n), Items: evently.OneItem(evently.Item{Quantity: 1}),
		}}
		if _, err := engine.Do(b.Context(), request); err != nil {
			b.Error(err)
		}
	}
	b.Run("one caller", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			bookOne(b)
		}
	})
	b.Run("128 callers", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				bookOne(b)
			}
		})
	})
}
