package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Analytics reads the sums that AnalyticsConsumer keeps.
type Analytics struct{ pool *pgxpool.Pool }

var _ evently.Analytics = (*Analytics)(nil)

// NewAnalytics returns the analytics of a database.
func NewAnalytics(pool *pgxpool.Pool) *Analytics { return &Analytics{pool} }

// sumColumns are the columns of evently.Sums. Counts fit into 64 bits; money may not.
const (
	sumColumns = `coalesce(sum(bookings), 0)::int8, coalesce(sum(cancellations), 0)::int8, coalesce(sum(tickets_booked), 0)::int8,
    coalesce(sum(tickets_cancelled), 0)::int8, coalesce(sum(holds), 0)::int8, coalesce(sum(holds_expired), 0)::int8,
    coalesce(sum(holds_released), 0)::int8, coalesce(sum(waitlist_joined), 0)::int8, coalesce(sum(waitlist_left), 0)::int8,
    coalesce(sum(waitlist_served), 0)::int8, least(coalesce(sum(gross_minor), 0), 9223372036854775807)::int8,
    least(coalesce(sum(cancelled_minor), 0), 9223372036854775807)::int8`

	// shown are the rows of the generation that is shown.
	shown = `generation = (select generation from analytics_generation)`

	analyticsAsOfSQL = `select as_of from consumers where name = '` + analyticsConsumer + `' and as_of is not null`

	// summarySQL sums up the buckets of [$3, $4) of a scope by currency. Index: the primary key.
	summarySQL = `
select 0, currency, ` + sumColumns + `
from analytics_sums where ` + shown + ` and scope = $1 and id = $2 and bucket >= $3 and bucket < $4
group by currency
order by currency`

	// capacitySQL tells the seats of a scope. Index: the primary key.
	capacitySQL = `
select coalesce(sum(capacity), 0)::int8, coalesce(sum(tickets_booked - tickets_cancelled), 0)::int8
from analytics_sums where ` + shown + ` and scope = $1 and id = $2 and bucket = '-infinity'`

	// seriesSQL sums up the buckets between the bounds $3: part n is that from the n-th bound on. Index: the primary key.
	seriesSQL = `
select width_bucket(bucket, $3::timestamptz[]), currency, ` + sumColumns + `
from analytics_sums
where ` + shown + ` and scope = $1 and id = $2 and bucket >= $4 and bucket < $5
group by 1, 2
order by 1, 2`

	// leadersSQL ranks events by the buckets of [$1, $2), of organizer $3 unless it is zero, and of currency $4 unless it is empty, in the
	// order $5. It reads the sums of all these events in that time. Index: analytics_sums_by_bucket.
	leadersSQL = `
select v.event_id, v.name, v.status, t.capacity, t.tickets_booked - t.tickets_cancelled, v.currency, p.*
from (
    select ` + sumColumns + `, id as event_id, sum(tickets_booked - tickets_cancelled) as tickets,
        sum(gross_minor - cancelled_minor) as revenue
    from analytics_sums
    where ` + shown + ` and scope = 2 and bucket >= $1 and bucket < $2
        and ($3 = 0::int8 or id in (select event_id from events where organizer = $3))
    group by id
) p
join events v on v.event_id = p.event_id
join analytics_sums t on t.generation = (select generation from analytics_generation) and t.scope = 2 and t.id = p.event_id
    and t.bucket = '-infinity'
cross join lateral (
    select case $5::int4 when 0 then p.tickets when 1 then p.revenue
        else case when t.capacity > 0 then (t.tickets_booked - t.tickets_cancelled)::numeric / t.capacity end end as merit
) rank
where rank.merit > 0 and ($4 = '' or v.currency = $4)
order by rank.merit desc, v.event_id
limit $6`
)

// errNoAnalytics: no node has ever summed up the journal.
var errNoAnalytics = fmt.Errorf("nothing is summed up yet: %w", evently.ErrUnavailable)

// Scopes of sums.
const (
	everybodyScope = iota
	organizerScope
	eventScope
)

func scopeColumns(scope evently.AnalyticsScope) (kind int, id int64) {
	switch {
	case scope.Event != 0:
		return eventScope, int64(scope.Event)
	case scope.Organizer != 0:
		return organizerScope, int64(scope.Organizer)
	}
	return everybodyScope, 0
}

// ages is before every bucket, and after the sums of all times.
var ages = pgtype.Timestamptz{Time: time.Date(1, time.January, 1, 0, 0, 0, 0, time.UTC), Valid: true}

// bucketBounds are the columns' bounds of [from, to), of which zero is open: those of the buckets that it touches, or of the sums of all
// times.
func bucketBounds(from, to time.Time) (low, high pgtype.Timestamptz) {
	if from.IsZero() && to.IsZero() {
		return bound(time.Time{}, pgtype.NegativeInfinity), ages
	}
	low, high = ages, bound(time.Time{}, pgtype.Infinity)
	if !from.IsZero() {
		low = bound(from, pgtype.NegativeInfinity)
		low.Time = low.Time.Truncate(evently.AnalyticsBucket)
	}
	if !to.IsZero() {
		high = bound(to.Add(evently.AnalyticsBucket-1), pgtype.Infinity)
		high.Time = high.Time.Truncate(evently.AnalyticsBucket)
	}
	return low, high
}

