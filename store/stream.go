package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Streams reads states of events from Postgres.
type Streams struct{ pool *pgxpool.Pool }

var _ evently.Streams = (*Streams)(nil)

// NewStreams returns the streams of a database.
func NewStreams(pool *pgxpool.Pool) *Streams { return &Streams{pool} }

// newerStatesSQL takes the events $1 and the last entries $2 that are known of them. Indexes: the primary keys.
const newerStatesSQL = `
select ` + stateColumns + `
from unnest($1::int8[], $2::int8[]) as m (event_id, known)
join event_heads h on h.event_id = m.event_id and h.seq > m.known
join events e on e.event_id = h.event_id`

// Newer implements evently.Streams.
func (s *Streams) Newer(ctx context.Context, marks []evently.Mark) ([]*evently.State, error) {
	events, known := make([]int64, len(marks)), make([]int64, len(marks))
	for i, mark := range marks {
		events[i], known[i] = int64(mark.Event), int64(mark.Seq)
	}
	rows, err := s.pool.Query(ctx, newerStatesSQL, events, known)
	states, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.State, error) { return scanState(row) })
	if err != nil {
		return nil, failed(err, "look for changes of %d events", len(marks))
	}
	return states, nil
}

// snapshot is a transaction whose statements all see the same moment.
var snapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// Recent implements evently.Streams. It goes back from the present state, for of that alone the counts are stored.
func (s *Streams) Recent(ctx context.Context, id evently.EventID, limit int) ([]*evently.State, error) {
	var states []*evently.State
	err := pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		now, err := scanState(tx.QueryRow(ctx, stateSQL, int64(id)))
		if err != nil {
			return err
		}
		var entries []*FeedEntry
		span := Span{Event: id, After: now.Seq - min(now.Seq, uint64(max(limit, 1))), Upto: now.Seq}
		err = ReadSpans(ctx, tx, []Span{span}, func(e *FeedEntry) error {
			entries = append(entries, e)
			return nil
		})
		if err != nil {
			return err
		}
		states, err = statesBack(ctx, tx, now, entries)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, evently.ErrEventNotFound
	case err != nil:
		return nil, failed(err, "read the last states of event %s", id)
	}
	return states, nil
}

// statesBack returns the states after each of the entries, the last of which led to now.
func statesBack(ctx context.Context, tx pgx.Tx, now *evently.State, entries []*FeedEntry) ([]*evently.State, error) {
	states := make([]*evently.State, len(entries))
	state := now
	for i := len(entries) - 1; ; i-- {
		states[i] = state
		if i == 0 {
			return states, nil
		}
		event := state.Event
		if entries[i].Event != nil {
			var err error
			if event, err = eventBefore(ctx, tx, entries[:i], entries[i]); err != nil {
				return nil, err
			}
		}
		var err error
		if state, err = stateBefore(state, event, entries[i]); err != nil {
			return nil, err
		}
		state.AsOf = entries[i-1].At
	}
}

// eventBefore is the event as it was before an entry that changed it. earlier are some of the entries before that one.
func eventBefore(ctx context.Context, tx pgx.Tx, earlier []*FeedEntry, entry *FeedEntry) (*evently.Event, error) {
	for i := len(earlier) - 1; i >= 0; i-- {
		if earlier[i].Event != nil {
			return earlier[i].Event, nil
		}
	}
	return readEventBefore(ctx, tx, entry.EventID, entry.Seq)
}

// eventBeforeSQL is served by journal_of_details.
const eventBeforeSQL = `
select data from journal where event_id = $1 and seq < $2 and kind in (1, 2, 3, 4, 14, 15) order by seq desc limit 1`

// readEventBefore reads the event as it was before an entry.
func readEventBefore(ctx context.Context, tx pgx.Tx, id evently.EventID, seq uint64) (*evently.Event, error) {
	var data []byte
	if err := tx.QueryRow(ctx, eventBeforeSQL, int64(id), int64(seq)).Scan(&data); err != nil {
		return nil, failed(err, "read event %s before entry %d", id, seq)
	}
	event, err := decodeEvent(data)
	if err != nil {
		return nil, fmt.Errorf("event %s before entry %d: %w", id, seq, err)
	}
	return event, nil
}

// stateBefore takes back what an entry did to a state. event is the event before the entry.
func stateBefore(after *evently.State, event *evently.Event, entry *FeedEntry) (*evently.State, error) {
	before := &evently.State{Event: event, Availability: evently.Availability{Event: event.ID, Seq: after.Seq - 1, Waiting: after.Waiting}}
	tiers := make([]evently.TierAvailability, len(event.Tiers))
	for i := range tiers {
		if i < len(after.Tiers) {
			tiers[i] = after.Tiers[i]
		}
		tiers[i].Capacity = event.Tiers[i].Capacity
	}
	held, booked := 0, 0 // what each seat of the entry was counted as before, less what it is now
	switch entry.Kind {  //nolint:exhaustive // the kinds that move seats or waiters
	case evently.HeldEntry:
		held = -1
		if entry.Waiter {
			before.Waiting++
		}
	case evently.ConfirmedEntry:
		held, booked = 1, -1
	case evently.CancelledEntry:
		held = 1
		if entry.WasConfirmed {
			held, booked = 0, 1
		}
	case evently.ExpiredEntry:
		held = 1
	case evently.WaitlistedEntry:
		before.Waiting--
	case evently.WaiterLeftEntry, evently.WaiterClosedEntry:
		before.Waiting++
	}
	if held != 0 || booked != 0 {
		for item := range entry.Items.All() {
			if item.Tier >= len(tiers) {
				return nil, fmt.Errorf("event %s entry %d has seats of tier %s of %d", event.ID, entry.Seq, evently.TierID(item.Tier), len(tiers))
			}
			tiers[item.Tier].Held += held * item.Quantity
			tiers[item.Tier].Booked += booked * item.Quantity
		}
	}
	for _, tier := range tiers {
		before.Add(tier)
	}
	return before, nil
}
