package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently"
)

// errNoRoom is what a consumer returns that has queued enough for now: nothing is consumed, and it is asked again after a poll.
var errNoRoom = errors.New("the consumer has no room")

// consumeRound consumes all that a look has found, step by step, as long as the consumer has room.
func (r *reader) consumeRound(ctx context.Context, round *round) error {
	for len(round.spans) > 0 {
		spans, rest := take(round.spans, r.limit)
		entries := entriesOf(spans)
		err := r.step(ctx, spans, round.left-entries)
		if errors.Is(err, errNoRoom) {
			round.complete, round.waits = false, true
			return nil
		}
		if err != nil {
			// Fewer the next time, whatever it was: perhaps there is not the time for so many.
			r.limit = max(int(entries/2), 1)
		}
		switch {
		case err == nil:
			r.feed.config.Metrics.entries.WithLabelValues(r.Name).Add(float64(entries))
			r.limit = min(2*r.limit, r.EntriesMax)
		case errors.Is(err, errOvertaken), ctx.Err() != nil, passing(err):
			return err
		case entries > 1:
			r.feed.config.Metrics.failures.WithLabelValues(r.Name, failedPermanent).Inc()
			continue // with the first half
		default:
			r.feed.config.Metrics.failures.WithLabelValues(r.Name, failedPermanent).Inc()
			if err := r.park(ctx, spans[0], round.left-entries, err); err != nil {
				return err
			}
		}
		round.spans, round.left = rest, round.left-entries
	}
	return nil
}

// passing reports whether another try can get over an error, be it after somebody has put the schema or the rights of the role in order:
// no entry is at fault when Postgres does not accept a statement (class 42).
func passing(err error) bool {
	var pg *pgconn.PgError
	return errors.Is(err, evently.ErrUnavailable) || classify(err) != unexpected || errors.As(err, &pg) && strings.HasPrefix(pg.Code, "42")
}

const (
	// lockStepSQL locks the row of the runner's consumer, without waiting. The transaction then gives up rather than hold up
	// others, does not wait for the disk, and looks rows up by index: the planner cannot know how few a step touches,
	// and statistics are old just after a table has grown.
	lockStepSQL = `
select c.name
from consumers c, set_config('synchronous_commit', 'off', true) async, set_config('lock_timeout', '2s', true) waits,
    set_config('statement_timeout', '20s', true) works, set_config('enable_seqscan', 'off', true) scans,
    set_config('enable_hashjoin', 'off', true) hashes, set_config('enable_mergejoin', 'off', true) merges
where c.name = $1 and c.runner = $2
for no key update of c skip locked`

	// advanceSQL moves the cursors of spans $3 to $5, all of them from where the spans begin, or returns no row.
	advanceSQL = `
with span as (
    select * from unnest($3::int8[], $4::int8[], $5::int8[]) as s (event_id, after, upto)
), begun as (
    insert into feed_cursors (consumer, event_id, seq) select $1, event_id, upto from span where after = 0
    on conflict do nothing
    returning 1
), moved as (
    update feed_cursors c set seq = s.upto
    from span s
    where s.after > 0 and c.consumer = $1 and c.event_id = s.event_id and c.seq = s.after
    returning 1
)
update consumers set stepped_at = clock_timestamp(), behind = $6
where name = $1 and runner = $2 and (select count(*) from begun) + (select count(*) from moved) = cardinality($3::int8[])`
)

// transact runs one step's transaction: act, in which this node is the runner.
func (r *reader) transact(ctx context.Context, act func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepMax)
	defer cancel()
	began := time.Now()
	err := pgx.BeginFunc(ctx, r.feed.pool, func(tx pgx.Tx) error {
		var locked string
		switch err := tx.QueryRow(ctx, lockStepSQL, r.Name, r.feed.runner).Scan(&locked); {
		case errors.Is(err, pgx.ErrNoRows):
			return errOvertaken
		case err != nil:
			return err
		}
		return act(ctx, tx)
	})
	r.feed.config.Metrics.steps.WithLabelValues(r.Name).Observe(time.Since(began).Seconds())
	return err
}

