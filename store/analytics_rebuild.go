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

// Rebuilding is what RebuildAnalytics found.
type Rebuilding struct {
	Entries     uint64 // that were counted
	Sums        int    // rows that were compared
	Differences []SumDifference
	Swapped     bool // the new sums are shown
	Took        time.Duration
}

// SumDifference is a row of sums that is not as the journal has it.
type SumDifference struct {
	Event     evently.EventID // zero: of an organizer, or of everybody when Organizer is zero too
	Organizer evently.UserID
	Bucket    time.Time // zero: of all times
	Currency  string
	Shown     string // the row that was shown, as JSON; "": there was none
	Counted   string // the row that the journal gives; "": none
}

// RebuildDifferencesMax bounds Rebuilding.Differences.
const RebuildDifferencesMax = 100

const (
	// rebuildCursors is the name of the cursors of a rebuild.
	rebuildCursors = analyticsConsumer + ".rebuild"

	// rebuildStepEvents and analyticsEntriesMax bound a transaction of a rebuild.
	rebuildStepEvents = 1000
	// rebuildRest is how many entries may be left for the last transaction, during which analytics wait, unless they come faster than
	// rebuildPassesMax passes can catch up with them.
	rebuildRest      = 2 * analyticsEntriesMax
	rebuildPassesMax = 10
	// clearedSumsMax bounds the rows that one transaction deletes.
	clearedSumsMax = 10_000
)

const (
	lockRebuildSQL   = `select pg_try_advisory_lock(7251009364512078)`
	unlockRebuildSQL = `select pg_advisory_unlock(7251009364512078)`

	nextGenerationSQL = `
select coalesce((select max(generation) from analytics_sums), 0) + 1, g.generation from analytics_generation g`
	staleSumsSQL = `
delete from analytics_sums
where ctid = any (array(select ctid from analytics_sums where generation <> (select generation from analytics_generation) limit $1))`
	dropRebuildCursorsSQL = `delete from feed_cursors where consumer = '` + rebuildCursors + `'`

	// rebuildSpansSQL lists what the shown sums have counted and the new ones have not: so these never get ahead.
	rebuildSpansSQL = `
select a.event_id, coalesce(b.seq, 0), a.seq
from feed_cursors a
left join feed_cursors b on b.consumer = '` + rebuildCursors + `' and b.event_id = a.event_id
where a.consumer = '` + analyticsConsumer + `' and a.event_id > $1 and a.seq > coalesce(b.seq, 0)
order by a.event_id
limit $2`

	rebuildAdvanceSQL = `
insert into feed_cursors as c (consumer, event_id, seq)
select '` + rebuildCursors + `', s.event_id, s.upto from unnest($1::int8[], $2::int8[]) as s (event_id, upto)
on conflict (consumer, event_id) do update set seq = excluded.seq`

	// plannerSQL binds the planner to look-ups by index, or frees it: see lockStepSQL.
	plannerSQL = `
select set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', $1::bool::text, true),
    set_config('enable_hashjoin', $1::bool::text, true), set_config('enable_mergejoin', $1::bool::text, true)`

	// holdAnalyticsSQL has the consumer wait: every step of it locks this row.
	holdAnalyticsSQL = `select name from consumers where name = '` + analyticsConsumer + `' for no key update`

	// countedSums are the rows that are not of nothing but zeros. Those come of a capacity that was there and is gone, if a step ended
	// in between.
	countedSums = `analytics_sums where (bookings, cancellations, tickets_booked, tickets_cancelled, gross_minor, cancelled_minor, holds,
        holds_expired, holds_released, waitlist_joined, waitlist_left, waitlist_served, capacity) <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)`

	// differingSumsSQL compares generations $1, shown, and $2.
	differingSumsSQL = `
select coalesce(a.scope, b.scope), coalesce(a.id, b.id), nullif(coalesce(a.bucket, b.bucket), '-infinity'), coalesce(a.currency, b.currency),
    (to_jsonb(a) - '{generation,scope,id,bucket,currency}'::text[])::text, (to_jsonb(b) - '{generation,scope,id,bucket,currency}'::text[])::text
from (select * from ` + countedSums + ` and generation = $1) a
full join (select * from ` + countedSums + ` and generation = $2) b using (scope, id, bucket, currency)
where row(a.bookings, a.cancellations, a.tickets_booked, a.tickets_cancelled, a.gross_minor, a.cancelled_minor, a.holds, a.holds_expired,
        a.holds_released, a.waitlist_joined, a.waitlist_left, a.waitlist_served, a.capacity)
    is distinct from row(b.bookings, b.cancellations, b.tickets_booked, b.tickets_cancelled, b.gross_minor, b.cancelled_minor, b.holds,
        b.holds_expired, b.holds_released, b.waitlist_joined, b.waitlist_left, b.waitlist_served, b.capacity)
order by 1, 2, 3, 4
limit $3`

	countSumsSQL       = `select count(*) from analytics_sums where generation = $1`
	showGenerationSQL  = `update analytics_generation set generation = $1`
	forgetParkedSumSQL = `delete from parked_entries where consumer = '` + analyticsConsumer + `'`
)

// errRebuiltElsewhere: somebody else holds the lock.
var errRebuiltElsewhere = errors.New("analytics are being rebuilt by somebody else")

