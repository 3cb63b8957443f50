package store

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// To load one event costs what that event has, however many reservations others have.
func TestAcquire_ReadsWaitersByTheirEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	b.exec(`
		insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, confirmed_at, created_seq,
		    confirmed_seq, seq)
		select 1 + i % 40, i, i, 1, 0, 1, 0, now(), now(), now(), i, i, i from generate_series(1, 100000) i`)
	b.exec(`
		insert into waitlist (event_id, token, user_id, status, tier, quantity, on_release, priority, position, joined_at, ended_at, joined_seq, seq)
		select event_id, token, user_id, 1, 0, 1, 0, 0, 1, now(), now(), created_seq, seq from reservations where event_id <= 4`)
	b.exec(`analyze reservations, waitlist`)
	rows, err := b.pool.Query(t.Context(), "explain "+loadWaitersSQL, 1)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan on reservations") {
		t.Errorf("all reservations are read:\n%s", text)
	}
}
