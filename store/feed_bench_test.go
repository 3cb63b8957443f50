package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

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
