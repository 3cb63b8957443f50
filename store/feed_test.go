package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/quick"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// feedPoll is that of the tests' feeds.
const feedPoll = 20 * time.Millisecond

// effects makes a consumer whose effect is a row for each entry: an entry that takes effect twice stands there twice.
func (b *bench) effects(name string) Consumer {
	b.Helper()
	b.exec(`create table if not exists effects (consumer text, event_id int8, seq int8, number int8 generated always as identity)`)
	return Consumer{Name: name, Consume: func(ctx context.Context, tx pgx.Tx, spans []Span) error {
		return ReadSpans(ctx, tx, spans, func(e *FeedEntry) error {
			_, err := tx.Exec(ctx, `insert into effects (consumer, event_id, seq) values ($1, $2, $3)`, name, int64(e.EventID), int64(e.Seq))
			return err
		})
	}}
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatal(err)
	}
}

// feeding runs a feed until the test or stop ends it.
func (b *bench) feeding(pool *pgxpool.Pool, consumers ...Consumer) (metrics *FeedMetrics, stop func()) {
	b.Helper()
	metrics = NewFeedMetrics(prometheus.NewRegistry())
	feed := NewFeed(pool, FeedConfig{Logger: discard, Metrics: metrics, Poll: feedPoll}, consumers...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() { feed.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	b.Cleanup(stop)
	return metrics, stop
}

// readerOf is what runs the consumer of a feed.
func readerOf(pool *pgxpool.Pool, consumer Consumer) *reader {
	feed := NewFeed(pool, FeedConfig{Logger: discard, Poll: feedPoll}, consumer)
	return newReader(feed, &feed.consumers[0])
}

const (
	// unfedSQL counts the entries that a consumer has not consumed.
	unfedSQL = `
		select count(*) from journal j
		where not exists (select from effects e where e.consumer = $1 and e.event_id = j.event_id and e.seq = j.seq)`
	// strangeEffectsSQL counts entries that took effect twice or before one that precedes them.
	strangeEffectsSQL = `
		select count(*) from effects a join effects b using (consumer, event_id)
		where a.consumer = $1 and a.number < b.number and a.seq >= b.seq`
)

// fed waits until every entry but some has taken effect, and checks that each did so once and in order.
func (b *bench) fed(consumer string, but int) {
	b.Helper()
	b.waitUntil("entries take effect", func() bool { return b.count(unfedSQL, consumer) == but })
	if n := b.count(strangeEffectsSQL, consumer); n != 0 {
		b.Errorf("%d entries took effect again or too late", n)
	}
}

// waitUntil polls for what another goroutine or process brings about.
func (b *bench) waitUntil(what string, done func() bool) {
	b.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(feedPoll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			b.Fatalf("waited for a minute until %s", what)
		}
	}
}

// sell writes entries of several kinds to an event.
func (o *owner) sell(n int) {
	o.Helper()
	at := o.Now.Truncate(time.Millisecond)
	for i := range n {
		held := o.book(evently.Item{Quantity: 1 + i%3})
		switch i % 4 {
		case 0:
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, at)
		case 1:
			o.decide(&evently.Release{User: 7, Token: held.ID.Token}, at)
		case 2:
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, at)
			o.decide(&evently.Cancel{User: 7, Token: held.ID.Token}, at)
		}
	}
	o.MustFlush()
}

func TestFeed_EveryEntryTakesEffectOnce(t *testing.T) {
	b := newBench(t, JournalConfig{})
	var owners []*owner
	for range 20 {
		owners = append(owners, b.acquire(b.event(100_000)))
	}
	for _, o := range owners {
		o.sell(5)
	}
	small := b.effects("small")
	small.EntriesMax = 7
	metrics, stop := b.feeding(b.pool, b.effects("early"), small)
	for range 5 {
		for _, o := range owners {
			o.sell(8)
		}
	}
	b.fed("early", 0)
	b.fed("small", 0)
	b.waitUntil("nothing is behind", func() bool { return testutil.ToFloat64(metrics.lagEntries.WithLabelValues("small")) == 0 })
	entries := b.count("select count(*) from journal")
	if got := testutil.ToFloat64(metrics.entries.WithLabelValues("small")); int(got) != entries {
		t.Errorf("%v entries counted, want %d", got, entries)
	}
	stop()
	owners[0].sell(1)
	_, stop = b.feeding(b.pool, b.effects("early"))
	b.fed("early", 0)
	stop()
	list, err := Consumers(t.Context(), b.pool)
	if err != nil || len(list) != 2 || list[0].Name != "early" || list[0].Behind != 0 || list[1].Behind == 0 || list[0].AsOf.Before(list[1].AsOf) ||
		!list[1].SteppedAt.IsZero() {
		t.Errorf("%+v %v", list, err)
	}
}

