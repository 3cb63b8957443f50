package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

func TestFeed_EveryEntryTakesEffectOnce(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
