package store

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// reader runs one consumer, while this node is its runner.
type reader struct {
	*Consumer
	feed   *Feed
	logger *slog.Logger

	enrolled bool
	leads    bool      // this node was the runner when it last asked
	fullAt   time.Time // of the last look at every head
	last     evently.EventID
	limit    int // entries of the next step: fewer after a failure, up to EntriesMax
	pause    time.Duration
}

// errOvertaken: another node has become the consumer's runner, or has moved its cursors.
var errOvertaken = errors.New("another node runs the consumer")

func newReader(feed *Feed, consumer *Consumer) *reader {
	return &reader{
		Consumer: consumer, feed: feed, logger: feed.config.Logger.With(slog.String("consumer", consumer.Name)),
		last: eventIDMin, limit: consumer.EntriesMax,
	}
}

func (r *reader) run(ctx context.Context) {
	for {
		took, more, err := r.poll(ctx)
		if ctx.Err() != nil {
			break
		}
		pause := max(r.feed.config.Poll, findShare*took)
		switch {
		case err != nil:
			pause = r.failed(ctx, errors.Join(err, r.observe(ctx)))
		case more:
			pause, r.pause = 0, 0
		default:
			r.pause = 0
		}
		timer := time.NewTimer(pause - rand.N(pause/8+1)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	r.resign(ctx)
}

// failed says how long to wait after a failure that another try may get over.
func (r *reader) failed(ctx context.Context, err error) time.Duration {
	if errors.Is(err, errOvertaken) {
		r.leads = false
		return r.feed.config.Poll
	}
	r.pause = min(max(2*r.pause, feedPauseMin), feedPauseMax)
	r.feed.config.Metrics.failures.WithLabelValues(r.Name, failedTransient).Inc()
	r.logger.WarnContext(ctx, "the consumer pauses", "pause", r.pause, "error", err)
	return r.pause
}

// poll consumes what is new, if this node is the runner or becomes it. took is the time of the look for it, and
// more: there is more to do at once.
func (r *reader) poll(ctx context.Context) (took time.Duration, more bool, err error) {
	if !r.enrolled {
		if err := r.enroll(ctx); err != nil {
			return 0, false, err
		}
	}
	if !r.leads {
		if r.leads, err = r.lead(ctx); err != nil || !r.leads {
			return 0, false, errors.Join(err, r.observe(ctx))
		}
		r.fullAt = time.Time{}
	}
	round, err := r.find(ctx)
	if err != nil {
		return 0, false, err
	}
	if err := r.consumeRound(ctx, round); err != nil {
		return round.took, false, err
	}
	retry, err := r.finish(ctx, round)
	if err != nil {
		return round.took, false, err
	}
	if retry {
		if err = r.retryParked(ctx); errors.Is(err, errNoRoom) {
			retry, err = false, nil // after a poll
		}
	}
	return round.took, !round.complete && !round.waits || retry, err
}

// enrollSQL adds a consumer; one that starts from now has consumed what is there. It has the head of every event in one snapshot: an
// entry is either in it or consumed.
const enrollSQL = `
with fresh as (
    insert into consumers (name, from_now, started_at) values ($1, $2, clock_timestamp()) on conflict do nothing returning name
)
insert into feed_cursors (consumer, event_id, seq)
select f.name, h.event_id, h.seq
from fresh f cross join (select event_id, seq from event_heads union all select event_id, seq from deleted_heads) h
where $2 and h.seq > 0`

func (r *reader) enroll(ctx context.Context) error {
	if _, err := r.feed.pool.Exec(ctx, enrollSQL, r.Name, r.FromNow); err != nil {
		return failed(err, "enroll consumer %s", r.Name)
	}
	r.enrolled = true
	return nil
}

// leadSQL makes a node the runner when the last one has not been heard of for $3, and is not in the middle of a step.
const leadSQL = `
update consumers set runner = $2, stepped_at = clock_timestamp()
where name = (
    select name from consumers where name = $1 and (runner = $2 or stepped_at < clock_timestamp() - $3::interval)
    for no key update skip locked
)`

func (r *reader) lead(ctx context.Context) (bool, error) {
	tag, err := r.feed.pool.Exec(ctx, leadSQL, r.Name, r.feed.runner, leasePolls*max(r.feed.config.Poll, feedPauseMin))
	if err != nil {
		return false, failed(err, "lead consumer %s", r.Name)
	}
	return tag.RowsAffected() == 1, nil
}

// consumerStateSQL reads what the metrics of all nodes tell.
const consumerStateSQL = `
select behind, extract(epoch from clock_timestamp() - coalesce(as_of, started_at))::float8,
    (select count(*) from parked_entries p where p.consumer = c.name)
from consumers c where name = $1`

func (r *reader) observe(ctx context.Context) error {
	var behind, lag, parked float64
	if err := r.feed.pool.QueryRow(ctx, consumerStateSQL, r.Name).Scan(&behind, &lag, &parked); err != nil {
		return failed(err, "observe consumer %s", r.Name)
	}
	r.tell(behind, lag, parked)
	return nil
}

func (r *reader) tell(behind, lagSeconds, parked float64) {
	m := r.feed.config.Metrics
	m.lagEntries.WithLabelValues(r.Name).Set(behind)
	m.lagSeconds.WithLabelValues(r.Name).Set(max(lagSeconds, 0))
	m.parked.WithLabelValues(r.Name).Set(parked)
}

// finishSQL ends a round. A complete one moves as_of and the horizon on.
const finishSQL = `
update consumers c
set stepped_at = clock_timestamp(), behind = $3,
    as_of = case when $4 then greatest(as_of, $5) else as_of end, horizon = case when $4 then $6::text::xid8 else horizon end
from set_config('synchronous_commit', 'off', true) async
where name = $1 and runner = $2
returning extract(epoch from clock_timestamp() - coalesce(as_of, started_at))::float8,
    (select count(*) from parked_entries p where p.consumer = c.name),
    exists (select from parked_entries p where p.consumer = c.name and p.retry)`

// finish records that a round is consumed. retry: somebody wants parked entries to be tried again.
func (r *reader) finish(ctx context.Context, round *round) (retry bool, err error) {
	var lag, parked float64
	err = r.feed.pool.QueryRow(ctx, finishSQL, r.Name, r.feed.runner, round.left, round.complete, round.asOf, round.horizon).
		Scan(&lag, &parked, &retry)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, errOvertaken
	case err != nil:
		return false, failed(err, "finish a round of consumer %s", r.Name)
	}
	r.tell(float64(round.left), lag, parked)
	return retry, nil
}

const resignSQL = `update consumers set stepped_at = '-infinity' where name = $1 and runner = $2`

// resignMax bounds the good-bye of a runner.
const resignMax = time.Second

// resign lets another node take over at once.
func (r *reader) resign(ctx context.Context) {
	if !r.leads {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignMax)
	defer cancel()
	if _, err := r.feed.pool.Exec(ctx, resignSQL, r.Name, r.feed.runner); err != nil {
		r.logger.WarnContext(ctx, "another node takes over the consumer only after a while", "error", err)
	}
}