// A look passes over heads by the transactions that wrote them. Those that were running then are looked at again, however
// long they took.
func TestFeed_CommitsThatTakeLongAreSeen(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1000))
	other := b.acquire(b.event(1000))
	b.feeding(b.pool, b.effects("late"))
	b.fed("late", 0)
	slow := b.begin("insert into deleted_heads (event_id, seq) values (5, 1)")
	if _, err := slow.Exec(t.Context(), "insert into journal (event_id, seq, epoch, kind, at, who, request_id) values (5, 1, 1, 9, now() - interval '1 day', 0, '')"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o.sell(3)
		other.sell(2)
		b.fed("late", 0)
	}
	var before time.Time
	if err := b.pool.QueryRow(t.Context(), "select clock_timestamp()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	asOf := func() time.Time {
		list, err := Consumers(t.Context(), b.pool)
		if err != nil {
			t.Fatal(err)
		}
		return list[0].AsOf
	}
	b.waitUntil("some more looks are complete", func() bool { return asOf().After(before.Add(5 * feedPoll)) })
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.fed("late", 0)
}

func TestFeed_FromNow(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1000))
	o.sell(10)
	late := b.effects("late")
	late.FromNow = true
	old := b.count("select count(*) from journal")
	_, stop := b.feeding(b.pool, late)
	b.waitUntil("the consumer is enrolled", func() bool { return b.count("select count(*) from consumers where as_of is not null") == 1 })
	stop()
	o.sell(4) // while nobody runs it
	b.acquire(b.event(10)).sell(4)
	b.feeding(b.pool, late)
	b.fed("late", old)
	if n := b.count("select count(*) from effects where event_id = $1 and seq <= $2", int64(o.Ledger.Event().ID), old); n != 0 {
		t.Errorf("%d entries from before took effect", n)
	}
}

func TestFeed_DeletedDrafts(t *testing.T) {
	b := newBench(t, JournalConfig{})
	draft := func() evently.EventID {
		event := newEvent(10)
		event.Status = evently.EventDraft
		if _, err := b.events.CreateEvent(t.Context(), event, 1, ""); err != nil {
			t.Fatal(err)
		}
		return event.ID
	}
	remove := func(id evently.EventID) {
		if err := b.events.DeleteDraft(t.Context(), id, 1, ""); err != nil {
			t.Fatal(err)
		}
	}
	seen, unseen := draft(), draft()
	remove(unseen)
	b.feeding(b.pool, b.effects("drafts"))
	b.fed("drafts", 0)
	remove(seen)
	b.fed("drafts", 0)
	if n := b.count("select count(*) from effects where event_id = any ($1)", []int64{int64(seen), int64(unseen)}); n != 4 {
		t.Errorf("%d entries of drafts took effect, want 4", n)
	}
}

