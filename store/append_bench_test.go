package store

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

// Batches of holds by many users, as a sale makes them: of one event and of many, each in one transaction. Commits are flushed, to
// wherever temporary files are: with TMPDIR on a disk the wait for it is part of entries/s. backend-µs is CPU time of the writer's
// Postgres process, where the system tells it.
func BenchmarkJournal_Append(b *testing.B) {
	server := pgtest.Private(b, func(c *embedded.Config) {
		c.UnsafeNoFsync = false
		c.Settings = maps.Clone(c.Settings)
		delete(c.Settings, "max_wal_size") // as small as for tests it would make checkpoints all the time
	})
	if err := Migrate(b.Context(), server.DSN(), slog.New(slog.DiscardHandler)); err != nil {
		b.Fatal(err)
	}
	users := make([]evently.UserID, 10_000)
	for i := range users {
		users[i] = evently.UserID(rand.Uint64())
	}
	for _, c := range []struct{ events, entries int }{{1, 1}, {1, 64}, {1, 128}, {1, 256}, {1, 512}, {64, 1}, {64, 16}, {500, 2}} {
		b.Run(fmt.Sprintf("%d events of %d entries", c.events, c.entries), func(b *testing.B) {
			pool := openPool(b, server.DSN(), 4)
			journal := OpenJournal(pool, JournalConfig{Writers: 1})
			defer journal.Close()
			w := journal.writers[0]
			w.ensureConnected()
			offices := make([]*storetest.Office, c.events)
			for i := range offices {
				event := newEvent(evently.CapacityMax)
				if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
					b.Fatal(err)
				}
				offices[i] = storetest.OpenOffice(b, journal, event.ID)
			}
			requests, cpu, wal := 1<<40, cpuTime(b, w.conn.PID()), walBytes(b, pool)
			for b.Loop() {
				b.StopTimer()
				batches := make([]*evently.Batch, 0, c.events)
				outcomes := make([]<-chan error, 0, c.events)
				for _, office := range offices {
					office.Now = office.Now.Add(10 * time.Millisecond)
					for range c.entries {
						office.Book(users[rand.IntN(len(users))], office.Now, evently.Item{Quantity: 1})
					}
					batch, outcome := office.Take()
					for i := range batch.Entries {
						requests++
						batch.Entries[i].Who = batch.Entries[i].User
						batch.Entries[i].RequestID = "AbCdEfGhIjKl." + strconv.Itoa(requests)
					}
					batches, outcomes = append(batches, batch), append(outcomes, outcome)
				}
				b.StartTimer()
				w.commit(batches) // the writer's own goroutine has nothing to do
				for _, outcome := range outcomes {
					if err := <-outcome; err != nil {
						b.Fatal(err)
					}
				}
			}
			entries := float64(b.N * c.events * c.entries)
			b.ReportMetric(entries/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric((cpuTime(b, w.conn.PID())-cpu).Seconds()*1e6/entries, "backend-µs/entry")
			b.ReportMetric((walBytes(b, pool)-wal)/entries, "WAL-B/entry")
		})
	}
}

// cpuTime is how long a process has run, where Linux tells it, and zero elsewhere.
func cpuTime(t testing.TB, pid uint32) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0
	}
	ran, _, _ := strings.Cut(string(text), " ")
	nanoseconds, err := strconv.ParseInt(ran, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(nanoseconds)
}

func walBytes(b *testing.B, pool *pgxpool.Pool) (bytes float64) {
	b.Helper()
	if err := pool.QueryRow(b.Context(), "select pg_current_wal_insert_lsn() - '0/0'").Scan(&bytes); err != nil {
		b.Fatal(err)
	}
	return bytes
}
