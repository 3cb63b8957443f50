package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// rows is what the designs have in common that keep reservations in Postgres.
type rows struct{ *resources }

// What the stored functions answer to a booking besides a seq, which is more than zero, or the free seats as -1 - free.
const (
	answerKnown = -1_000_000 // the key has a reservation
	answerDue   = -1_000_001 // not enough seats are free, but holds are past their time
)

// insertRow is a reservation as the functions insert it: a hold of one tier. The unique index of keys refuses a second one of a key.
const insertRow = `
    insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, created_seq, seq, key)
    `

// bookArgs are the parameters that the functions of bookings begin with: event, index of the tier from 1, seats, token, user, key, price,
// now and the end of the hold.
const bookArgs = `e int8, i int4, q int4, t int8, u int8, k uuid, price int8, at timestamptz, until timestamptz`

func (b *booking) args() []any {
	return []any{
		int64(b.offer.event), int32(b.tier + 1), int32(b.quantity), int64(b.token), int64(b.user), keyUUID(b.key), b.price, b.at, b.until,
	}
}

func keyUUID(key evently.Key) pgtype.UUID {
	uuid := pgtype.UUID{Valid: true}
	binary.BigEndian.PutUint64(uuid.Bytes[:8], key.Hi)
	binary.BigEndian.PutUint64(uuid.Bytes[8:], key.Lo)
	return uuid
}

// attemptsMax bounds how often something is tried again that another request got in the way of.
const attemptsMax = 64

var errContended = fmt.Errorf("%w: others were first %d times", evently.ErrOverloaded, attemptsMax)

// until books by a function of SQL. While it refuses and holds are past their time it ends these and tries again: the function
// may know of such holds, or else offer.due does.
func (r rows) until(ctx context.Context, b *booking, sql, expire string, args func() []any) (
	first *evently.Reservation, answer int64, err error,
) {
	for range attemptsMax {
		err := r.pool.QueryRow(ctx, sql, args()...).Scan(&answer)
		switch {
		case isDuplicate(err) || err == nil && answer == answerKnown:
			first, err = r.mustKnow(ctx, b.offer, b.key)
			return first, 0, err
		case isConflict(err):
			continue
		case err != nil:
			return nil, 0, err
		case answer >= 0:
			return nil, answer, nil
		case answer != answerDue && b.at.UnixMilli() < b.offer.due.Load():
			return nil, 0, soldOut(-1 - answer)
		}
		ended, err := r.expire(ctx, b.offer, expire, b.at)
		switch {
		case err != nil:
			return nil, 0, err
		case !ended && answer != answerDue:
			return nil, 0, soldOut(-1 - answer)
		}
	}
	return nil, 0, errContended
}

// expire ends holds, and notes when the next are past their time: no earlier than the first of those that are left, or than one that is
// made now.
func (r rows) expire(ctx context.Context, o *offer, sql string, at time.Time) (ended bool, err error) {
	var next *time.Time
	if err := r.pool.QueryRow(ctx, sql, int64(o.event), at).Scan(&ended, &next); err != nil {
		return false, err
	}
	due := at.Add(o.holdTTL)
	if next != nil && next.Before(due) {
		due = *next
	}
	o.due.Store(due.UnixMilli())
	return ended, nil
}

// isConflict reports whether a statement had no effect because of another one, and may be repeated. The constraint of the seats is
// one: it does not let the seats of a reservation go that has ended meanwhile.
func isConflict(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01" || pg.Code == "23514")
}

func isDuplicate(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// reservationColumns are those that scanReservation reads.
const reservationColumns = `token, user_id, status, tier, quantity, unit_price, created_at, expires_at, confirmed_at, ended_at, created_seq, seq`

// knownSQL is served by reservations_by_key.
const knownSQL = `select ` + reservationColumns + ` from reservations where event_id = $1 and key = $2`

func (r rows) known(ctx context.Context, o *offer, key evently.Key) (*evently.Reservation, error) {
	found, createdSeq, err := scanReservation(o, r.pool.QueryRow(ctx, knownSQL, int64(o.event), keyUUID(key)))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	}
	found.Status, found.Seq, found.ConfirmedAt, found.EndedAt = evently.Held, createdSeq, time.Time{}, time.Time{}
	return found, nil
}

func (r rows) mustKnow(ctx context.Context, o *offer, key evently.Key) (*evently.Reservation, error) {
	found, err := r.known(ctx, o, key)
	if err == nil && found == nil {
		err = fmt.Errorf("%w: the reservation of a key has gone", evently.ErrUnavailable)
	}
	return found, err
}