// Two nodes, each of which believes for ever that it is the runner, cannot double an effect.
func TestFeed_TwoNodesRace(t *testing.T) {
	b := newBench(t, JournalConfig{})
	var owners []*owner
	for range 8 {
		owners = append(owners, b.acquire(b.event(100_000)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	var overtaken atomic.Int64
	for range 3 {
		consumer := b.effects("contested")
		consumer.EntriesMax = 5
		r := readerOf(b.pool, consumer)
		running.Go(func() {
			for ctx.Err() == nil {
				// Each takes the lease by force, in the middle of the others' rounds.
				if _, err := b.pool.Exec(ctx, "update consumers set runner = $1 where name = 'contested'", r.feed.runner); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				r.leads = true
				if _, _, err := r.poll(ctx); errors.Is(err, errOvertaken) {
					overtaken.Add(1)
				} else if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		for _, o := range owners {
			o.sell(6)
		}
	}
	b.fed("contested", 0)
	cancel()
	running.Wait()
	b.fed("contested", 0)
	if overtaken.Load() == 0 {
		t.Error("the nodes never met")
	}
}

func TestFeed_AnotherNodeTakesOver(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1000))
	first := b.effects("moving")
	stuck, stick := make(chan struct{}), atomic.Bool{}
	consume := first.Consume
	first.Consume = func(ctx context.Context, tx pgx.Tx, spans []Span) error {
		if stick.Load() {
			close(stuck)
			<-ctx.Done()
			return ctx.Err()
		}
		return consume(ctx, tx, spans)
	}
	_, stop := b.feeding(b.pool, first)
	b.fed("moving", 0)
	stick.Store(true)
	o.sell(3)
	<-stuck
	b.feeding(openPool(t, b.pool.Config().ConnString(), 4), b.effects("moving"))
	if n := b.count(unfedSQL, "moving"); n == 0 {
		t.Error("a consumer was taken over in the middle of a step")
	}
	stop()
	b.fed("moving", 0)
}

func TestFeed_PoisonIsParked(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o, other := b.acquire(b.event(1000)), b.acquire(b.event(1000))
	o.sell(40)
	other.sell(40)
	poison := int64(o.Ledger.Event().ID)
	var cured, panics atomic.Bool
	consumer := b.effects("careful")
	consume := consumer.Consume
	consumer.Consume = func(ctx context.Context, tx pgx.Tx, spans []Span) error {
		if err := consume(ctx, tx, spans); err != nil {
			return err
		}
		for _, s := range spans {
			if int64(s.Event) == poison && s.After < 33 && 33 <= s.Upto && !cured.Load() {
				if panics.Load() {
					panic("poison \x00")
				}
				_, err := tx.Exec(ctx, "select 1/0")
				return err
			}
		}
		return nil
	}
	metrics, _ := b.feeding(b.pool, consumer)
	b.fed("careful", 1)
	parked := func() []ParkedEntry {
		list, err := Parked(t.Context(), b.pool, "careful")
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	b.waitUntil("an entry is parked", func() bool { return len(parked()) == 1 })
	if p := parked()[0]; int64(p.Event) != poison || p.Seq != 33 || !strings.Contains(p.Error, "division by zero") || p.Retry {
		t.Errorf("parked %+v", p)
	}
	b.waitUntil("the metric tells", func() bool { return testutil.ToFloat64(metrics.parked.WithLabelValues("careful")) == 1 })
	o.sell(4)
	b.fed("careful", 1)

	retry := func() {
		t.Helper()
		if n, err := RetryParked(t.Context(), b.pool, "careful", 0, 0); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	panics.Store(true)
	retry()
	b.waitUntil("it fails again", func() bool { return strings.Contains(parked()[0].Error, "panic: poison ?") && !parked()[0].Retry })
	cured.Store(true)
	retry()
	b.waitUntil("it is consumed", func() bool { return len(parked()) == 0 })
	if n := b.count(unfedSQL, "careful"); n != 0 {
		t.Errorf("%d entries have no effect", n)
	}
	if n := b.count("select count(*) - count(distinct (event_id, seq)) from effects"); n != 0 {
		t.Errorf("%d entries took effect twice", n)
	}
	if found, err := DiscardParked(t.Context(), b.pool, "careful", evently.EventID(poison), 33); found || err != nil {
		t.Error(found, err)
	}
}

// A consumer without room is no failure of the entry that is to be tried again.
func TestFeed_ParkedEntryWaitsForRoom(t *testing.T) {
	b := newBench(t, JournalConfig{})
	b.event(10)
	const defective, full, sound = 0, 1, 2
	var state, asked atomic.Int32
	b.feeding(b.pool, Consumer{Name: "filled", Consume: func(context.Context, pgx.Tx, []Span) error {
		switch state.Load() {
		case defective:
			return errors.New("defect")
		case full:
			asked.Add(1)
			return errNoRoom
		}
		return nil
	}})
	parked := func() (list []ParkedEntry) {
		list, err := Parked(t.Context(), b.pool, "filled")
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	b.waitUntil("an entry is parked", func() bool { return len(parked()) == 1 })
	state.Store(full)
	if n, err := RetryParked(t.Context(), b.pool, "filled", 0, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	b.waitUntil("the consumer is asked again and again", func() bool { return asked.Load() > 2 })
	if p := parked()[0]; !p.Retry || p.Error != "defect" {
		t.Errorf("%+v", p)
	}
	state.Store(sound)
	b.waitUntil("it is consumed", func() bool { return len(parked()) == 0 })
}

func TestFeed_StopsWhenEverythingIsPoison(t *testing.T) {
	b := newBench(t, JournalConfig{})
	b.acquire(b.event(100_000)).sell(600) // over a thousand entries
	broken := Consumer{Name: "broken", Consume: func(context.Context, pgx.Tx, []Span) error { return errors.New("defect") }}
	metrics, _ := b.feeding(b.pool, broken)
	b.waitUntil("it pauses", func() bool {
		return testutil.ToFloat64(metrics.failures.WithLabelValues("broken", failedTransient)) > 0
	})
	if n := b.count("select count(*) from parked_entries"); n != parkedMax {
		t.Errorf("%d entries are parked, want %d", n, parkedMax)
	}
	if list, err := Parked(t.Context(), b.pool, ""); len(list) != ParkedListMax || err != nil {
		t.Errorf("%d entries listed, %v", len(list), err)
	}
}

// statements counts the statements of a pool's connections and does something before the one with a number.
type statements struct {
	n   atomic.Int64
	at  int64
	hit func(ctx context.Context, conn *pgx.Conn)
}

func (s *statements) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if s.n.Add(1) == s.at {
		s.hit(ctx, conn)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceBatchStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return s.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{})
}

func (s *statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// A consumer is killed before each of its statements in turn, in different ways, and goes on in another process.
func TestFeed_KilledAtAnyPoint(t *testing.T) {
	const terminateSQL = `select pg_terminate_backend($1)`
	for name, kill := range map[string]func(b *bench, stop context.CancelFunc, conn *pgx.Conn){
		"cancelled": func(_ *bench, stop context.CancelFunc, _ *pgx.Conn) { stop() },
		"terminated by Postgres": func(b *bench, _ context.CancelFunc, conn *pgx.Conn) {
			b.exec(terminateSQL, conn.PgConn().PID())
		},
		"terminated and gone": func(b *bench, stop context.CancelFunc, conn *pgx.Conn) {
			b.exec(terminateSQL, conn.PgConn().PID())
			stop()
		},
		"terminated in the statement": func(b *bench, _ context.CancelFunc, conn *pgx.Conn) {
			go func() { // a moment later, when the statement runs, or has run
				_, err := b.pool.Exec(context.WithoutCancel(b.Context()), terminateSQL, conn.PgConn().PID())
				if err != nil {
					b.Error(err)
				}
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, JournalConfig{})
			o, other := b.acquire(b.event(100_000)), b.acquire(b.event(100_000))
			for at := int64(1); ; at++ {
				o.sell(2)
				other.sell(1)
				ctx, stop := context.WithCancel(t.Context())
				config, err := pgxpool.ParseConfig(b.pool.Config().ConnString())
				if err != nil {
					t.Fatal(err)
				}
				traced := &statements{at: at}
				traced.hit = func(_ context.Context, conn *pgx.Conn) { kill(b, stop, conn) }
				config.ConnConfig.Tracer, config.MaxConns = traced, 2
				pool, err := pgxpool.NewWithConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				r := readerOf(pool, b.effects("mortal"))
				_, _, err = r.poll(ctx)
				stop()
				reached := traced.n.Load() >= at
				pool.Close()
				if !reached {
					if err != nil || at < 8 {
						t.Fatalf("statement %d was not reached: %v", at, err)
					}
					break
				}
				b.exec("update consumers set stepped_at = '-infinity'") // the lease has run out
				next := readerOf(b.pool, b.effects("mortal"))
				b.waitUntil("the next node has consumed the rest", func() bool { // once what was killed has given up its locks
					_, _, err := next.poll(t.Context())
					return err == nil && b.count(unfedSQL, "mortal") == 0
				})
				next.resign(t.Context())
				b.fed("mortal", 0)
			}
			b.fed("mortal", 0)
		})
	}
}

func TestReadSpans_FillsWhatTheJournalLeavesOut(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(10, 10))
	at := o.Now.Truncate(time.Millisecond)
	booked := o.book(evently.Item{Tier: 0, Quantity: 2}, evently.Item{Tier: 1, Quantity: 3})
	o.decide(&evently.Confirm{User: 7, Token: booked.ID.Token}, at)
	o.decide(&evently.Cancel{User: 7, Token: booked.ID.Token}, at)
	held := o.book(evently.Item{Quantity: 4})
	o.decide(&evently.Release{User: 7, Token: held.ID.Token}, at)
	expired := o.book(evently.Item{Quantity: 1})
	o.decide(&evently.Expire{}, at.Add(2*time.Minute))
	o.decide(&evently.Publish{}, at.Add(2*time.Minute))
	o.MustFlush()
	id := o.Ledger.Event().ID
	var got []string
	read := func(spans ...Span) error {
		got = nil
		return pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return ReadSpans(t.Context(), tx, spans, func(e *FeedEntry) error {
				line := fmt.Sprintf("%d %s", e.Seq, e.Kind)
				if e.Token != 0 {
					line += fmt.Sprintf(" user %d seats %d total %d", e.User, e.Items.Quantity(), e.Items.TotalMinor())
				}
				if e.Event != nil {
					line += " " + e.Event.Name
				}
				if e.WasConfirmed {
					line += " booking"
				}
				if e.EventID != id || e.At.IsZero() || e.Kind == evently.HeldEntry && e.ExpiresAt.IsZero() {
					t.Errorf("entry %+v", e)
				}
				got = append(got, line)
				return nil
			})
		})
	}
	if err := read(Span{id, 0, o.Ledger.Seq()}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1 event_created Concert", "2 held user 7 seats 5 total 6000", "3 confirmed user 7 seats 5 total 6000",
		"4 cancelled user 7 seats 5 total 6000 booking", "5 held user 7 seats 4 total 4800", "6 cancelled user 7 seats 4 total 4800",
		"7 held user 7 seats 1 total 1200", "8 expired user 7 seats 1 total 1200",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if expired.ID.Token == 0 {
		t.Error("no reservation")
	}
	if err := read(Span{id, 3, 4}); err != nil || !slices.Equal(got, want[3:4]) {
		t.Errorf("%v %q", err, got)
	}
	if err := read(Span{id, 7, 9}); err == nil || !strings.Contains(err.Error(), "has no entry 9") {
		t.Errorf("an entry that is missing: %v", err)
	}
}

func TestTake_IsFairAndLosesNothing(t *testing.T) {
	check := func(seed uint64, limit uint8) bool {
		random := rand.New(rand.NewPCG(seed, 1))
		var spans []Span
		for i := range random.IntN(30) {
			after := random.Uint64N(100)
			spans = append(spans, Span{evently.EventID(i + 1), after, after + 1 + random.Uint64N(50)})
		}
		limit = max(limit, 1)
		before := slices.Clone(spans)
		taken, rest := take(spans, int(limit))
		total := entriesOf(spans)
		if entriesOf(taken) != min(total, uint64(limit)) || entriesOf(taken)+entriesOf(rest) != total || !slices.Equal(spans, before) {
			return false
		}
		if len(spans) > 0 && len(taken) != min(len(spans), int(limit)) {
			return false // everybody gets something
		}
		// Who is cut short got no less than anybody else, but for one.
		most := uint64(0)
		for _, s := range taken {
			most = max(most, s.entries())
		}
		for _, s := range taken {
			whole := slices.Contains(spans, s)
			if !whole && s.entries()+1 < most {
				return false
			}
		}
		// Together they are what was there.
		ends := map[evently.EventID]Span{}
		for _, s := range append(slices.Clone(taken), rest...) {
			if known, found := ends[s.Event]; found {
				if known.Upto != s.After {
					return false
				}
				s.After = known.After
			}
			ends[s.Event] = s
		}
		got := make([]Span, 0, len(ends))
		for _, s := range ends {
			got = append(got, s)
		}
		slices.SortFunc(got, func(a, b Span) int { return cmp.Compare(a.Event, b.Event) })
		return slices.Equal(got, before) || len(before) == 0
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}

// BenchmarkFeed_Look is what a look for new entries costs among 100,000 events of which none has any, and one that compares every head.
func BenchmarkFeed_Look(b *testing.B) {
	bench := newBench(b, JournalConfig{})
	const events = 100_000
	bench.exec(`alter table events disable trigger signal_event_changed`) // so many signals take their time
	bench.exec(`insert into events select i, 1, 1, 1, now(), 'e', '', '', '', '', 'UTC', 'EUR', now() + interval '1 day', now() + interval '2 days',
		null, null, 1000, 1, '[]' from generate_series(1, $1) i`, events)
	bench.exec(`insert into event_heads (event_id, seq, last_at, capacity, held, booked)
		select i, 1, now(), '{100000}', '{0}', '{0}' from generate_series(1, $1) i`, events)
	bench.exec(`insert into journal (event_id, seq, epoch, kind, at, who, request_id, data)
		select event_id, 1, 0, 1, now(), 1, '', to_jsonb(e) from events e`)
	consumer := Consumer{Name: "quiet", EntriesMax: 20_000, Consume: func(context.Context, pgx.Tx, []Span) error { return nil }}
	r := readerOf(bench.pool, consumer)
	for more := true; more; {
		var err error
		if _, more, err = r.poll(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for _, full := range []bool{false, true} {
		b.Run(fmt.Sprintf("full=%t", full), func(b *testing.B) {
			for b.Loop() {
				r.fullAt = time.Now()
				if full {
					r.fullAt = time.Time{}
				}
				if found, err := r.find(b.Context()); err != nil || len(found.spans) != 0 {
					b.Fatal(found, err)
				}
			}
		})
	}
}

// Behind a pooler that forbids prepared statements.
func TestFeed_WithoutPreparedStatements(t *testing.T) {
	b := benchOn(t, openPool(t, with(pgtest.Database(t), "default_query_exec_mode=exec"), 8), JournalConfig{})
	o := b.acquire(b.event(1000))
	o.sell(20)
	consumer := b.effects("plain")
	consumer.FromNow = true
	b.feeding(b.pool, consumer, AnalyticsConsumer())
	b.summed()
	b.waitUntil("rounds are complete", func() bool { return b.count("select count(*) from consumers where as_of is not null") == 2 })
	skipped := b.count("select count(*) from journal")
	o.sell(20)
	b.fed("plain", skipped)
	b.summed()
	analytics := NewAnalytics(b.pool)
	got, err := analytics.Summary(t.Context(), evently.AnalyticsScope{}, o.Now.Add(-time.Hour), time.Time{})
	if err != nil || got.Holds != 40 || got.Capacity != 1000 {
		t.Errorf("%+v %v", got, err)
	}
	series, err := analytics.Series(t.Context(), evently.AnalyticsScope{}, []time.Time{o.Now.Add(-24 * time.Hour), o.Now.Add(24 * time.Hour)})
	if err != nil || series.Points[0].Holds != 40 {
		t.Errorf("%+v %v", series, err)
	}
	if leaders, _, err := analytics.Leaders(t.Context(), evently.Leaders{Limit: 5}); err != nil || len(leaders) != 1 {
		t.Errorf("%+v %v", leaders, err)
	}
	if rebuilt, err := RebuildAnalytics(t.Context(), b.pool, false); err != nil || len(rebuilt.Differences) > 0 || !rebuilt.Swapped {
		t.Errorf("%+v %v", rebuilt, err)
	}
	if _, err := RetryParked(t.Context(), b.pool, "plain", 0, 0); err != nil {
		t.Error(err)
	}
	if list, err := Consumers(t.Context(), b.pool); err != nil || len(list) != 2 {
		t.Errorf("%+v %v", list, err)
	}
}

func TestNewFeed_RefusesTwoOfAName(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("two consumers share their cursors")
		}
	}()
	consumer := Consumer{Name: "twin", Consume: func(context.Context, pgx.Tx, []Span) error { return nil }}
	NewFeed(openPool(t, pgtest.Database(t), 4), FeedConfig{}, consumer, consumer)
}
