package store

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// The audit log and streams read spans outside of the feed, whose transactions bind the planner to look-ups by index.
func TestReadSpans_LooksUpWhatItReads(t *testing.T) {
	b := newBench(t, JournalConfig{})
	b.exec(`
		insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, confirmed_at, created_seq,
		    confirmed_seq, seq)
		select 1 + i % 2, i, i, 1, 0, 1, 0, now(), now(), now(), i, i, i from generate_series(1, 50000) i`)
	b.exec(`
		insert into waitlist (event_id, token, user_id, status, tier, quantity, on_release, priority, position, joined_at, ended_at, joined_seq, seq)
		select event_id, token, user_id, 1, 0, 1, 0, 0, 1, now(), now(), created_seq, seq from reservations`)
	b.exec(`
		insert into journal (event_id, seq, epoch, kind, at, who, request_id, token)
		select event_id, created_seq, 1, 6, now(), 0, '', token from reservations`)
	b.exec(`analyze reservations, waitlist, journal`)
	spans := make([]Span, 100)
	for i := range spans {
		spans[i] = Span{Event: evently.EventID(1 + i%2), After: uint64(100 * i), Upto: uint64(100*i + 1)}
	}
	events, after, upto := spanColumns(spans)
	rows, err := b.pool.Query(t.Context(), "explain "+readSpansSQL, events, after, upto)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || strings.Contains(text, "Hash") || strings.Contains(text, "Merge") {
		t.Errorf("whole tables are read:\n%s", text)
	}
}
