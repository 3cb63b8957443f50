package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Waitlists reads waiters from Postgres.
type Waitlists struct{ pool *pgxpool.Pool }

var _ evently.Waitlists = (*Waitlists)(nil)

// NewWaitlists returns the waitlists of a database.
func NewWaitlists(pool *pgxpool.Pool) *Waitlists { return &Waitlists{pool} }

// The parts of a statement that reads waiters. positionOfEach counts those ahead in the index waitlist_in_order, which has all
// that the count looks at.
const (
	waiterColumns = `w.event_id, w.token, w.user_id, w.status, w.tier, w.quantity, w.more, w.on_release, w.priority, w.rank, w.position,
    w.joined_at, w.ended_at, w.joined_seq, w.seq, coalesce(r.status, 0), r.expires_at, `
	positionOfEach = `case w.status when 0 then (
        select 1 + count(*) from waitlist a
        where a.event_id = w.event_id and a.status = 0 and (a.rank, a.joined_seq) < (w.rank, w.joined_seq)
    ) else 0 end`
	servedBy = `left join reservations r on w.status = 1 and r.event_id = w.event_id and r.token = w.token`
)

const (
	waiterSQL = `
select ` + waiterColumns + positionOfEach + ` from waitlist w ` + servedBy + ` where w.event_id = $1 and w.token = $2`

	// waiterOfSQL is served by waitlist_by_user. A user who waits has joined later than all the other times.
	waiterOfSQL = `
select ` + waiterColumns + positionOfEach + `
from (
    select * from waitlist where event_id = $1 and user_id = $2 order by joined_seq desc limit 1
) w ` + servedBy
)

// Waiter implements evently.Waitlists.
func (l *Waitlists) Waiter(ctx context.Context, id evently.WaiterID) (*evently.WaiterState, error) {
	row, err := scanWaiterState(l.pool.QueryRow(ctx, waiterSQL, int64(id.Event), int64(id.Token)))
	return found(&row.WaiterState, err, evently.ErrWaiterNotFound, "read waiter %s", id)
}

// WaiterOf implements evently.Waitlists.
func (l *Waitlists) WaiterOf(ctx context.Context, event evently.EventID, user evently.UserID) (*evently.WaiterState, error) {
	row, err := scanWaiterState(l.pool.QueryRow(ctx, waiterOfSQL, int64(event), int64(user)))
	return found(&row.WaiterState, err, evently.ErrWaiterNotFound, "read the waiter of event %s and user %s", event, user)
}

type listedWaiter struct {
	evently.WaiterState
	rank int
}

func scanWaiterState(row pgx.Row) (w listedWaiter, err error) {
	var event, token, user int64
	var first evently.Item
	var more []byte
	var endedAt, expiresAt *time.Time
	err = row.Scan(&event, &token, &user, &w.Status, &first.Tier, &first.Quantity, &more, &w.OnRelease, &w.Priority, &w.rank,
		&w.Waiter.Position, &w.JoinedAt, &endedAt, &w.JoinedSeq, &w.Seq, &w.Reservation, &expiresAt, &w.Position)
	if err != nil {
		return w, err
	}
	w.ID = evently.WaiterID{Event: evently.EventID(event), Token: evently.Token(token)}
	w.User, w.JoinedAt, w.EndedAt, w.ExpiresAt = evently.UserID(user), milliseconds(w.JoinedAt), timeOf(endedAt), timeOf(expiresAt)
	if w.Items, err = decodeItems(first, more); err != nil {
		return w, fmt.Errorf("waiter %s: %w", w.ID, err)
	}
	return w, nil
}

const (
	// waitersOfEventSQL is served by waitlist_in_order. A page of those who wait is a run of them, so that only those ahead of all
	// of it are counted.
	waitersOfEventSQL = `
select ` + waiterColumns + `case w.status when 0 then row_number() over (order by w.status, w.rank, w.joined_seq) + (
        select count(*) from waitlist
        where event_id = $1 and status = 0 and $3 = 0::int2 and (rank, joined_seq) <= ($4, $5)
    ) else 0 end
from (
    select * from waitlist
    where event_id = $1 and status <= $2 and (status, rank, joined_seq) > ($3, $4, $5)
    order by status, rank, joined_seq
    limit $6
) w ` + servedBy + `
order by w.status, w.rank, w.joined_seq`

	// waitersOfUserSQL is served by waitlist_by_user.
	waitersOfUserSQL = `
select ` + waiterColumns + positionOfEach + `
from (
    select * from waitlist
    where user_id = $1 and (joined_at, event_id, token) < ($2, $3, $4) and ($5 = 0::int8 or event_id = $5) and status <= $6
    order by joined_at desc, event_id desc, token desc
    limit $7
) w ` + servedBy + `
order by w.joined_at desc, w.event_id desc, w.token desc`
)

// Waiters implements evently.Waitlists. A filter that names neither a user nor an event is an error.
//
// Those of an event stand in the order of status, rank and joining, which a cursor has in Order (the status above 32 bits of
// rank) and Token.
func (l *Waitlists) Waiters(ctx context.Context, filter evently.WaiterFilter, page evently.Page) (
	[]*evently.WaiterState, *evently.Cursor, error,
) {
	limit := limitOf(page)
	last := evently.Closed
	if filter.OnlyWaiting {
		last = evently.Waiting
	}
	var rows pgx.Rows
	var err error
	switch {
	case filter.User != 0:
		before, event, token := beforeCursor(page.After)
		rows, err = l.pool.Query(ctx, waitersOfUserSQL, int64(filter.User), before, event, token, int64(filter.Event), last, limit+1)
	case filter.Event != 0:
		status, rank, joined := int16(0), int32(-evently.PriorityMax), int64(0)
		if page.After != nil {
			status, rank, joined = int16(page.After.Order>>32), int32(page.After.Order), int64(page.After.Token)
		}
		rows, err = l.pool.Query(ctx, waitersOfEventSQL, int64(filter.Event), last, status, rank, joined, limit+1)
	default:
		return nil, nil, errors.New("list waiters: the filter names neither a user nor an event")
	}
	listed, err := collect(rows, err, func(row pgx.CollectableRow) (listedWaiter, error) { return scanWaiterState(row) })
	if err != nil {
		return nil, nil, failed(err, "list waiters")
	}
	list := make([]*evently.WaiterState, min(len(listed), limit))
	for i := range list {
		list[i] = &listed[i].WaiterState
	}
	if len(listed) <= limit {
		return list, nil, nil
	}
	end := &listed[limit-1]
	if filter.User != 0 {
		return list, &evently.Cursor{Order: end.JoinedAt.UnixMilli(), Event: end.ID.Event, Token: end.ID.Token}, nil
	}
	order := int64(end.Status)<<32 | int64(uint32(int32(end.rank)))
	return list, &evently.Cursor{Order: order, Event: end.ID.Event, Token: evently.Token(end.JoinedSeq)}, nil
}
