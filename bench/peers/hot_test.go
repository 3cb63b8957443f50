package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

// BenchmarkHot books seats of one event of a million, without HTTP, at a Postgres that flushes every commit to disk, with several numbers of
// callers and connections: it is what Design.Conns are chosen by. EVENTLY_CONNS=8,16 says which numbers, and EVENTLY_TURNS=4 how many turns;
// by default they are the design's own. Run it on an idle machine:
//
//	go test -run - -bench Hot -benchtime 3s ./bench/peers
func BenchmarkHot(b *testing.B) {
	each(b, func(b *testing.B, w *world, callers int) {
		event := w.event(b, nil, 1_000_000)
		w.prepare(b, event)
		load(b, w, callers, func(user evently.UserID, key string) error {
			_, err := w.book(context.Background(), event, user, key, 1)
			return err
		})
	})
}

// BenchmarkSoldOut refuses.
func BenchmarkSoldOut(b *testing.B) {
	each(b, func(b *testing.B, w *world, callers int) {
		event := w.event(b, nil, 100)
		for n := range 100 {
			w.mustBook(b, event, 1_000_000, fmt.Sprint(n), 1)
		}
		load(b, w, callers, func(user evently.UserID, key string) error {
			if _, err := w.book(context.Background(), event, user, key, 1); !errors.Is(err, evently.ErrSoldOut) {
				return fmt.Errorf("not sold out: %w", err)
			}
			return nil
		})
	})
}

// BenchmarkMany books seats of a thousand events in turn.
func BenchmarkMany(b *testing.B) {
	each(b, func(b *testing.B, w *world, callers int) {
		events := make([]evently.EventID, 1000)
		for i := range events {
			events[i] = w.event(b, nil, 100_000)
		}
		w.prepare(b, events...)
		var next atomic.Int64
		load(b, w, callers, func(user evently.UserID, key string) error {
			_, err := w.book(context.Background(), events[int(next.Add(1))%len(events)], user, key, 1)
			return err
		})
	})
}

func each(b *testing.B, run func(b *testing.B, w *world, callers int)) {
	dir := b.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for the account that runs Postgres
		b.Fatal(err)
	}
	server := pgtest.Private(b, func(c *embedded.Config) {
		c.DataDir, c.UnsafeNoFsync = filepath.Join(dir, "data"), false // on the disk
	})
	number := 0
	for _, d := range All() {
		if d.Ceiling {
			continue
		}
		for _, conns := range connsOf(b, d) {
			for _, callers := range []int{64, 256} {
				b.Run(fmt.Sprintf("%s/conns=%d/callers=%d", d.Name, conns, callers), func(b *testing.B) {
					number++
					w := newWorldOver(b, d.Name, database(b, server, number), conns)
					if text := os.Getenv("EVENTLY_TURNS"); text != "" {
						var err error
						if w.peer.events.turns, err = strconv.Atoi(text); err != nil {
							b.Fatal(err)
						}
					}
					run(b, w, callers)
				})
			}
		}
	}
}

func connsOf(b *testing.B, d Design) []int32 {
	text := os.Getenv("EVENTLY_CONNS")
	if text == "" {
		return []int32{d.Conns}
	}
	var all []int32
	for part := range strings.SplitSeq(text, ",") {
		var n int32
		if _, err := fmt.Sscan(part, &n); err != nil {
			b.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// load has callers ask as fast as they are answered.
func load(b *testing.B, w *world, callers int, ask func(user evently.UserID, key string) error) {
	var number, failed atomic.Int64
	var all sync.WaitGroup
	took := make([][]time.Duration, callers)
	before := postgresCPU(b, w)
	b.ResetTimer()
	began := time.Now()
	for caller := range callers {
		all.Go(func() {
			for {
				n := number.Add(1)
				if n > int64(b.N) {
					return
				}
				asked := time.Now()
				if err := ask(evently.UserID(caller+1), fmt.Sprint(n)); err != nil {
					if failed.Add(1) == 1 {
						b.Log(err)
					}
				}
				took[caller] = append(took[caller], time.Since(asked))
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	b.StopTimer()
	flat := slices.Concat(took...)
	slices.Sort(flat)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "answers/s")
	b.ReportMetric(flat[len(flat)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(float64(failed.Load()), "failed")
	b.ReportMetric((postgresCPU(b, w)-before).Seconds()*1e6/float64(b.N), "pg-µs")
	b.ReportMetric(0, "ns/op")
}

// database makes a migrated database.
func database(b *testing.B, server *embedded.Server, number int) string {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), server.DatabaseDSN("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	name := fmt.Sprintf("hot_%d_%d", number, time.Now().UnixNano())
	if _, err := conn.Exec(b.Context(), "create database "+name); err != nil {
		b.Fatal(err)
	}
	dsn := server.DatabaseDSN(name)
	if err := migrate(b.Context(), dsn); err != nil {
		b.Fatal(err)
	}
	return dsn
}

// postgresCPU is the processor time of the server processes that serve the pool, and of those that write for all.
func postgresCPU(b *testing.B, w *world) time.Duration {
	b.Helper()
	rows, err := w.pool.Query(b.Context(), "select pid from pg_stat_activity")
	if err != nil {
		b.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.Fatal(err)
	}
	var ticks int64
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}
