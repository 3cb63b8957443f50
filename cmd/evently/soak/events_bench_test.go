package soak

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
	"github.com/evently/evently/cmd/evently/proctest"
)

// One operation is the first booking of an event at a node. In the end all of their actors are in memory, and with the benchmark's
// own number of 100,000 events this shows what that takes:
//
//	go test -run - -bench ActiveEvents -benchtime 100000x ./cmd/evently/soak
func BenchmarkActiveEvents(b *testing.B) {
	const clients = 32
	dir := proctest.DataDir(b)
	node := proctest.Up(b, dir, "--log-level=warn", "--access-ttl=12h", "--rate-limit-book=off")
	events := seedEvents(b, dir)
	tokens := node.Users(b, 8)
	load := proctest.Plain(b)
	memory := func() (heap, resident float64) {
		proctest.Eventually(b, proctest.UpMax, func() error { return node.CollectGarbage(b.Context()) })
		percent := node.Metric(b, "go_gc_gogc_percent")
		return node.Metric(b, "go_memstats_next_gc_bytes") / (1 + percent/100), node.Metric(b, "process_resident_memory_bytes")
	}
	heapBefore, _ := memory()
	var next atomic.Int64
	var crowd sync.WaitGroup
	b.ResetTimer()
	for number := range clients {
		client := &proctest.Client{HTTP: load, API: node.API, Token: tokens[number%len(tokens)]}
		crowd.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				answer, err := client.Send(b.Context(), "POST", "/events/"+events[n-1].String()+"/book", "first", `{"quantity":1}`)
				if err != nil || answer.Status != 201 {
					b.Errorf("book event %d: status %d, %v %s", n, answer.Status, err, answer.Body)
					return
				}
			}
		})
	}
	crowd.Wait()
	b.StopTimer()
	heap, resident := memory()
	active := node.Metric(b, "evently_event_actors")
	if active < float64(b.N) {
		b.Errorf("%.0f of %d events are active", active, b.N)
	}
	b.ReportMetric((heap-heapBefore)/active, "heap-B/event")
	b.ReportMetric(resident/1e6, "resident-MB")
	b.ReportMetric(active, "events")
}

// seedEvents makes one event for each operation. Their holds live for longer than the benchmark takes: actors with holds stay.
func seedEvents(b *testing.B, dir string) []evently.EventID {
	b.Helper()
	url := proctest.Launch(b, dir, "database", "url")
	if exit := url.Exit(b, proctest.UpMax); exit != proctest.ExitOK {
		b.Fatalf("exit %d: %s", exit, url.Output())
	}
	pool, err := pgxpool.New(b.Context(), strings.TrimSpace(url.Output()))
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	organizer, err := bench.Administrator(b.Context(), pool)
	if err != nil {
		b.Fatal(err)
	}
	events, err := bench.SeedEvents(b.Context(), pool, organizer, "One of many", b.N, 100)
	if err != nil {
		b.Fatal(err)
	}
	return events
}
