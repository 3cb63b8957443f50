package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// round is what one look has found: everything committed before it, or as much as its bounds allow.
type round struct {
	asOf     time.Time // of the database's clock, before the look
	horizon  string    // of the transactions that ran then, the oldest
	spans    []Span
	left     uint64 // entries found, and not consumed yet
	complete bool   // the bounds left nothing out
	waits    bool   // the consumer had no room for all of it
	took     time.Duration
}

const (
	// beginFindSQL reads the clock and the oldest running transaction before the look, so that the look sees at least what was
	// committed then. Look-ups by index suit the usual case, of which the planner cannot know how few events pass the filter.
	beginFindSQL = `
select clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())::text
from set_config('enable_hashjoin', $1::bool::text, true) hashes, set_config('enable_mergejoin', $1::bool::text, true) merges`

	heads = `(select event_id, seq, xmin from event_heads union all select event_id, seq, xmin from deleted_heads) h`

	// findSQL compares with its cursor every head that a transaction has written since the last complete round; with $2 all.
	// It begins after event $3, in a ring. Index: the primary key of feed_cursors.
	findSQL = `
select h.event_id, coalesce(c.seq, 0), h.seq
from ` + heads + `
left join feed_cursors c on c.consumer = $1 and c.event_id = h.event_id
where ($2 or age(h.xmin) <= coalesce((select age(horizon::xid) from consumers where name = $1), 2147483647))
    and h.seq > coalesce(c.seq, 0)
order by h.event_id <= $3, h.event_id
limit $4`
)

// find looks for new entries.
func (r *reader) find(ctx context.Context) (*round, error) {
	ctx, cancel := context.WithTimeout(ctx, stepMax)
	defer cancel()
	began := time.Now()
	full := began.Sub(r.fullAt) >= fullPeriod
	found := &round{complete: true}
	var batch pgx.Batch // one round trip, and one transaction
	batch.Queue(beginFindSQL, full).QueryRow(func(row pgx.Row) error { return row.Scan(&found.asOf, &found.horizon) })
	batch.Queue(findSQL, r.Name, full, int64(r.last), roundEventsMax+1).Query(func(rows pgx.Rows) (err error) {
		found.spans, err = pgx.CollectRows(rows, scanSpan)
		return err
	})
	if err := r.feed.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, failed(err, "look for new entries for consumer %s", r.Name)
	}
	if len(found.spans) > roundEventsMax {
		found.spans, found.complete = found.spans[:roundEventsMax], false
		r.last = found.spans[roundEventsMax-1].Event
	}
	for i := range found.spans {
		s := &found.spans[i]
		if most := uint64(roundSteps * r.EntriesMax); s.entries() > most {
			s.Upto, found.complete = s.After+most, false
		}
	}
	found.left = entriesOf(found.spans)
	found.took = time.Since(began)
	r.feed.config.Metrics.finds.WithLabelValues(r.Name).Observe(found.took.Seconds())
	if full {
		r.fullAt = began
	}
	return found, nil
}

func scanSpan(row pgx.CollectableRow) (s Span, err error) {
	var event int64
	err = row.Scan(&event, &s.After, &s.Upto)
	s.Event = evently.EventID(event)
	return s, err
}

// take divides spans into at most limit entries, as evenly from the events as can be, and the rest. It leaves spans as it is.
func take(spans []Span, limit int) (taken, rest []Span) {
	n := min(len(spans), limit)
	byLength := slices.SortedFunc(slices.Values(spans[:n]), func(a, b Span) int { return cmp.Compare(a.entries(), b.entries()) })
	// Short ones are taken whole, and what they leave of their shares goes to the long ones, which get a share each.
	left, share, odd := uint64(limit), uint64(0), uint64(0)
	for i, s := range byLength {
		events := uint64(n - i)
		if share, odd = left/events, left%events; s.entries() > share {
			break
		}
		left -= s.entries()
	}
	rest = slices.Clone(spans[n:])
	for _, s := range spans[:n] {
		upto := s.After + min(s.entries(), share)
		if upto < s.Upto && odd > 0 {
			upto, odd = upto+1, odd-1
		}
		taken = append(taken, Span{s.Event, s.After, upto})
		if upto < s.Upto {
			rest = append(rest, Span{s.Event, upto, s.Upto})
		}
	}
	slices.SortFunc(taken, func(a, b Span) int { return cmp.Compare(int64(a.Event), int64(b.Event)) })
	return taken, rest
}

func entriesOf(spans []Span) (n uint64) {
	for _, s := range spans {
		n += s.entries()
	}
	return n
}
