package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Catalogue reads and adds events in Postgres.
type Catalogue struct{ pool *pgxpool.Pool }

var _ evently.Catalogue = (*Catalogue)(nil)

// NewCatalogue returns the catalogue of a database.
func NewCatalogue(pool *pgxpool.Pool) *Catalogue { return &Catalogue{pool} }

// createEventSQL writes nothing when the event is there already. It names its columns: further ones keep their defaults.
const createEventSQL = `
with event as (
    insert into events (event_id, organizer, status, version, created_at, name, description, category, venue, city, timezone,
        currency, starts_at, ends_at, sales_start_at, sales_end_at, hold_ttl_ms, max_per_booking, max_per_user, tiers, pricing)
    select event_id, organizer, status, version, created_at, name, description, category, venue, city, timezone,
        currency, starts_at, ends_at, sales_start_at, sales_end_at, hold_ttl_ms, max_per_booking, max_per_user, tiers, pricing
    from jsonb_populate_record(null::events, $1)
    on conflict do nothing
    returning event_id, created_at
), head as (
    insert into event_heads (event_id, seq, last_at, capacity, held, booked)
    select event_id, 1, created_at, $5, array_fill(0, array[cardinality($5::int4[])]), array_fill(0, array[cardinality($5::int4[])])
    from event
)
insert into journal (event_id, seq, epoch, kind, at, who, request_id, data)
select event_id, 1, 0, $2, created_at, $3, $4, $1::jsonb from event`

// CreateEvent implements evently.Catalogue. An ID that another organizer uses is an error; the ID of a deleted event
// gives evently.ErrEventNotFound.
func (c *Catalogue) CreateEvent(
	ctx context.Context, event *evently.Event, who evently.UserID, requestID string,
) (*evently.Event, error) {
	data, err := encodeEvent(event)
	if err != nil {
		return nil, fmt.Errorf("create event: %w", err)
	}
	capacity := make([]int32, len(event.Tiers))
	for i, tier := range event.Tiers {
		capacity[i] = int32(tier.Capacity)
	}
	tag, err := c.pool.Exec(ctx, createEventSQL, string(data), evently.EventCreatedEntry, int64(who), requestID, capacity)
	switch {
	case violates(err, "journal_pkey"): // the journal outlives the event
		return nil, fmt.Errorf("create event %s: deleted before: %w", event.ID, evently.ErrEventNotFound)
	case err != nil:
		return nil, failed(err, "create event %s", event.ID)
	case tag.RowsAffected() == 1:
		return decodeEvent(data)
	}
	state, err := c.State(ctx, event.ID)
	if err != nil {
		return nil, fmt.Errorf("create event: %w", err)
	}
	if state.Event.Organizer != event.Organizer {
		return nil, fmt.Errorf("create event %s: the id is taken by another organizer", event.ID)
	}
	return state.Event, nil
}

// lockHeadSQL waits for a batch that is being committed, so that the next statement sees the event as it is now.
const lockHeadSQL = `select from event_heads where event_id = $1 for update`

// deleteDraftSQL takes the head with it, which fences whoever owns the event.
const deleteDraftSQL = `
with draft as (
    delete from events where event_id = $1 and status = $2 returning event_id
)
insert into journal (event_id, seq, epoch, kind, at, who, request_id)
select h.event_id, h.seq + 1, h.epoch, $3, greatest(h.last_at, date_trunc('milliseconds', clock_timestamp())), $4, $5
from event_heads h join draft using (event_id)`

// DeleteDraft implements evently.Catalogue. The event's entries stay in the journal.
func (c *Catalogue) DeleteDraft(ctx context.Context, id evently.EventID, who evently.UserID, requestID string) error {
	err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		locked, err := tx.Exec(ctx, lockHeadSQL, int64(id))
		if err != nil {
			return err
		}
		if locked.RowsAffected() == 0 {
			return evently.ErrEventNotFound
		}
		deleted, err := tx.Exec(ctx, deleteDraftSQL, int64(id), evently.EventDraft, evently.EventDeletedEntry, int64(who), requestID)
		if err == nil && deleted.RowsAffected() == 0 {
			return evently.ErrEventNotDraft
		}
		return err
	})
	var refusal *evently.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case err != nil:
		return failed(err, "delete draft %s", id)
	}
	return nil
}

const stateColumns = `to_jsonb(e), h.seq, h.capacity, h.held, h.booked, h.waiting, now()`

// stateSQL is one statement, so that the event and its counts belong together.
const stateSQL = `select ` + stateColumns + ` from events e join event_heads h using (event_id) where e.event_id = $1`

// State implements evently.Catalogue.
func (c *Catalogue) State(ctx context.Context, id evently.EventID) (*evently.State, error) {
	state, err := scanState(c.pool.QueryRow(ctx, stateSQL, int64(id)))
	return found(state, err, evently.ErrEventNotFound, "read event %s", id)
}

func scanState(row pgx.Row) (*evently.State, error) {
	var data []byte
	var seq int64
	var capacity, held, booked []int32
	var waiting int
	var asOf time.Time
	if err := row.Scan(&data, &seq, &capacity, &held, &booked, &waiting, &asOf); err != nil {
		return nil, err
	}
	event, err := decodeEvent(data)
	if err != nil {
		return nil, err
	}
	if len(capacity) != len(event.Tiers) || len(held) != len(event.Tiers) || len(booked) != len(event.Tiers) {
		return nil, fmt.Errorf("event %s: counts of %d tiers for %d", event.ID, len(capacity), len(event.Tiers))
	}
	state := &evently.State{
		Event: event,
		Availability: evently.Availability{
			Event: event.ID, Seq: uint64(seq), AsOf: milliseconds(asOf), Tiers: make([]evently.TierAvailability, 0, len(capacity)),
			Waiting: waiting,
		},
	}
	for i := range capacity {
		state.Add(evently.TierAvailability{Capacity: int(capacity[i]), Held: int(held[i]), Booked: int(booked[i])})
	}
	return state, nil
}

