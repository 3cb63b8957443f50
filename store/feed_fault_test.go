package store

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

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
	t.Parallel()
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
	t.Parallel()
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
