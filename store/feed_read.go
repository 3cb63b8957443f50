package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// FeedEntry is an entry as consumers see it.
//
// User and Items are set in every entry of a reservation or a waiter, also where the journal leaves them to the entry
// that began it.
type FeedEntry struct {
	evently.Entry
	EventID      evently.EventID
	Epoch        uint64
	WasConfirmed bool // CancelledEntry: of a booking, not of a hold
}

// readSpansSQL reads the entries of spans $1 to $3 in their order. Indexes: the primary keys. With offset 0 look-ups stay apart: the
// planner expects far more entries than there are, and would read whole tables for them.
const readSpansSQL = `
select j.event_id, j.seq, j.epoch, j.kind, j.at, j.who, j.request_id, coalesce(j.token, 0),
    coalesce(j.user_id, r.user_id, w.user_id, 0), coalesce(j.tier, r.tier, w.tier, 0), coalesce(j.quantity, r.quantity, w.quantity, 0),
    coalesce(j.unit_price, r.unit_price, 0), coalesce(j.data, r.more, w.more), j.expires_at,
    coalesce(j.on_release, 0), coalesce(j.position, 0), coalesce(j.priority, 0), coalesce(j.waiter, false),
    coalesce(j.kind = 7 and r.confirmed_seq < j.seq, false)
from unnest($1::int8[], $2::int8[], $3::int8[]) with ordinality as s (event_id, after, upto, number)
cross join lateral (
    select * from journal j where j.event_id = s.event_id and j.seq > s.after and j.seq <= s.upto offset 0
) j
left join lateral (
    select user_id, tier, quantity, unit_price, more, confirmed_seq from reservations r
    where j.kind in (6, 7, 8) and r.event_id = j.event_id and r.token = j.token offset 0
) r on true
left join lateral (
    select user_id, tier, quantity, more from waitlist w
    where j.kind in (11, 12, 13) and w.event_id = j.event_id and w.token = j.token offset 0
) w on true
order by s.number, j.seq`

// ReadSpans calls each for the entries of spans, one span after another. The entry is valid during the call, in which tx may be
// used: all entries are read before, some 500 bytes each. An error of each ends it. An entry that is missing, or that
// cannot be read, is an error too.
func ReadSpans(ctx context.Context, tx pgx.Tx, spans []Span, each func(*FeedEntry) error) error {
	events, after, upto := spanColumns(spans)
	rows, err := tx.Query(ctx, readSpansSQL, events, after, upto)
	entries, err := collect(rows, err, scanFeedEntry)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	next := 0
	for _, span := range spans {
		for seq := span.After + 1; seq <= span.Upto; seq++ {
			if next == len(entries) || entries[next].EventID != span.Event || entries[next].Seq != seq {
				return fmt.Errorf("read the journal: event %s has no entry %d", span.Event, seq)
			}
			if err := each(entries[next]); err != nil {
				return err
			}
			next++
		}
	}
	return nil
}

// spanColumns returns spans as the parameters of a query.
func spanColumns(spans []Span) (events, after, upto []int64) {
	events, after, upto = make([]int64, len(spans)), make([]int64, len(spans)), make([]int64, len(spans))
	for i, span := range spans {
		events[i], after[i], upto[i] = int64(span.Event), int64(span.After), int64(span.Upto)
	}
	return events, after, upto
}

func scanFeedEntry(row pgx.CollectableRow) (*FeedEntry, error) {
	e := new(FeedEntry)
	var event, who, token, user int64
	var first evently.Item
	var data []byte
	var expiresAt *time.Time
	if err := row.Scan(&event, &e.Seq, &e.Epoch, &e.Kind, &e.At, &who, &e.RequestID, &token, &user, &first.Tier, &first.Quantity,
		&first.UnitPriceMinor, &data, &expiresAt, &e.OnRelease, &e.Position, &e.Priority, &e.Waiter, &e.WasConfirmed); err != nil {
		return nil, err
	}
	e.EventID, e.Who, e.Token, e.User = evently.EventID(event), evently.UserID(who), evently.Token(token), evently.UserID(user)
	e.At, e.ExpiresAt = milliseconds(e.At), timeOf(expiresAt)
	var err error
	switch {
	case token != 0:
		e.Items, err = decodeItems(first, data)
	case data != nil:
		e.Event, err = decodeEvent(data)
	}
	if err != nil {
		return nil, fmt.Errorf("event %s entry %d: %w", e.EventID, e.Seq, err)
	}
	return e, nil
}
