package peers

import (
	"context"
	"sync/atomic"

	"github.com/evently/evently"
)

// skipLocked has a row for each seat that is free, and whoever takes a seat takes the row. Bookings of one event do not wait for each
// other: they pass over rows that are locked.
//
// Tickets are printed in advance, ticketsPrepared of them by Prepare, and then by the block whenever an event runs out of them,
// so that one of ten million seats can go on sale at once. A ticket that comes back gets a new number.
type skipLocked struct{ rows }

const (
	ticketBlock     = "2000"
	ticketsPrepared = 1_000_000 // of all events of one Prepare; printing them takes some 3 s
)

func (*skipLocked) schema() string {
	return ticketTables + ticketFunctions + changeFunction("bench_ticket_change", "", `
    if want > 1 then
        perform bench_ticket_return(e, r.tier, r.quantity);
    end if;`) + expireFunction("bench_ticket_expire", "", `
    perform bench_ticket_return(e, g.tier, sum(g.seats)::int4)
    from unnest(tiers, seats) as g (tier, seats) group by g.tier order by g.tier;`)
}

const ticketTables = `
create table if not exists bench_tickets (
    event_id int8 not null,
    tier     int4 not null,
    ticket   int8 not null,
    primary key (event_id, tier, ticket)
);
create table if not exists bench_rolls ( -- of tickets
    event_id int8 not null,
    tier     int4 not null,
    printed  int4 not null, -- seats that have, or had, a ticket
    next     int8 not null, -- number of the next ticket
    primary key (event_id, tier)
);`

// bench_ticket_take answers with the number of its last ticket and 1. When it finds too few tickets and there are none to print, others
// may have locked some and not take them in the end. So it waits for them before it refuses.
const ticketFunctions = `
create or replace function bench_ticket_return(e int8, i int4, q int4) returns void
language plpgsql as $$
declare n int8;
begin
    update bench_rolls set next = next + q where event_id = e and tier = i returning next into n;
    insert into bench_tickets (event_id, tier, ticket) select e, i, g from generate_series(n - q, n - 1) as g;
end
$$;

create or replace function bench_ticket_print(e int8, i int4, q int4, capacity int4, seen int4) returns void
language plpgsql as $$
declare
    n int4;
    first int8;
begin
    insert into bench_rolls (event_id, tier, printed, next) values (e, i, 0, 0) on conflict do nothing;
    select least(capacity - printed, greatest(q, ` + ticketBlock + `)), next into n, first
    from bench_rolls where event_id = e and tier = i and printed = seen for update;
    if found then -- else somebody else has printed
        insert into bench_tickets (event_id, tier, ticket) select e, i, g from generate_series(first, first + n - 1) as g;
        update bench_rolls set printed = printed + n, next = next + n where event_id = e and tier = i;
    end if;
end
$$;

create or replace function bench_ticket_take(` + bookArgs + `, n int8, capacity int4, start int8) returns int8
language plpgsql as $$
declare
    found_at tid[];
    last int8;
    seen int4;
begin
    if exists (select from reservations where event_id = e and key = k) then
        return -1000000;
    end if;
    loop
        found_at := array(
            select ctid from bench_tickets where event_id = e and tier = i and ticket >= start
            order by ticket limit q for update skip locked);
        exit when cardinality(found_at) = q;
        seen := coalesce((select printed from bench_rolls where event_id = e and tier = i), 0);
        start := 0;
        if seen >= capacity then
            found_at := array(
                select ctid from bench_tickets where event_id = e and tier = i order by ticket limit q for update);
            exit when cardinality(found_at) = q;
            return -1 - cardinality(found_at);
        end if;
        perform bench_ticket_print(e, i, q, capacity, seen);
    end loop;
    with taken as (delete from bench_tickets where ctid = any (found_at) returning ticket)
    select max(ticket) into last from taken;` + insertRow + `values (e, t, u, 0, i, q, price, at, until, n, n, k);
    return last + 1;
end
$$;`

const (
	ticketTakeSQL   = `select bench_ticket_take($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
	ticketChangeSQL = `select ` + reservationColumns + ` from bench_ticket_change($1, $2, $3, $4, $5, $6)`
	ticketExpireSQL = `select * from bench_ticket_expire($1, $2)`
)

func (d *skipLocked) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	cursor := &b.offer.tiers[b.tier].cursor
	// Every booking looks for tickets of its own first, so that there is little to pass over.
	start := cursor.Add(int64(b.quantity)) - int64(b.quantity)
	n := d.seq.next()
	first, last, err := d.until(ctx, b, ticketTakeSQL, ticketExpireSQL, func() []any {
		args := b.args()
		args[1] = int32(b.tier)
		return append(args, int64(n), int32(b.offer.tiers[b.tier].capacity), start)
	})
	switch {
	case err != nil:
		cursor.Store(0)
	case first == nil:
		b.seq = n
		advance(cursor, start, int64(b.quantity), last)
	}
	return first, err
}

// advance moves a cursor to behind the tickets that were found, if they were not where it had been.
func advance(cursor *atomic.Int64, start, quantity, end int64) {
	if start <= end-quantity && end <= start+quantity {
		return
	}
	for at := cursor.Load(); end < start || end > at; at = cursor.Load() {
		if cursor.CompareAndSwap(at, end) {
			return
		}
	}
}

func (d *skipLocked) change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	return d.changeBy(ctx, ticketChangeSQL, o, c)
}

func (d *skipLocked) counts(ctx context.Context, o *offer) (held, booked []int, err error) {
	return d.sums(ctx, o)
}

const ticketPrepareSQL = `
with roll as (
    insert into bench_rolls (event_id, tier, printed, next)
    select h.event_id, t.i - 1, least(t.c, $2), least(t.c, $2)
    from event_heads h, unnest(h.capacity) with ordinality as t (c, i) where h.event_id = any ($1)
    on conflict do nothing
    returning event_id, tier, printed
)
insert into bench_tickets (event_id, tier, ticket)
select event_id, tier, g from roll, generate_series(0, printed - 1) as g`

func (d *skipLocked) prepare(ctx context.Context, events []evently.EventID) error {
	if len(events) == 0 {
		return nil
	}
	if _, err := d.pool.Exec(ctx, ticketPrepareSQL, numbers(events), int32(max(1, ticketsPrepared/len(events)))); err != nil {
		return err
	}
	_, err := d.pool.Exec(ctx, "vacuum (analyze) bench_tickets")
	return err
}
