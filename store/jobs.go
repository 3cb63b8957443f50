package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// The queues. One that is stuck does not hold up the others.
const (
	mailQueue     = "mail"
	periodicQueue = "periodic"
)

const (
	// jobsConnsMax bounds the connections that the jobs of a node use, beside the pool of the API: so neither takes them from the
	// other. With few jobs it is one or two.
	jobsConnsMax = 6
	// jobTimeout bounds one attempt at a job whose kind does not say otherwise.
	jobTimeout = time.Minute
	// jobRescueAfter is when a job that was begun and not ended, because its node has died, is tried again.
	jobRescueAfter = 3 * time.Minute
	// Ended jobs are kept for a look at them, and to recognise repeated ones; not for long, since the table is in use.
	completedJobRetention = time.Hour
	failedJobRetention    = 7 * 24 * time.Hour
	// jobsFetchPause is the least time between two looks at a queue that has more jobs.
	jobsFetchPause = 100 * time.Millisecond
	// jobsRestartPause is between attempts to start without a database.
	jobsRestartPause = 2 * time.Second
	// jobsStopMax bounds the wait for the jobs under way, first for their end and then for that of their cancellation.
	jobsStopMax = 8 * time.Second
	// jobsCountPeriod is how often the metrics of pending jobs are renewed.
	jobsCountPeriod = 15 * time.Second
)

// JobsConfig says what a node does about jobs.
type JobsConfig struct {
	// Workers add the kinds of jobs that this node can do. The pool is that of the jobs; see jobsConnsMax.
	Workers []func(workers *river.Workers, pool *pgxpool.Pool)

	// Periodic is what has to be done again and again, see PeriodicJob.
	Periodic []PeriodicJob

	// MailWorkers and PeriodicWorkers bound the jobs of each queue that this node does at the same time. Defaults 16, for most of them
	// wait for a mail server, and 2.
	MailWorkers, PeriodicWorkers int

	// Poll is how often each queue is looked at. Default 500 ms: a job starts that much later at the most.
	Poll time.Duration

	Logger  *slog.Logger
	Metrics *JobMetrics

	eager bool // in tests: maintenance starts at once
}

func (c *JobsConfig) setDefaults() {
	if c.MailWorkers == 0 {
		c.MailWorkers = 16
	}
	if c.PeriodicWorkers == 0 {
		c.PeriodicWorkers = 2
	}
	if c.Poll == 0 {
		c.Poll = 500 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = NewJobMetrics(prometheus.NewRegistry())
	}
}

// Jobs is work that is done apart from requests: jobs are rows, inserted in the transactions that they belong to, and done at least
// once each, on any node that runs. It uses River, see https://riverqueue.com.
//
// None of it is on the way of a booking. Queues are polled, and nobody is notified of insertions: NOTIFY would have the transactions
// that insert wait for each other at their commits.
type Jobs struct {
	pool   *pgxpool.Pool
	config JobsConfig
	insert *river.Client[pgx.Tx]
}

// NewJobs returns the jobs of a database. They can be inserted from now on, and are done while Run runs; a node that does none leaves
// Run alone. It takes no connection from the pool, only its settings.
func NewJobs(pool *pgxpool.Pool, config JobsConfig) (*Jobs, error) {
	config.setDefaults()
	const seldom = 24 * time.Hour // an inserting client notifies once in that time
	insert, err := river.NewClient(riverpgxv5.New(nil), &river.Config{
		Logger: quietly(config.Logger), FetchCooldown: seldom, FetchPollInterval: seldom,
	})
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	j := &Jobs{pool, config, insert}
	_, err = j.client(pool) // would fail in Run
	return j, err
}

// InsertManyTx adds jobs in a transaction. A job that is unique and there already, or done less than an hour ago, is left out.
func (j *Jobs) InsertManyTx(ctx context.Context, tx pgx.Tx, jobs []river.InsertManyParams) error {
	if len(jobs) == 0 {
		return nil
	}
	if _, err := j.insert.InsertManyTx(ctx, tx, jobs); err != nil {
		return failed(err, "insert %d jobs", len(jobs))
	}
	return nil
}

