package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// History reads reservations from Postgres.
type History struct{ pool *pgxpool.Pool }

var _ evently.History = (*History)(nil)

// NewHistory returns the history of a database.
func NewHistory(pool *pgxpool.Pool) *History { return &History{pool} }

// Prices are in the currency of the event, which never changes.
const reservationColumns = `r.event_id, r.token, r.user_id, r.status, r.tier, r.quantity, r.unit_price, r.more, e.currency,
    r.created_at, r.expires_at, r.confirmed_at, r.ended_at, r.seq, r.created_seq`

const reservationSQL = `
select ` + reservationColumns + ` from reservations r join events e using (event_id) where r.event_id = $1 and r.token = $2`

// Reservation implements evently.History.
func (h *History) Reservation(ctx context.Context, id evently.ReservationID) (*evently.Reservation, error) {
	row, err := scanReservation(h.pool.QueryRow(ctx, reservationSQL, int64(id.Event), int64(id.Token)))
	return found(&row.Reservation, err, evently.ErrReservationNotFound, "read reservation %s", id)
}

type listedReservation struct {
	evently.Reservation
	createdSeq int64
}

func scanReservation(row pgx.Row) (listedReservation, error) {
	var r listedReservation
	var event, token, user, seq int64
	var first evently.Item
	var more []byte
	var confirmedAt, endedAt *time.Time
	err := row.Scan(&event, &token, &user, &r.Status, &first.Tier, &first.Quantity, &first.UnitPriceMinor, &more, &r.Currency,
		&r.CreatedAt, &r.ExpiresAt, &confirmedAt, &endedAt, &seq, &r.createdSeq)
	if err != nil {
		return r, err
	}
	r.ID = evently.ReservationID{Event: evently.EventID(event), Token: evently.Token(token)}
	r.User, r.Seq = evently.UserID(user), uint64(seq)
	r.CreatedAt, r.ExpiresAt = milliseconds(r.CreatedAt), milliseconds(r.ExpiresAt)
	r.ConfirmedAt, r.EndedAt = timeOf(confirmedAt), timeOf(endedAt)
	if r.Items, err = decodeItems(first, more); err != nil {
		return r, fmt.Errorf("reservation %s: %w", r.ID, err)
	}
	return r, nil
}

const (
	// reservationsOfEventSQL is served by reservations_by_event.
	reservationsOfEventSQL = `
select ` + reservationColumns + `
from reservations r join events e using (event_id)
where r.event_id = $1 and r.created_seq < $2 and (cardinality($3::int2[]) = 0 or r.status = any ($3))
order by r.created_seq desc
limit $4`

	// reservationsOfUserSQL is served by reservations_by_user.
	reservationsOfUserSQL = `
select ` + reservationColumns + `
from reservations r join events e using (event_id)
where r.user_id = $1 and (r.created_at, r.event_id, r.token) < ($2, $3, $4)
  and ($5 = 0::int8 or r.event_id = $5) and (cardinality($6::int2[]) = 0 or r.status = any ($6))
order by r.created_at desc, r.event_id desc, r.token desc
limit $7`
)

// Reservations implements evently.History. A filter that names neither a user nor an event is an error.
func (h *History) Reservations(ctx context.Context, filter evently.ReservationFilter, page evently.Page) (
	[]*evently.Reservation, *evently.Cursor, error,
) {
	limit := limitOf(page)
	var rows pgx.Rows
	var err error
	switch {
	case filter.User != 0:
		before, event, token := beforeCursor(page.After)
		rows, err = h.pool.Query(ctx, reservationsOfUserSQL, int64(filter.User), before, event, token, int64(filter.Event),
			numbers(filter.Statuses), limit+1)
	case filter.Event != 0:
		before := int64(math.MaxInt64)
		if page.After != nil {
			before = page.After.Order
		}
		rows, err = h.pool.Query(ctx, reservationsOfEventSQL, int64(filter.Event), before, numbers(filter.Statuses), limit+1)
	default:
		return nil, nil, errors.New("list reservations: the filter names neither a user nor an event")
	}
	listed, err := collect(rows, err, func(row pgx.CollectableRow) (listedReservation, error) { return scanReservation(row) })
	if err != nil {
		return nil, nil, failed(err, "list reservations")
	}
	list := make([]*evently.Reservation, min(len(listed), limit))
	for i := range list {
		list[i] = &listed[i].Reservation
	}
	if len(listed) <= limit {
		return list, nil, nil
	}
	last := &listed[limit-1]
	next := &evently.Cursor{Order: last.createdSeq, Event: last.ID.Event, Token: last.ID.Token}
	if filter.User != 0 {
		next.Order = last.CreatedAt.UnixMilli()
	}
	return list, next, nil
}

// beforeCursor is the columns of a cursor in a list that has the newest first; before all without one.
func beforeCursor(cursor *evently.Cursor) (at pgtype.Timestamptz, event, token int64) {
	if cursor == nil {
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, math.MaxInt64, math.MaxInt64
	}
	return pgtype.Timestamptz{Time: time.UnixMilli(cursor.Order), Valid: true}, int64(cursor.Event), int64(cursor.Token)
}
