package peers

import (
	"context"

	"github.com/evently/evently"
)

// advisoryLock has one booking of an event at a time sum up what is taken. It needs no counter, and pays for every reservation of the
// event with every booking. Reservations may change without the lock: they only ever give seats back.
type advisoryLock struct{ rows }

func (*advisoryLock) schema() string {
	return advisoryFunction + changeFunction("bench_advisory_change", "", "") + expireFunction("bench_advisory_expire", "", "")
}

// advisoryFunction takes the lock in a statement of its own: a later one sees what the holder before has committed. With look it sums up
// without the lock first, and refuses by that: it is worth the while where the event seems to be sold out.
const advisoryFunction = `
create or replace function bench_advisory(` + bookArgs + `, n int8, look bool) returns int8
language plpgsql as $$
declare free int4;
begin
    if exists (select from reservations where event_id = e and key = k) then
        return -1000000;
    end if;
    for locked in (case when look then 0 else 1 end) .. 1 loop
        if locked = 1 then
            perform pg_advisory_xact_lock(e);
        end if;
        select h.capacity[i] - coalesce((
            select sum(quantity) from reservations r where r.event_id = e and r.tier = i - 1 and r.status <= 1), 0)
        into free from event_heads h where h.event_id = e;
        if free < q then
            return -1 - free;
        end if;
    end loop;` + insertRow + `values (e, t, u, 0, i - 1, q, price, at, until, n, n, k);
    return n;
end
$$;`

const (
	advisorySQL       = `select bench_advisory($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	advisoryChangeSQL = `select ` + reservationColumns + ` from bench_advisory_change($1, $2, $3, $4, $5, $6)`
	advisoryExpireSQL = `select * from bench_advisory_expire($1, $2)`
)

func (d *advisoryLock) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	first, n, err := d.until(ctx, b, advisorySQL, advisoryExpireSQL, func() []any {
		return append(b.args(), int64(d.seq.next()), b.offer.full.Load())
	})
	b.seq = uint64(n)
	return first, err
}

func (d *advisoryLock) change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	return d.changeBy(ctx, advisoryChangeSQL, o, c)
}

func (d *advisoryLock) counts(ctx context.Context, o *offer) (held, booked []int, err error) {
	return d.sums(ctx, o)
}