const (
	// eventFilter takes $1 text pattern, $2 category, $3 city, $4 and $5 the bounds of the start, $6 organizer, $7 statuses.
	eventFilter = `
where e.starts_at >= $4 and e.starts_at < $5
  and ($6 = 0::int8 or e.organizer = $6)
  and (cardinality($7::int2[]) = 0 or e.status = any ($7))
  and ($2 = '' or folded(e.category) = (select folded($2)))
  and ($3 = '' or folded(e.city) = (select folded($3)))
  and ($1 = '' or folded(e.name) like (select folded($1)) or folded(e.venue) like (select folded($1))
      or folded(e.city) like (select folded($1)) or folded(e.description) like (select folded($1)))`

	// The pages are cut before their events are turned into JSON, which would else be done for all that are selected.

	// statesByStartSQL is served by events_by_start, or events_by_organizer.
	statesByStartSQL = `
select ` + stateColumns + `
from (
    select e.event_id from events e` + eventFilter + ` and (e.starts_at, e.event_id) > ($8, $9)
    order by e.starts_at, e.event_id
    limit $10
) page join events e using (event_id) join event_heads h using (event_id)
order by e.starts_at, e.event_id`

	// statesByPopularitySQL reads all selected events: an index on counts that change with every booking would cost more.
	statesByPopularitySQL = `
select ` + stateColumns + `
from (
    select e.event_id, -total.booked as popularity
    from events e join event_heads h using (event_id)
    cross join lateral (select coalesce(sum(b), 0)::int8 as booked from unnest(h.booked) b) total` + eventFilter + `
      and (-total.booked, e.event_id) > ($8, $9)
    order by -total.booked, e.event_id
    limit $10
) page join events e using (event_id) join event_heads h using (event_id)
order by page.popularity, e.event_id`
)

// States implements evently.Catalogue. The start is within [From, To).
func (c *Catalogue) States(ctx context.Context, filter evently.EventFilter, page evently.Page) (
	[]*evently.State, *evently.Cursor, error,
) {
	var query string
	var first func(order int64) any // the column form of Cursor.Order
	switch filter.Sort {
	case evently.ByStart:
		query, first = statesByStartSQL, func(order int64) any { return time.UnixMilli(order) }
	case evently.ByPopularity:
		query, first = statesByPopularitySQL, func(order int64) any { return order }
	}
	after := page.After
	if after == nil {
		after = &evently.Cursor{Order: math.MinInt64, Event: eventIDMin}
		if filter.Sort == evently.ByStart {
			after.Order = time.Time{}.UnixMilli()
		}
	}
	limit := limitOf(page)
	rows, err := c.pool.Query(ctx, query, containing(filter.Text), filter.Category, filter.City,
		bound(filter.From, pgtype.NegativeInfinity), bound(filter.To, pgtype.Infinity),
		int64(filter.Organizer), numbers(filter.Statuses), first(after.Order), int64(after.Event), limit+1)
	states, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.State, error) { return scanState(row) })
	if err != nil {
		return nil, nil, failed(err, "list events")
	}
	if len(states) <= limit {
		return states, nil, nil
	}
	states = states[:limit]
	last := states[limit-1]
	next := &evently.Cursor{Order: last.Event.StartsAt.UnixMilli(), Event: last.Event.ID}
	if filter.Sort == evently.ByPopularity {
		next.Order = -int64(last.Totals().Booked)
	}
	return states, next, nil
}

// pricedEventsSQL is served by events_by_pricing.
const pricedEventsSQL = `
select event_id from events
where pricing is not null and status = $1 and starts_at > clock_timestamp() and ($2 = 0::int8 or event_id > $2)
order by event_id
limit $3`

// PricedEvents implements evently.Catalogue.
func (c *Catalogue) PricedEvents(ctx context.Context, after evently.EventID, limit int) ([]evently.EventID, error) {
	rows, err := c.pool.Query(ctx, pricedEventsSQL, evently.EventPublished, int64(after), limit)
	events, err := collect(rows, err, func(row pgx.CollectableRow) (evently.EventID, error) {
		var id int64
		err := row.Scan(&id)
		return evently.EventID(id), err
	})
	if err != nil {
		return nil, failed(err, "list priced events")
	}
	return events, nil
}

// eventIDMin is the first id in the order of the tables, which is that of int8.
const eventIDMin = evently.EventID(1 << 63)

// limitOf keeps a page within its bounds.
func limitOf(page evently.Page) int { return min(max(page.Limit, 1), evently.PageLimitMax) }

// bound is a time as one end of a range, which is open when the time is zero.
func bound(t time.Time, open pgtype.InfinityModifier) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: open, Valid: true}
	}
	return pgtype.Timestamptz{Time: t, Valid: true}
}

// numbers is the column form of a list of statuses; never null.
func numbers[S ~uint8](statuses []S) []int16 {
	list := make([]int16, len(statuses))
	for i, status := range statuses {
		list[i] = int16(status)
	}
	return list
}

// containing is the LIKE pattern of texts that contain a text; empty for none.
func containing(text string) string {
	if text == "" {
		return ""
	}
	return "%" + likeEscapes.Replace(text) + "%"
}

var likeEscapes = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