// RebuildAnalytics sums up the journal again from the first entry on and compares the outcome with the sums that are shown, both after
// the same entries. Unless dryRun it then shows the new ones, all at once.
//
// It may run while nodes serve: each transaction is bounded, except that the consumer of analytics waits for the last one, which counts
// the last few thousand entries and compares. Entries that were parked are counted, and parked no more.
// An error changes nothing that is shown.
func RebuildAnalytics(ctx context.Context, pool *pgxpool.Pool, dryRun bool) (*Rebuilding, error) {
	began := time.Now()
	rebuilding := new(Rebuilding)
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, failed(err, "rebuild analytics")
	}
	defer conn.Release()
	if err := rebuild(ctx, conn.Conn(), dryRun, rebuilding); err != nil {
		return nil, failed(err, "rebuild analytics")
	}
	rebuilding.Took = time.Since(began)
	return rebuilding, nil
}

func rebuild(ctx context.Context, conn *pgx.Conn, dryRun bool, r *Rebuilding) (err error) {
	var locked bool
	if err := conn.QueryRow(ctx, lockRebuildSQL).Scan(&locked); err != nil {
		return err
	}
	if !locked {
		return errRebuiltElsewhere
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepMax)
		defer cancel()
		_, unlocked := conn.Exec(ctx, unlockRebuildSQL)
		if unlocked != nil && err == nil {
			err = unlocked
		}
	}()
	if err := clearRebuild(ctx, conn); err != nil { // of one that was killed
		return err
	}
	if _, err := conn.Exec(ctx, enrollSQL, analyticsConsumer, false); err != nil { // else there is no row to hold
		return err
	}
	var shown, next int32
	if err := conn.QueryRow(ctx, nextGenerationSQL).Scan(&next, &shown); err != nil {
		return err
	}
	next = max(next, shown+1)
	for range rebuildPassesMax {
		counted, err := countAgain(ctx, next, func(step func(tx pgx.Tx) error) error { return pgx.BeginFunc(ctx, conn, step) })
		if err != nil {
			return err
		}
		r.Entries += counted
		if counted <= rebuildRest {
			break
		}
	}
	if err := finishRebuild(ctx, conn, shown, next, dryRun, r); err != nil {
		return err
	}
	return clearRebuild(ctx, conn)
}

// clearRebuild removes sums that are not shown.
func clearRebuild(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, dropRebuildCursorsSQL); err != nil {
		return err
	}
	for {
		tag, err := conn.Exec(ctx, staleSumsSQL, clearedSumsMax)
		if err != nil || tag.RowsAffected() < clearedSumsMax {
			return err
		}
	}
}

// countAgain counts, event by event, what the shown sums have counted and the new ones have not, in steps that begin runs in
// transactions. It returns the number of entries.
func countAgain(ctx context.Context, generation int32, begin func(step func(tx pgx.Tx) error) error) (counted uint64, err error) {
	for after, done := eventIDMin, false; !done; {
		err := begin(func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, rebuildSpansSQL, int64(after), rebuildStepEvents)
			spans, err := collect(rows, err, scanSpan)
			if done = len(spans) == 0; err != nil || done {
				return err
			}
			taken, rest := take(spans, analyticsEntriesMax)
			if _, err := tx.Exec(ctx, plannerSQL, false); err != nil {
				return err
			}
			if err := sumUpAs(ctx, tx, generation, taken); err != nil {
				return err
			}
			events, _, upto := spanColumns(taken)
			if _, err = tx.Exec(ctx, rebuildAdvanceSQL, events, upto); err != nil {
				return err
			}
			counted += entriesOf(taken)
			if len(rest) == 0 {
				after = spans[len(spans)-1].Event
			}
			return nil
		})
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

// finishRebuild counts the rest, compares, and shows the new sums.
func finishRebuild(ctx context.Context, conn *pgx.Conn, shown, next int32, dryRun bool, r *Rebuilding) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, holdAnalyticsSQL); err != nil {
			return err
		}
		counted, err := countAgain(ctx, next, func(step func(tx pgx.Tx) error) error { return step(tx) })
		if err != nil {
			return err
		}
		r.Entries += counted
		if _, err := tx.Exec(ctx, plannerSQL, true); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, differingSumsSQL, shown, next, RebuildDifferencesMax)
		if r.Differences, err = collect(rows, err, scanSumDifference); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, countSumsSQL, next).Scan(&r.Sums); err != nil || dryRun {
			return err
		}
		if _, err := tx.Exec(ctx, showGenerationSQL, next); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, forgetParkedSumSQL)
		r.Swapped = err == nil
		return err
	})
}

func scanSumDifference(row pgx.CollectableRow) (d SumDifference, err error) {
	var scope int
	var id int64
	var bucket *time.Time
	var shown, counted *string
	err = row.Scan(&scope, &id, &bucket, &d.Currency, &shown, &counted)
	switch scope {
	case eventScope:
		d.Event = evently.EventID(id)
	case organizerScope:
		d.Organizer = evently.UserID(id)
	}
	d.Bucket = timeOf(bucket)
	if shown != nil {
		d.Shown = *shown
	}
	if counted != nil {
		d.Counted = *counted
	}
	return d, err
}

func (d SumDifference) String() string {
	subject := "everybody"
	switch {
	case d.Event != 0:
		subject = "event " + d.Event.String()
	case d.Organizer != 0:
		subject = "organizer " + d.Organizer.String()
	}
	when := "all times"
	if !d.Bucket.IsZero() {
		when = d.Bucket.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s, %s, %s: shown %s, the journal gives %s", subject, when, d.Currency, orNothing(d.Shown), orNothing(d.Counted))
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}
