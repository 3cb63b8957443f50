package peers

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// heads is what the designs have in common that count on the event's row: a booking ends with one writer of this row at a time, and
// the next waits for its commit. When next_due passes and seats are wanted, holds expire.
type heads struct{ rows }

func newHeads(r *resources) heads { return heads{rows{r}} }

// schema has the functions of all three designs.
func (heads) schema() string {
	return forUpdateFunction + changeFunction("bench_head_change", `
    update event_heads set seq = seq + 1, last_at = greatest(last_at, at),
        held[r.tier + 1] = held[r.tier + 1] - case when r.status = 0 then r.quantity else 0 end,
        booked[r.tier + 1] = booked[r.tier + 1] + case when want = 1 then r.quantity when r.status = 1 then - r.quantity else 0 end
    where event_id = e returning seq into n;`, "") + expireFunction("bench_head_expire", `
    perform from event_heads where event_id = e for update;`, `
    update event_heads h
    set seq = seq + 1, last_at = greatest(last_at, at),
        held = (select array_agg(c - coalesce((select sum(s) from unnest(tiers, seats) as g (t, s) where t = i - 1), 0)::int4 order by i)
            from unnest(h.held) with ordinality as c (c, i)),
        next_due = (select min(expires_at) from reservations where event_id = e and status = 0)
    where event_id = e;`)
}

const (
	headChangeSQL = `select ` + reservationColumns + ` from bench_head_change($1, $2, $3, $4, $5, $6)`
	headExpireSQL = `select * from bench_head_expire($1, $2)`
)

// call books by a statement that answers with the seq.
func (h heads) call(ctx context.Context, b *booking, sql string) (*evently.Reservation, error) {
	b.offer.due.Store(math.MaxInt64) // the event's row knows when holds are due, and the statement tells
	first, seq, err := h.until(ctx, b, sql, headExpireSQL, b.args)
	b.seq = uint64(seq)
	return first, err
}

func (h heads) change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	return h.changeBy(ctx, headChangeSQL, o, c)
}

func (heads) counts(context.Context, *offer) (held, booked []int, err error) { return nil, nil, nil }

// forUpdate locks the row of the event, looks, and writes.
type forUpdate struct{ heads }

// forUpdateFunction looks without the lock first: refusals and known keys need none, and so write nothing.
const forUpdateFunction = `
create or replace function bench_for_update(` + bookArgs + `) returns int8
language plpgsql as $$
declare
    free int4;
    due timestamptz;
    n int8;
begin
    if exists (select from reservations where event_id = e and key = k) then
        return -1000000;
    end if;
    select capacity[i] - held[i] - booked[i], next_due into free, due from event_heads where event_id = e;
    if free >= q then
        select capacity[i] - held[i] - booked[i], next_due, seq + 1 into free, due, n from event_heads where event_id = e for update;
    end if;
    if free < q then
        return case when due <= at then -1000001 else -1 - free end;
    end if;` + insertRow + `values (e, t, u, 0, i - 1, q, price, at, until, n, n, k);
    update event_heads
    set seq = n, last_at = greatest(last_at, at), held[i] = held[i] + q, next_due = least(next_due, until)
    where event_id = e;
    return n;
end
$$;`

const forUpdateSQL = `select bench_for_update($1, $2, $3, $4, $5, $6, $7, $8, $9)`

func (d *forUpdate) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	return d.call(ctx, b, forUpdateSQL)
}

// conditionalUpdate counts up where that fits, and inserts if it did.
type conditionalUpdate struct{ heads }

// conditionalUpdateSQL changes nothing, and so waits for no disk, where the seats do not fit or the key is known. Of those who wait for
// the row each looks again when it gets it. What it answers for the others is as of its begin, and so at most q - 1.
const conditionalUpdateSQL = `
with counted as (
    update event_heads
    set seq = seq + 1, last_at = greatest(last_at, $8), held[$2] = held[$2] + $3, next_due = least(next_due, $9)
    where event_id = $1 and held[$2] + booked[$2] + $3 <= capacity[$2]
        and not exists (select from reservations where event_id = $1 and key = $6)
    returning seq
), booked as (` + insertRow + `
    select $1, $4, $5, 0, $2 - 1, $3, $7, $8, $9, seq, seq, $6 from counted
    returning seq
)
select coalesce((select seq from booked), (
    select case
        when exists (select from reservations where event_id = $1 and key = $6) then -1000000
        when next_due <= $8 then -1000001
        else -1 - least(capacity[$2] - held[$2] - booked[$2], $3 - 1)
    end
    from event_heads where event_id = $1))`

func (d *conditionalUpdate) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	return d.call(ctx, b, conditionalUpdateSQL)
}

// optimistic reads, decides here, and writes if nobody else has.
type optimistic struct{ heads }

const (
	optimisticReadSQL = `
select seq, capacity[$2] - held[$2] - booked[$2], coalesce(next_due <= $4, false),
    exists (select from reservations where event_id = $1 and key = $3)
from event_heads where event_id = $1`

	optimisticWriteSQL = `
with counted as (
    update event_heads
    set seq = seq + 1, last_at = greatest(last_at, $8), held[$2] = held[$2] + $3, next_due = least(next_due, $9)
    where event_id = $1 and seq = $10
    returning seq
)` + insertRow + `
    select $1, $4, $5, 0, $2 - 1, $3, $7, $8, $9, seq, seq, $6 from counted`
)

// Pauses of optimistic writers are random, up to a bound that doubles.
const (
	backOffMin = time.Millisecond
	backOffMax = 64 * time.Millisecond
)

func (d *optimistic) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	pause := backOffMin
	for range attemptsMax {
		var seq, free int64
		var due, known bool
		read := d.pool.QueryRow(ctx, optimisticReadSQL, int64(b.offer.event), int32(b.tier+1), keyUUID(b.key), b.at)
		switch err := read.Scan(&seq, &free, &due, &known); {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, evently.ErrEventNotFound
		case err != nil:
			return nil, err
		case known:
			return d.mustKnow(ctx, b.offer, b.key)
		case free < int64(b.quantity) && !due:
			return nil, soldOut(free)
		case free < int64(b.quantity):
			if _, err := d.expire(ctx, b.offer, headExpireSQL, b.at); err != nil {
				return nil, err
			}
			continue
		}
		written, err := d.pool.Exec(ctx, optimisticWriteSQL, append(b.args(), seq)...)
		switch {
		case isDuplicate(err):
			return d.mustKnow(ctx, b.offer, b.key)
		case err != nil:
			return nil, err
		case written.RowsAffected() == 1:
			b.seq = uint64(seq + 1)
			return nil, nil
		}
		if err := rest(ctx, rand.N(pause)); err != nil {
			return nil, err
		}
		pause = min(2*pause, backOffMax)
	}
	return nil, errContended
}

func rest(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