// Run does jobs until ctx ends, and then waits for those under way. It starts again when the database is away at the start;
// later River itself does so.
func (j *Jobs) Run(ctx context.Context) error {
	config := j.pool.Config()
	config.MaxConns, config.MinConns, config.MinIdleConns = jobsConnsMax, 0, 0
	config.ConnConfig.RuntimeParams["application_name"] = "evently_jobs"
	// Bookings do not share the disk with the housekeeping of jobs. What a crash of Postgres takes back is done again.
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		return failed(err, "open the connections of the jobs")
	}
	defer pool.Close()
	for {
		client, err := j.client(pool)
		if err != nil {
			return err
		}
		// Not ctx: jobs under way at its end are given time, see stop.
		if err = client.Start(context.WithoutCancel(ctx)); err == nil {
			j.count(ctx, pool)
			return j.stop(client)
		}
		j.config.Logger.WarnContext(ctx, "jobs cannot start; trying again", "pause", jobsRestartPause, "error", err)
		timer := time.NewTimer(jobsRestartPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// client makes one that does jobs. It can be started once.
func (j *Jobs) client(pool *pgxpool.Pool) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	for _, add := range j.config.Workers {
		add(workers, pool)
	}
	periodic, err := newPeriodicWorker(j.config.Periodic, pool)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	river.AddWorker(workers, periodic)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Workers: workers,
		Queues: map[string]river.QueueConfig{
			mailQueue: {MaxWorkers: j.config.MailWorkers}, periodicQueue: {MaxWorkers: j.config.PeriodicWorkers},
		},
		FetchOnlyKnownKinds: true, // of several versions that share the database each does what it knows
		PollOnly:            true, FetchPollInterval: j.config.Poll, FetchCooldown: min(j.config.Poll, jobsFetchPause),
		JobTimeout: jobTimeout, RescueStuckJobsAfter: jobRescueAfter,
		CompletedJobRetentionPeriod: completedJobRetention,
		CancelledJobRetentionPeriod: failedJobRetention, DiscardedJobRetentionPeriod: failedJobRetention,
		ReindexerIndexNames: []string{}, // autovacuum suffices
		PeriodicJobs:        periodic.ticks(),
		Middleware:          j.config.Metrics.middleware(),
		Logger:              quietly(j.config.Logger),
		TestOnly:            j.config.eager,
	})
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return client, nil
}

// stop waits for the jobs under way, and cancels those that take too long: they are tried again elsewhere.
func (j *Jobs) stop(client *river.Client[pgx.Tx]) error {
	ctx, cancel := context.WithTimeout(context.Background(), jobsStopMax)
	defer cancel()
	err := client.Stop(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		hard, cancel := context.WithTimeout(context.Background(), jobsStopMax)
		defer cancel()
		err = client.StopAndCancel(hard)
	}
	if err != nil {
		return fmt.Errorf("stop the jobs: %w", err)
	}
	return nil
}

// jobsCountMax bounds the reading of countJobsSQL, for each queue and state.
const jobsCountMax = 100_000

// countJobsSQL counts what is still to do. It is served by river_job_prioritized_fetching_index, without the table.
const countJobsSQL = `
select q.queue, coalesce(sum(c.jobs), 0)::int8
from unnest($1::text[]) q (queue) cross join unnest('{available,retryable,scheduled,running}'::river_job_state[]) s (state)
cross join lateral (
    select count(*) as jobs from (select from river_job j where j.state = s.state and j.queue = q.queue limit $2) bounded
) c
group by q.queue`

// count keeps the metrics of pending jobs until ctx ends.
func (j *Jobs) count(ctx context.Context, pool *pgxpool.Pool) {
	ticker := time.NewTicker(jobsCountPeriod)
	defer ticker.Stop()
	for {
		if err := j.countOnce(ctx, pool); err != nil && ctx.Err() == nil {
			j.config.Logger.WarnContext(ctx, "count of pending jobs failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (j *Jobs) countOnce(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, countJobsSQL, []string{mailQueue, periodicQueue}, jobsCountMax)
	if err != nil {
		return failed(err, "count jobs")
	}
	var queue string
	var jobs int64
	if _, err = pgx.ForEachRow(rows, []any{&queue, &jobs}, func() error {
		j.config.Metrics.pending.WithLabelValues(queue).Set(float64(jobs))
		return nil
	}); err != nil {
		return failed(err, "count jobs")
	}
	return nil
}

// quietly drops what River says about each job and tick.
func quietly(logger *slog.Logger) *slog.Logger { return slog.New(warnings{logger.Handler()}) }

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}

func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
