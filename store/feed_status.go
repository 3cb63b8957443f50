package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// ConsumerStatus is how far a consumer of the feed is.
type ConsumerStatus struct {
	Name      string
	FromNow   bool
	StartedAt time.Time
	SteppedAt time.Time     // when a node was last heard to run it; zero: no node does
	AsOf      time.Time     // all that was committed before is consumed; zero: not yet known
	Behind    uint64        // entries that are not consumed
	Lag       time.Duration // age of AsOf, or of StartedAt
	Parked    int
}

// ParkedEntry is an entry that a consumer could not consume.
type ParkedEntry struct {
	Consumer string
	Event    evently.EventID
	Seq      uint64
	Error    string
	At       time.Time
	Retry    bool // somebody asked to try again, and no node has yet
}

// ParkedListMax bounds the list of Parked.
const ParkedListMax = 100

const (
	// consumersSQL compares every head with its cursors: it is for operators, not for every second.
	consumersSQL = `
select c.name, c.from_now, c.started_at, nullif(c.stepped_at, '-infinity'), c.as_of,
    (select coalesce(sum(h.seq - coalesce(k.seq, 0)), 0)::int8 from ` + heads + `
        left join feed_cursors k on k.consumer = c.name and k.event_id = h.event_id where h.seq > coalesce(k.seq, 0)),
    (extract(epoch from clock_timestamp() - coalesce(c.as_of, c.started_at)) * 1000)::int8,
    (select count(*) from parked_entries p where p.consumer = c.name)
from consumers c
order by c.name`

	parkedSQL = `
select consumer, event_id, seq, error, at, retry from parked_entries
where ($1 = '' or consumer = $1)
order by consumer, event_id, seq
limit $2`

	retryParkedSQL = `
update parked_entries set retry = true
where consumer = $1 and ($2 = 0::int8 or event_id = $2) and ($3 = 0::int8 or seq = $3)`

	discardParkedSQL = `
delete from parked_entries where consumer = $1 and event_id = $2 and seq = $3`
)

// Consumers lists the consumers of the feed that ever ran, by name.
func Consumers(ctx context.Context, pool *pgxpool.Pool) ([]ConsumerStatus, error) {
	rows, err := pool.Query(ctx, consumersSQL)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (s ConsumerStatus, err error) {
		var steppedAt, asOf *time.Time
		var lagMillis int64
		err = row.Scan(&s.Name, &s.FromNow, &s.StartedAt, &steppedAt, &asOf, &s.Behind, &lagMillis, &s.Parked)
		s.StartedAt, s.SteppedAt, s.AsOf = milliseconds(s.StartedAt), timeOf(steppedAt), timeOf(asOf)
		s.Lag = max(time.Duration(lagMillis)*time.Millisecond, 0)
		return s, err
	})
	if err != nil {
		return nil, failed(err, "list consumers")
	}
	return list, nil
}

// Parked lists the first parked entries, ParkedListMax at most, of a consumer or, with "", of all.
func Parked(ctx context.Context, pool *pgxpool.Pool, consumer string) ([]ParkedEntry, error) {
	rows, err := pool.Query(ctx, parkedSQL, consumer, ParkedListMax)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (p ParkedEntry, err error) {
		var event int64
		err = row.Scan(&p.Consumer, &event, &p.Seq, &p.Error, &p.At, &p.Retry)
		p.Event, p.At = evently.EventID(event), milliseconds(p.At)
		return p, err
	})
	if err != nil {
		return nil, failed(err, "list parked entries")
	}
	return list, nil
}

// RetryParked has the node that runs a consumer try parked entries again, soon: those of an event unless it is zero, and of them the
// one with a seq unless that is zero. They are consumed after entries that came later. It returns how many there are.
func RetryParked(ctx context.Context, pool *pgxpool.Pool, consumer string, event evently.EventID, seq uint64) (int64, error) {
	tag, err := pool.Exec(ctx, retryParkedSQL, consumer, int64(event), int64(seq))
	if err != nil {
		return 0, failed(err, "retry parked entries")
	}
	return tag.RowsAffected(), nil
}

// DiscardParked gives up a parked entry: it never takes effect. found: there was one.
func DiscardParked(ctx context.Context, pool *pgxpool.Pool, consumer string, event evently.EventID, seq uint64) (found bool, err error) {
	tag, err := pool.Exec(ctx, discardParkedSQL, consumer, int64(event), int64(seq))
	if err != nil {
		return false, failed(err, "discard a parked entry")
	}
	return tag.RowsAffected() == 1, nil
}
