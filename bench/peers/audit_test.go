package peers

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// unlocked is a design that is wrong: it looks, and then writes what it has seen, without a lock or a condition.
type unlocked struct{ heads }

func (d *unlocked) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	var free int
	looked := `select capacity[$2] - held[$2] - booked[$2] from event_heads where event_id = $1`
	if err := d.pool.QueryRow(ctx, looked, int64(b.offer.event), b.tier+1).Scan(&free); err != nil {
		return nil, err
	}
	if free < b.quantity {
		return nil, soldOut(int64(free))
	}
	b.seq = d.seq.next()
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		// A key of its own: what a design does that forgets them.
		if _, err := tx.Exec(ctx, insertRow+`values ($1, $4, $5, 0, $2 - 1, $3, $6, $7, $8, $9, $9, gen_random_uuid())`, int64(b.offer.event),
			int32(b.tier+1), int32(b.quantity), int64(b.token), int64(b.user), b.price, b.at, b.until, int64(b.seq)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update event_heads set held[$2] = capacity[$2] - $3 where event_id = $1`, int64(b.offer.event), b.tier+1,
			free-b.quantity)
		return err
	})
	return nil, err
}

// TestAudit_FindsWhatAnUnlockedDesignDoes shows that the check of the conformance can fail.
func TestAudit_FindsWhatAnUnlockedDesignDoes(t *testing.T) {
	const capacity = 500
	w := newWorldOver(t, "for-update", pgtest.Database(t), 0)
	w.peer.design, w.peer.events.turns = &unlocked{newHeads(&resources{pool: w.pool, seq: newSequence()})}, 0
	event := w.event(t, nil, capacity)
	promises := rush(t.Context(), w, event)
	found, err := faults(t.Context(), w.storage, event, capacity, promises)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(found, "\n")
	for _, want := range []string{"oversold: ", "miscounted: ", "doubled: one key"} {
		if !strings.Contains(text, want) {
			t.Errorf("not found: %s", want)
		}
	}
}
