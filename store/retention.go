package store

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

const (
	// retentionPeriod leaves several tries before a ledger forgets a key that storage still holds: see evently.KeyRetention.
	retentionPeriod = 20 * time.Minute
	// sessionRetention is how long a session is kept after it expired.
	sessionRetention = 7 * 24 * time.Hour
	// codeRetention is how long a one-time code is kept after it expired: the times of codes count for an hour.
	codeRetention = 24 * time.Hour

	// Bounds of one transaction.
	sweptEventsMax  = 16
	sweptEntriesMax = 1024 // of each event
	sweptRowsMax    = 5000 // of other tables
)

// Retention removes what is no longer needed: idempotency keys, answers, sessions, codes, failed sign-ins, mails, the security log
// and the log of webhooks' deliveries. Every node may run one; they take turns by an advisory lock.
//
// An index that finds ended reservations would have to hold a column that changes when a reservation ends, so that no
// update of that kind could stay on its page (HOT). Instead a sweep follows the journal, where an event's entries stand
// in the order of time: it reads each entry once, when it is evently.KeyRetentionMin old.
type Retention struct {
	Policies RetentionPolicies // set before it runs

	pool   *pgxpool.Pool
	logger *slog.Logger
}

// NewRetention returns the retention of a database, with the default policies.
func NewRetention(pool *pgxpool.Pool, logger *slog.Logger) *Retention {
	return &Retention{defaultRetention, pool, logger}
}

// Run sweeps at once and then every 20 minutes until ctx ends. Failures are logged; the next sweep makes up for them.
func (r *Retention) Run(ctx context.Context) {
	ticker := time.NewTicker(retentionPeriod)
	defer ticker.Stop()
	for {
		swept, err := r.sweepNow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.logger.WarnContext(ctx, "retention sweep failed", "error", err)
		}
		if swept != (Swept{}) {
			r.logger.InfoContext(ctx, "retention sweep", "keys", swept.Keys, "answers", swept.Answers, "sessions", swept.Sessions,
				"codes", swept.Codes, "throttles", swept.Throttles, "mails", swept.Mails, "security_log", swept.SecurityLog,
				"deliveries", swept.Deliveries)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// nowSQL asks for the time of the database: keys are promised for a time, and nodes' clocks may differ from that of the journal.
const nowSQL = `select clock_timestamp()`

func (r *Retention) sweepNow(ctx context.Context) (swept Swept, err error) {
	var now time.Time
	if err := r.pool.QueryRow(ctx, nowSQL).Scan(&now); err != nil {
		return swept, failed(err, "read the database's clock")
	}
	return r.Sweep(ctx, now)
}

// Swept counts what a sweep removed.
type Swept struct{ Keys, Answers, Sessions, Codes, Throttles, Mails, SecurityLog, Deliveries int64 }

// Sweep removes what is too old at a moment, in many small transactions. It stops without an error when another node sweeps.
// A kind of rows that cannot be swept, because its table is damaged or locked, keeps no other kind from its turn: the errors are joined,
// and what was done stays done.
func (r *Retention) Sweep(ctx context.Context, now time.Time) (swept Swept, err error) {
	if err := r.Policies.check(); err != nil {
		return swept, err
	}
	older := func(keep time.Duration, sweep func(ctx context.Context, before time.Time) (int64, error)) func() (int64, error) {
		return func() (int64, error) {
			if keep == 0 { // for ever
				return 0, nil
			}
			return sweep(ctx, now.Add(-keep))
		}
	}
	var errs []error
	for _, part := range []struct {
		name  string
		count *int64
		sweep func() (int64, error)
	}{
		{"idempotency keys", &swept.Keys, older(evently.KeyRetentionMin, r.sweepKeys)},
		{"answers", &swept.Answers, older(r.Policies.Answers, r.rows(sweepAnswersSQL))},
		{"sessions", &swept.Sessions, older(sessionRetention, r.rows(sweepSessionsSQL))},
		{"codes", &swept.Codes, older(codeRetention, r.rows(sweepCodesSQL))},
		{"failed sign-ins", &swept.Throttles, older(evently.SignInMemory, r.rows(sweepThrottlesSQL))},
		{"mails", &swept.Mails, older(r.Policies.Mail, r.rows(sweepMailboxSQL))},
		{"the security log", &swept.SecurityLog, older(r.Policies.SecurityLog, r.sweepSecurityLog)},
		{"deliveries of webhooks", &swept.Deliveries, func() (int64, error) { return r.sweepWebhooks(ctx, now) }},
	} {
		if *part.count, err = part.sweep(); err != nil {
			errs = append(errs, failed(err, "sweep %s", part.name))
		}
		if err != nil && ctx.Err() != nil {
			break
		}
	}
	return swept, errors.Join(errs...)
}

// errSweptElsewhere: another node holds the lock.
var errSweptElsewhere = errors.New("another node sweeps")

// lockSweepSQL also bounds the wait for locks, and binds the planner to look-ups by index. It cannot know how few rows a batch touches,
// and statistics are old just after a table has grown: a plan that reads a whole table for each batch would be quick only at first.
const lockSweepSQL = `
select pg_try_advisory_xact_lock(7251009364512077)
from set_config('enable_seqscan', 'off', true) scans, set_config('enable_hashjoin', 'off', true) hashes,
    set_config('enable_mergejoin', 'off', true) merges, set_config('lock_timeout', '2s', true) waits`

// batch runs one transaction of a sweep. It returns false when another node sweeps.
func (r *Retention) batch(ctx context.Context, run func(tx pgx.Tx) error) (bool, error) {
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, lockSweepSQL).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errSweptElsewhere
		}
		return run(tx)
	})
	if errors.Is(err, errSweptElsewhere) {
		return false, nil
	}
	return err == nil, err
}

