package store

import (
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

// Many events move at once, as when a node leaves: eight at a time, each with a few reservations. Postgres is on this machine, or
// as if it were a round trip away.
func BenchmarkJournal_Acquire(b *testing.B) {
	for name, delay := range map[string]time.Duration{"here": 0, "2ms away": 2 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			url := pgtest.Database(b)
			events := storeEvents(b, openWire(b, url, new(wire)))
			benchmarkAcquire(b, openWire(b, url, &wire{delay: delay}), events)
		})
	}
}

// storeEvents returns events with a few reservations each.
func storeEvents(b *testing.B, pool *pgxpool.Pool) []evently.EventID {
	b.Helper()
	const reservations = 5
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	ids := make([]evently.EventID, 500)
	for i := range ids {
		event := newEvent(100)
		if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
			b.Fatal(err)
		}
		ids[i] = event.ID
		office := storetest.OpenOffice(b, journal, event.ID)
		for range reservations {
			office.Book(7, office.Now, evently.Item{Quantity: 1})
		}
		office.MustFlush()
	}
	return ids
}

func benchmarkAcquire(b *testing.B, pool *pgxpool.Pool, events []evently.EventID) {
	b.Helper()
	const parallel = 8
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	var next atomic.Uint64
	b.SetParallelism(max(1, parallel/runtime.GOMAXPROCS(0)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := journal.Acquire(b.Context(), events[next.Add(1)%uint64(len(events))]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acquisitions/s")
}

// fillWaitlistSQL gives the event $1, which has one seat, $2 waiters and no entries of theirs.
const fillWaitlistSQL = `
insert into waitlist (event_id, token, user_id, status, tier, quantity, on_release, priority, position, joined_at, joined_seq, seq, key)
select event_id, i * 7919, i, 0, 0, 1 + i % 4, i % 2, i % 3, i, last_at, 2 + i, 2 + i, md5(i::text)::uuid
from event_heads, generate_series(1, $2::int8) i where event_id = $1;

insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, created_seq, seq)
select event_id, 1, 1, 0, 0, 1, 1200, last_at, last_at + interval '1 day', 2, 2 from event_heads where event_id = $1;

update event_heads set seq = 2 + $2, waiting = $2, held[1] = 1 where event_id = $1`

// One event whose waitlist is full.
func BenchmarkJournal_AcquireWaiters(b *testing.B) {
	pool := openWire(b, pgtest.Database(b), new(wire))
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	event := newEvent(1)
	if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
		b.Fatal(err)
	}
	fill := strings.NewReplacer("$1", strconv.FormatInt(int64(event.ID), 10), "$2", strconv.Itoa(evently.WaitersMax)).Replace(fillWaitlistSQL)
	if _, err := pool.Exec(b.Context(), fill+"; analyze", pgx.QueryExecModeSimpleProtocol); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		tenure, err := journal.Acquire(b.Context(), event.ID)
		if err != nil || tenure.Ledger.Waiting() != evently.WaitersMax {
			b.Fatalf("%+v %v", tenure, err)
		}
	}
}

// Reads beside a full waitlist: a page in the middle, and the place of the last one.
func BenchmarkWaitlists(b *testing.B) {
	pool := openWire(b, pgtest.Database(b), new(wire))
	event := newEvent(1)
	if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
		b.Fatal(err)
	}
	fill := strings.NewReplacer("$1", strconv.FormatInt(int64(event.ID), 10), "$2", strconv.Itoa(evently.WaitersMax)).Replace(fillWaitlistSQL)
	if _, err := pool.Exec(b.Context(), fill, pgx.QueryExecModeSimpleProtocol); err != nil {
		b.Fatal(err)
	}
	if _, err := pool.Exec(b.Context(), "vacuum analyze waitlist"); err != nil {
		b.Fatal(err)
	}
	waitlists := NewWaitlists(pool)
	b.Run("page", func(b *testing.B) {
		after := &evently.Cursor{Order: 0, Token: evently.WaitersMax / 2}
		for b.Loop() {
			list, _, err := waitlists.Waiters(b.Context(), evently.WaiterFilter{Event: event.ID}, evently.Page{Limit: 100, After: after})
			if err != nil || len(list) != 100 {
				b.Fatalf("%d %v", len(list), err)
			}
		}
	})
	b.Run("last", func(b *testing.B) {
		const last = 99_999 // of priority 0
		for b.Loop() {
			state, err := waitlists.Waiter(b.Context(), evently.WaiterID{Event: event.ID, Token: last * 7919})
			if err != nil || state.Position != evently.WaitersMax {
				b.Fatalf("%+v %v", state, err)
			}
		}
	})
}
