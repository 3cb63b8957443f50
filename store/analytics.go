package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// analyticsConsumer is the name of the consumer behind analytics.
const analyticsConsumer = "analytics"

// analyticsEntriesMax bounds the entries of one transaction of analytics. They are summed up in Postgres.
const analyticsEntriesMax = 20_000

// AnalyticsConsumer keeps the sums of evently.Analytics. It counts every entry of the journal from the first one on.
//
// An entry changes two sums of each of three scopes: those of its quarter of an hour and of all times, for its event, its
// organizer and everybody. They are exact: each entry is counted once, in the same transaction that moves the cursors, and what is
// counted never changes: seats and prices of a reservation are those of the decision.
func AnalyticsConsumer() Consumer {
	return Consumer{Name: analyticsConsumer, EntriesMax: analyticsEntriesMax, Consume: sumUp}
}

const (
	readGenerationSQL = `select generation from analytics_generation`

	// sumUpSQL adds the entries of spans $1 to $3 to the sums of generation $4. Money is summed up as numeric, which cannot overflow.
	// An event's capacity counts while it is published, and only in the sums of all times, which also tell what it was
	// before. Indexes: the primary keys. With offset 0 look-ups stay apart, one for each row that needs it, even where it is planned for
	// tables that are still small.
	sumUpSQL = `
with entry as materialized (
    select j.event_id, j.seq, j.kind, j.at, j.token, j.waiter, j.data
    from unnest($1::int8[], $2::int8[], $3::int8[]) as s (event_id, after, upto)
    cross join lateral (
        select * from journal j where j.event_id = s.event_id and j.seq > s.after and j.seq <= s.upto
    ) j
), counted as (
    select e.event_id, date_bin('15 minutes', e.at, timestamptz '2000-01-01 00:00:00+00') as bucket,
        count(*) filter (where e.kind = 6) as bookings,
        count(*) filter (where e.kind = 7 and r.confirmed_seq is not null) as cancellations,
        coalesce(sum(r.seats) filter (where e.kind = 6), 0) as tickets_booked,
        coalesce(sum(r.seats) filter (where e.kind = 7 and r.confirmed_seq is not null), 0) as tickets_cancelled,
        coalesce(sum(r.price) filter (where e.kind = 6), 0) as gross_minor,
        coalesce(sum(r.price) filter (where e.kind = 7 and r.confirmed_seq is not null), 0) as cancelled_minor,
        count(*) filter (where e.kind = 5) as holds,
        count(*) filter (where e.kind = 8) as holds_expired,
        count(*) filter (where e.kind = 7 and r.confirmed_seq is null) as holds_released,
        count(*) filter (where e.kind = 10) as waitlist_joined,
        count(*) filter (where e.kind = 12) as waitlist_left,
        count(*) filter (where e.kind = 5 and e.waiter) as waitlist_served,
        0 as capacity
    from entry e
    left join lateral (
        select r.confirmed_seq,
            case when r.more is null then r.quantity
                else r.quantity + (select sum((i ->> 'quantity')::int8) from jsonb_array_elements(r.more) i) end as seats,
            case when r.more is null then r.quantity::numeric * r.unit_price
                else r.quantity::numeric * r.unit_price
                    + (select sum((i ->> 'quantity')::numeric * (i ->> 'unit_price')::numeric) from jsonb_array_elements(r.more) i)
            end as price
        from reservations r where e.kind in (6, 7) and r.event_id = e.event_id and r.token = e.token
        offset 0
    ) r on true
    where e.kind in (5, 6, 7, 8, 10, 12)
        and (e.kind not in (6, 7) or r.seats is not null or raise_error('EV002', 'the reservation of an entry is missing'))
    group by 1, 2
), published as (
    -- The capacity after the last entry of each event itself.
    select distinct on (event_id) event_id, case when (data ->> 'status')::int2 = 1
        then (select coalesce(sum((t ->> 'capacity')::int8), 0) from jsonb_array_elements(data -> 'tiers') t) else 0 end as capacity
    from entry where kind in (1, 2, 3, 4, 14, 15)
    order by event_id, seq desc
), change as (
    select * from counted
    union all
    select event_id, '-infinity', sum(bookings), sum(cancellations), sum(tickets_booked), sum(tickets_cancelled), sum(gross_minor),
        sum(cancelled_minor), sum(holds), sum(holds_expired), sum(holds_released), sum(waitlist_joined), sum(waitlist_left),
        sum(waitlist_served), 0
    from counted group by event_id
    union all
    select p.event_id, '-infinity', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, p.capacity - coalesce(s.capacity, 0)
    from published p
    left join lateral (
        select capacity from analytics_sums s
        where s.generation = $4 and s.scope = 2 and s.id = p.event_id and s.bucket = '-infinity'
        offset 0
    ) s on true
    where p.capacity <> coalesce(s.capacity, 0)
)
insert into analytics_sums as s (generation, scope, id, bucket, currency, bookings, cancellations, tickets_booked, tickets_cancelled,
    gross_minor, cancelled_minor, holds, holds_expired, holds_released, waitlist_joined, waitlist_left, waitlist_served, capacity)
select $4, scope.scope, scope.id, c.bucket, v.currency, sum(c.bookings), sum(c.cancellations), sum(c.tickets_booked),
    sum(c.tickets_cancelled), sum(c.gross_minor), sum(c.cancelled_minor), sum(c.holds), sum(c.holds_expired), sum(c.holds_released),
    sum(c.waitlist_joined), sum(c.waitlist_left), sum(c.waitlist_served), sum(c.capacity)
from change c
left join lateral (select event_id, organizer, currency from events v where v.event_id = c.event_id offset 0) v on true
cross join lateral (values (0::int2, 0::int8), (1::int2, v.organizer), (2::int2, c.event_id)) as scope (scope, id)
where v.event_id is not null or raise_error('EV002', 'the event of an entry is missing')
group by 2, 3, 4, 5
order by 2, 3, 4, 5
on conflict (generation, scope, id, bucket, currency) do update
set bookings = s.bookings + excluded.bookings, cancellations = s.cancellations + excluded.cancellations,
    tickets_booked = s.tickets_booked + excluded.tickets_booked, tickets_cancelled = s.tickets_cancelled + excluded.tickets_cancelled,
    gross_minor = s.gross_minor + excluded.gross_minor, cancelled_minor = s.cancelled_minor + excluded.cancelled_minor,
    holds = s.holds + excluded.holds, holds_expired = s.holds_expired + excluded.holds_expired,
    holds_released = s.holds_released + excluded.holds_released, waitlist_joined = s.waitlist_joined + excluded.waitlist_joined,
    waitlist_left = s.waitlist_left + excluded.waitlist_left, waitlist_served = s.waitlist_served + excluded.waitlist_served,
    capacity = s.capacity + excluded.capacity`
)

// sumUp adds spans to the generation that is shown. A rebuild shows another one only while no step runs.
func sumUp(ctx context.Context, tx pgx.Tx, spans []Span) error {
	var generation int32
	if err := tx.QueryRow(ctx, readGenerationSQL).Scan(&generation); err != nil {
		return err
	}
	return sumUpAs(ctx, tx, generation, spans)
}

func sumUpAs(ctx context.Context, tx pgx.Tx, generation int32, spans []Span) error {
	events, after, upto := spanColumns(spans)
	_, err := tx.Exec(ctx, sumUpSQL, events, after, upto, generation)
	return err
}