// dueSweepsSQL lists events after $1 with an entry before $2 that was not swept yet.
const dueSweepsSQL = `
select event_id
from (
    select h.event_id, h.seq, coalesce((select s.seq from key_sweeps s where s.event_id = h.event_id), 0) as swept
    from event_heads h
    where h.event_id > $1
) h
where seq > swept and (select j.at < $2 from journal j where j.event_id = h.event_id and j.seq = swept + 1)
order by event_id
limit $3`

// sweepKeysSQL takes the next entries of each of the events $1 and returns the events that may have further ones.
// An ended reservation or waiter never changes again, so nobody else locks its row. Indexes: the primary keys.
const sweepKeysSQL = `
with old as (
    select e.event_id, e.seq, e.kind, e.token, e.waiter
    from unnest($1::int8[]) u (event_id) cross join lateral (
        select j.event_id, j.seq, j.kind, j.token, j.waiter, j.at from journal j
        where j.event_id = u.event_id and j.seq > coalesce((select s.seq from key_sweeps s where s.event_id = u.event_id), 0)
        order by j.seq
        limit $3
    ) e
    where e.at < $2
), cleared as (
    update reservations r set key = null
    from old
    where old.kind in (7, 8) and r.event_id = old.event_id and r.token = old.token and r.key is not null and r.ended_at < $2
    returning 1
), cleared_waiters as (
    update waitlist w set key = null
    from old
    where (old.kind in (12, 13) or old.waiter) and w.event_id = old.event_id and w.token = old.token and w.key is not null
      and w.ended_at < $2
    returning 1
), progress as (
    select event_id, max(seq) as seq, count(*) as entries from old group by event_id
), moved as (
    insert into key_sweeps as s (event_id, seq) select event_id, seq from progress
    on conflict (event_id) do update set seq = excluded.seq
)
select coalesce(array_agg(event_id) filter (where entries = $3), '{}'),
    (select count(*) from cleared) + (select count(*) from cleared_waiters)
from progress`

func (r *Retention) sweepKeys(ctx context.Context, before time.Time) (cleared int64, err error) {
	after := int64(math.MinInt64)
	for {
		var events []int64
		locked, err := r.batch(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, dueSweepsSQL, after, before, sweptEventsMax)
			events, err = collect(rows, err, pgx.RowTo[int64])
			return err
		})
		if err != nil || !locked || len(events) == 0 {
			return cleared, err
		}
		after = events[len(events)-1]
		for len(events) > 0 {
			var keys int64
			locked, err := r.batch(ctx, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, sweepKeysSQL, events, before, sweptEntriesMax).Scan(&events, &keys)
			})
			if err != nil || !locked {
				return cleared, err
			}
			cleared += keys
		}
	}
}

// The indexes answers_by_age and sessions_by_expiry serve these. A revoked session expires too.
const (
	sweepAnswersSQL = `
delete from answers where key = any (array(select key from answers where created_at < $1 order by created_at limit $2))`
	sweepSessionsSQL = `
delete from sessions
where session_id = any (array(select session_id from sessions where expires_at < $1 order by expires_at limit $2))`
)

func (r *Retention) rows(query string) func(context.Context, time.Time) (int64, error) {
	return func(ctx context.Context, before time.Time) (int64, error) {
		return r.sweepRows(ctx, query, before, sweptRowsMax)
	}
}

// sweepRows repeats a statement, one of whose arguments bounds its rows to sweptRowsMax, until it finds fewer.
func (r *Retention) sweepRows(ctx context.Context, query string, arguments ...any) (int64, error) {
	return r.batches(ctx, func(tx pgx.Tx) (int64, error) {
		tag, err := tx.Exec(ctx, query, arguments...)
		return tag.RowsAffected(), err
	})
}

// batches repeats a batch of at most sweptRowsMax rows until one has fewer.
func (r *Retention) batches(ctx context.Context, run func(tx pgx.Tx) (rows int64, err error)) (total int64, err error) {
	for {
		var rows int64
		locked, err := r.batch(ctx, func(tx pgx.Tx) error {
			var err error
			rows, err = run(tx)
			return err
		})
		if err == nil { // else it is undone
			total += rows
		}
		if err != nil || !locked || rows < sweptRowsMax {
			return total, err
		}
	}
}
