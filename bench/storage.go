package bench

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Tables is the Storage of designs that keep reservations in the tables of the schema.
type Tables struct {
	Pool *pgxpool.Pool
}

var _ Storage = (*Tables)(nil)

// storedSQL is served by reservations_pkey.
const storedSQL = `
select r.event_id, r.token, r.user_id, r.status, r.key,
    r.quantity + coalesce((select sum((item->>'quantity')::int4) from jsonb_array_elements(r.more) item), 0)
from unnest($1::int8[]) as asked (event_id) join reservations r using (event_id)`

// Reservations implements Storage.
func (t *Tables) Reservations(ctx context.Context, events []evently.EventID, row func(Stored)) error {
	rows, err := t.Pool.Query(ctx, storedSQL, columnOf(events))
	if err != nil {
		return err
	}
	var event, token, user int64
	var status int16
	var key pgtype.UUID
	var quantity int
	_, err = pgx.ForEachRow(rows, []any{&event, &token, &user, &status, &key, &quantity}, func() error {
		stored := Stored{
			ID:   evently.ReservationID{Event: evently.EventID(event), Token: evently.Token(token)},
			User: evently.UserID(user), Status: evently.ReservationStatus(status), Quantity: quantity,
		}
		if key.Valid {
			stored.Key = evently.Key{Hi: binary.BigEndian.Uint64(key.Bytes[:8]), Lo: binary.BigEndian.Uint64(key.Bytes[8:])}
		}
		row(stored)
		return nil
	})
	return err
}

const countsSQL = `
select h.event_id, (select sum(n) from unnest(h.held) n), (select sum(n) from unnest(h.booked) n)
from unnest($1::int8[]) as asked (event_id) join event_heads h using (event_id)`

// Counts implements Storage.
func (t *Tables) Counts(ctx context.Context, events []evently.EventID) (map[evently.EventID]Count, error) {
	return t.CountsBy(ctx, countsSQL, events)
}

// CountsBy returns the counts of a statement, which takes an array of ids and gives rows of an id, seats held and seats booked.
func (t *Tables) CountsBy(ctx context.Context, sql string, events []evently.EventID) (map[evently.EventID]Count, error) {
	rows, err := t.Pool.Query(ctx, sql, columnOf(events))
	if err != nil {
		return nil, err
	}
	counts := make(map[evently.EventID]Count, len(events))
	var event int64
	var count Count
	_, err = pgx.ForEachRow(rows, []any{&event, &count.Held, &count.Booked}, func() error {
		counts[evently.EventID(event)] = count
		return nil
	})
	return counts, err
}

// columnOf is the column form of ids.
func columnOf(events []evently.EventID) []int64 {
	ids := make([]int64, len(events))
	for i, event := range events {
		ids[i] = int64(event)
	}
	return ids
}