// step consumes spans. left is what it leaves of the round.
func (r *reader) step(ctx context.Context, spans []Span, left uint64) error {
	return r.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := r.consume(ctx, tx, spans); err != nil {
			return err
		}
		return r.advance(ctx, tx, spans, left)
	})
}

// consume calls the consumer. A panic of it is an error: it must not end the node, and every other node after it.
func (r *reader) consume(ctx context.Context, tx pgx.Tx, spans []Span) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return r.Consume(ctx, tx, spans)
}

func (r *reader) advance(ctx context.Context, tx pgx.Tx, spans []Span, left uint64) error {
	events, after, upto := spanColumns(spans)
	tag, err := tx.Exec(ctx, advanceSQL, r.Name, r.feed.runner, events, after, upto, left)
	if err == nil && tag.RowsAffected() == 0 {
		err = errOvertaken
	}
	return err
}

// errParkedMax: so many entries fail that the fault must be the consumer's.
var errParkedMax = fmt.Errorf("%d entries are parked: the consumer stops rather than pass over more", parkedMax)

const (
	countParkedSQL = `select count(*) from parked_entries where consumer = $1`

	parkSQL = `
insert into parked_entries (consumer, event_id, seq, error, at) values ($1, $2, $3, $4, clock_timestamp())
on conflict (consumer, event_id, seq) do update set error = excluded.error, at = excluded.at`
)

// park passes over an entry that cannot be consumed.
func (r *reader) park(ctx context.Context, entry Span, left uint64, cause error) error {
	err := r.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var parked int
		if err := tx.QueryRow(ctx, countParkedSQL, r.Name).Scan(&parked); err != nil {
			return err
		}
		if parked >= parkedMax {
			return fmt.Errorf("%w: %w", errParkedMax, cause)
		}
		if _, err := tx.Exec(ctx, parkSQL, r.Name, int64(entry.Event), int64(entry.Upto), errorText(cause)); err != nil {
			return err
		}
		return r.advance(ctx, tx, []Span{entry}, left)
	})
	if err != nil {
		return failed(err, "park event %s entry %d", entry.Event, entry.Upto)
	}
	r.logger.ErrorContext(ctx, "an entry of the journal is parked", "event", entry.Event, "seq", entry.Upto, "error", cause)
	return nil
}

// errorTextMax bounds the text of an error that is kept, in bytes.
const errorTextMax = 4000

const (
	retryNextSQL = `
select event_id, seq from parked_entries where consumer = $1 and retry order by event_id, seq limit 1 for update`
	reparkSQL = `
update parked_entries set error = $4, at = clock_timestamp(), retry = false where consumer = $1 and event_id = $2 and seq = $3`
	unparkSQL = `delete from parked_entries where consumer = $1 and event_id = $2 and seq = $3`
)

// retryParked tries the next parked entry that somebody wants to be tried again. The cursor has passed it and stays.
func (r *reader) retryParked(ctx context.Context) error {
	var entry Span
	err := r.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var event int64
		switch err := tx.QueryRow(ctx, retryNextSQL, r.Name).Scan(&event, &entry.Upto); {
		case errors.Is(err, pgx.ErrNoRows):
			return nil // discarded meanwhile
		case err != nil:
			return err
		}
		entry.Event, entry.After = evently.EventID(event), entry.Upto-1
		if err := r.consume(ctx, tx, []Span{entry}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, unparkSQL, r.Name, event, int64(entry.Upto))
		return err
	})
	if err == nil || entry.Event == 0 || errors.Is(err, errOvertaken) || errors.Is(err, errNoRoom) || passing(err) {
		return err
	}
	cause := err
	r.feed.config.Metrics.failures.WithLabelValues(r.Name, failedPermanent).Inc()
	err = r.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, reparkSQL, r.Name, int64(entry.Event), int64(entry.Upto), errorText(cause))
		return err
	})
	if err != nil {
		return failed(err, "park event %s entry %d again", entry.Event, entry.Upto)
	}
	r.logger.ErrorContext(ctx, "a parked entry of the journal fails again", "event", entry.Event, "seq", entry.Upto, "error", cause)
	return nil
}

// errorText is an error as a column can hold it.
func errorText(err error) string {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\x00", "?")
	if len(text) > errorTextMax {
		text = strings.ToValidUTF8(text[:errorTextMax], "")
	}
	return text
}
