package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

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

// The audit log and streams read spans outside of the feed, whose transactions bind the planner to look-ups by index.
func TestReadSpans_LooksUpWhatItReads(t *testing.T) {
	t.Parallel()
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