// Summary implements evently.Analytics.
func (a *Analytics) Summary(ctx context.Context, scope evently.AnalyticsScope, from, to time.Time) (*evently.Summary, error) {
	kind, id := scopeColumns(scope)
	low, high := bucketBounds(from, to)
	summary := new(evently.Summary)
	err := a.read(ctx, &summary.AsOf, func(batch *pgx.Batch) {
		batch.Queue(summarySQL, kind, id, low, high).Query(func(rows pgx.Rows) error {
			return readSums(rows, func(int) *evently.Sums { return &summary.Sums })
		})
		batch.Queue(capacitySQL, kind, id).QueryRow(func(row pgx.Row) error { return row.Scan(&summary.Capacity, &summary.Booked) })
	})
	if err != nil {
		return nil, err
	}
	return summary, nil
}

// Series implements evently.Analytics.
func (a *Analytics) Series(ctx context.Context, scope evently.AnalyticsScope, bounds []time.Time) (*evently.Series, error) {
	points := len(bounds) - 1
	if points < 1 || points > evently.SeriesPointsMax {
		panic(fmt.Sprintf("analytics: a series of %d points", points))
	}
	kind, id := scopeColumns(scope)
	series := &evently.Series{Points: make([]evently.Sums, points)}
	err := a.read(ctx, &series.AsOf, func(batch *pgx.Batch) {
		batch.Queue(seriesSQL, kind, id, bounds, bounds[0], bounds[points]).Query(func(rows pgx.Rows) error {
			return readSums(rows, func(part int) *evently.Sums { return &series.Points[part-1] })
		})
	})
	if err != nil {
		return nil, err
	}
	return series, nil
}

// Leaders implements evently.Analytics.
func (a *Analytics) Leaders(ctx context.Context, leaders evently.Leaders) ([]evently.Leader, time.Time, error) {
	low, high := bucketBounds(leaders.From, leaders.To)
	var list []evently.Leader
	var asOf time.Time
	err := a.read(ctx, &asOf, func(batch *pgx.Batch) {
		batch.Queue(leadersSQL, low, high, int64(leaders.Organizer), leaders.Currency, int(leaders.Order),
			min(max(leaders.Limit, 1), evently.LeadersMax)).Query(func(rows pgx.Rows) (err error) {
			list, err = pgx.CollectRows(rows, scanLeader)
			return err
		})
	})
	return list, asOf, err
}

// analyticsMax bounds one question.
const analyticsMax = 5 * time.Second

// read asks for what queue adds to a batch, after the time up to which all is counted: what is read later is not older.
func (a *Analytics) read(ctx context.Context, asOf *time.Time, queue func(*pgx.Batch)) error {
	ctx, cancel := context.WithTimeout(ctx, analyticsMax)
	defer cancel()
	var batch pgx.Batch
	batch.Queue(analyticsAsOfSQL).QueryRow(func(row pgx.Row) error { return row.Scan(asOf) })
	queue(&batch)
	switch err := a.pool.SendBatch(ctx, &batch).Close(); {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoAnalytics
	case err != nil:
		return failed(err, "read analytics")
	}
	*asOf = milliseconds(*asOf)
	return nil
}

// readSums reads rows of a part, a currency and sumColumns, and adds each to the sums of its part.
func readSums(rows pgx.Rows, of func(part int) *evently.Sums) error {
	for rows.Next() {
		var part int
		sums, revenue := new(evently.Sums), evently.Revenue{}
		if err := rows.Scan(append([]any{&part, &revenue.Currency}, sumFields(sums, &revenue)...)...); err != nil {
			return err
		}
		add(of(part), sums, revenue)
	}
	return rows.Err()
}

// sumFields are where sumColumns are scanned to.
func sumFields(s *evently.Sums, r *evently.Revenue) []any {
	return []any{
		&s.Bookings, &s.Cancellations, &s.TicketsBooked, &s.TicketsCancelled, &s.Holds, &s.HoldsExpired, &s.HoldsReleased,
		&s.WaitlistJoined, &s.WaitlistLeft, &s.WaitlistServed, &r.GrossMinor, &r.CancelledMinor,
	}
}

// add adds the sums of one currency to those of others.
func add(to, s *evently.Sums, revenue evently.Revenue) {
	to.Bookings += s.Bookings
	to.Cancellations += s.Cancellations
	to.TicketsBooked += s.TicketsBooked
	to.TicketsCancelled += s.TicketsCancelled
	to.Holds += s.Holds
	to.HoldsExpired += s.HoldsExpired
	to.HoldsReleased += s.HoldsReleased
	to.WaitlistJoined += s.WaitlistJoined
	to.WaitlistLeft += s.WaitlistLeft
	to.WaitlistServed += s.WaitlistServed
	if s.Bookings > 0 || s.Cancellations > 0 {
		to.Revenue = append(to.Revenue, revenue)
	}
}

func scanLeader(row pgx.CollectableRow) (l evently.Leader, err error) {
	var event int64
	var revenue evently.Revenue
	var sums evently.Sums
	fields := append([]any{&event, &l.Name, &l.Status, &l.Capacity, &l.Booked, &l.Currency}, sumFields(&sums, &revenue)...)
	err = row.Scan(append(fields, nil, nil, nil)...) // these are of the order alone
	l.Event, revenue.Currency = evently.EventID(event), l.Currency
	add(&l.Sums, &sums, revenue)
	return l, err
}
