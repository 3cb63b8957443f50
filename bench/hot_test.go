package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkHotEvent books seats of one event over HTTP, in rounds of roundTime. Run it on an idle machine:
//
//	go test -run - -bench HotEvent -benchtime 3x ./bench
func BenchmarkHotEvent(b *testing.B) {
	const roundTime = 5 * time.Second
	node := startNode(b)
	tokens, err := node.Users(32)
	if err != nil {
		b.Fatal(err)
	}
	acknowledged := 0
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			booked, elapsed := 0, time.Duration(0)
			for range b.N {
				event, err := node.CreateEvent(10_000_000)
				if err != nil {
					b.Fatal(err)
				}
				load := &Load{Addr: node.Addr, Event: event, Tokens: tokens, Connections: connections, Duration: roundTime}
				result, err := load.Run()
				if err != nil || result.Failed > 0 || result.Refused > 0 {
					b.Fatalf("%+v %v", result, err)
				}
				if held, err := node.Held(event); err != nil || held != result.Booked {
					b.Fatalf("%d held of %d acknowledged: %v", held, result.Booked, err)
				}
				booked += result.Booked
				elapsed += result.Elapsed
			}
			acknowledged += booked
			b.ReportMetric(float64(booked)/elapsed.Seconds(), "bookings/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	if err := node.Stop(); err != nil {
		b.Fatal(err)
	}
	if err := node.Verify(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d bookings acknowledged, verified against the journal", acknowledged)
}

func startNode(b *testing.B) *Node {
	b.Helper()
	// Not b.TempDir: the account that runs Postgres must be able to enter it.
	dir, err := os.MkdirTemp("", "evently-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	node, err := StartNode(filepath.Clean(dir))
	if err != nil {
		b.Fatal(err)
	}
	return node
}