func scanReservation(o *offer, row pgx.Row) (r *evently.Reservation, createdSeq uint64, err error) {
	r = &evently.Reservation{Currency: o.currency}
	var token, user, created, seq int64
	var item evently.Item
	var confirmedAt, endedAt *time.Time
	err = row.Scan(&token, &user, &r.Status, &item.Tier, &item.Quantity, &item.UnitPriceMinor, &r.CreatedAt, &r.ExpiresAt, &confirmedAt,
		&endedAt, &created, &seq)
	if err != nil {
		return nil, 0, err
	}
	r.ID = evently.ReservationID{Event: o.event, Token: evently.Token(token)}
	r.User, r.Items, r.Seq = evently.UserID(user), evently.OneItem(item), uint64(seq)
	r.CreatedAt, r.ExpiresAt = r.CreatedAt.UTC(), r.ExpiresAt.UTC()
	if confirmedAt != nil {
		r.ConfirmedAt = confirmedAt.UTC()
	}
	if endedAt != nil {
		r.EndedAt = endedAt.UTC()
	}
	return r, uint64(created), nil
}

// changeFunction makes a function that moves a reservation on. before is what a design does first of all when the reservation r will
// change, and has to set n, its seq; after is what it does in the end. Another transaction may change the row between the look and
// the update: then nothing is done, and the caller tries again.
func changeFunction(name, before, after string) string {
	return `
create or replace function ` + name + `(e int8, t int8, u int8, want int4, at timestamptz, n int8) returns setof reservations
language plpgsql as $$
declare r reservations;
begin
    select * into r from reservations where event_id = e and token = t and user_id = u;
    if not found then
        return;
    end if;
    if not (r.status = 0 and r.expires_at > at and want > 0 or r.status = 1 and want = 3) then
        return next r;
        return;
    end if;
    ` + before + `
    update reservations
    set status = case when want = 1 then 1 else 2 end, seq = n,
        confirmed_at = case when want = 1 then at else confirmed_at end, confirmed_seq = case when want = 1 then n else confirmed_seq end,
        ended_at = case when want = 1 then null else at end
    where event_id = e and token = t and status = r.status;
    if not found then
        raise exception 'the reservation changed' using errcode = '40001';
    end if;
    ` + after + `
    return query select * from reservations where event_id = e and token = t;
end
$$;`
}

// change calls a function of changeFunction.
func (r rows) changeBy(ctx context.Context, sql string, o *offer, c *change) (*evently.Reservation, error) {
	for range attemptsMax {
		found, _, err := scanReservation(o, r.pool.QueryRow(ctx, sql, int64(o.event), int64(c.token), int64(c.user), int32(c.want), c.at,
			int64(r.seq.next())))
		switch {
		case isConflict(err):
			continue
		case errors.Is(err, pgx.ErrNoRows):
			return nil, evently.ErrReservationNotFound
		case err != nil:
			return nil, err
		}
		asOf(found, c.at)
		return found, nil
	}
	return nil, errContended
}

// asOf has a hold that is past its time end there, although nobody has wanted its seats yet.
func asOf(r *evently.Reservation, at time.Time) {
	if r.Status == evently.Held && !at.Before(r.ExpiresAt) {
		r.Status, r.EndedAt = evently.Expired, r.ExpiresAt
	}
}

// expireFunction makes a function that ends the holds of an event that are past their time, at most expireMax of them. after is
// what a design does for them; gone are their tiers and seats.
func expireFunction(name, before, after string) string {
	return `
create or replace function ` + name + `(e int8, at timestamptz) returns table (ended bool, next_at timestamptz)
language plpgsql as $$
declare
    tiers int4[];
    seats int4[];
begin
    ` + before + `
    with due as (
        select token from reservations where event_id = e and status = 0 and expires_at <= at order by created_seq limit ` + expireMax + `
    ), gone as (
        update reservations r set status = 3, ended_at = at, seq = r.seq + 1 from due
        where r.event_id = e and r.token = due.token and r.status = 0 and r.expires_at <= at
        returning tier, quantity
    )
    select array_agg(tier), array_agg(quantity) into tiers, seats from gone;
    ended := tiers is not null;
    ` + after + `
    next_at := (select min(expires_at) from reservations where event_id = e and status = 0);
    return next;
end
$$;`
}

const expireMax = "512"

// sumSQL is served by reservations_by_event.
const sumSQL = `
select tier, status, sum(quantity)::int4 from reservations where event_id = $1 and status <= 1 group by tier, status`

// sums counts live seats row by row, for designs that have no counter.
func (r rows) sums(ctx context.Context, o *offer) (held, booked []int, err error) {
	held, booked = make([]int, len(o.tiers)), make([]int, len(o.tiers))
	result, err := r.pool.Query(ctx, sumSQL, int64(o.event))
	if err != nil {
		return nil, nil, err
	}
	var tier, seats int
	var status evently.ReservationStatus
	_, err = pgx.ForEachRow(result, []any{&tier, &status, &seats}, func() error {
		switch {
		case tier >= len(o.tiers): // added since
		case status == evently.Held:
			held[tier] = seats
		default:
			booked[tier] = seats
		}
		return nil
	})
	return held, booked, err
}
