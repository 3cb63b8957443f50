package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// PeriodicJob is work that one node of the cluster does again and again. When it is due is stored, so that restarts and changes of
// the leading node neither skip nor repeat it. A Run that returns an error is tried again with growing pauses, and so is one whose
// node has died, after some minutes: it may then have been done in part.
type PeriodicJob struct {
	Name       string        // of the schedule, for ever
	Every      time.Duration // at least a second; from due time to due time, and from now on after a longer outage
	RunOnStart bool          // due at once in a new database, instead of after the first period
	// Run has periodicTimeout.
	Run func(ctx context.Context) error
}

const (
	// periodicTimeout bounds one Run. What it leaves undone is up to the next attempt.
	periodicTimeout = 30 * time.Minute
	// The table is asked as often as a tenth of the period, within these bounds.
	periodicTickMin = time.Second
	periodicTickMax = time.Minute
	// periodicAttemptsMax ends the attempts at one due time, after about an hour. The next tick begins again.
	periodicAttemptsMax = 6
)

// periodicArgs is a job that looks whether a PeriodicJob is due, and then does it.
type periodicArgs struct {
	Name string `json:"name" river:"unique"`
}

func (periodicArgs) Kind() string { return "periodic" }

// InsertOpts has at most one such job of a name at a time.
func (periodicArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		Queue: periodicQueue, MaxAttempts: periodicAttemptsMax,
		UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning,
			rivertype.JobStateScheduled,
		}},
	}
}

type periodicWorker struct {
	river.WorkerDefaults[periodicArgs]
	pool *pgxpool.Pool
	jobs map[string]PeriodicJob
}

func newPeriodicWorker(list []PeriodicJob, pool *pgxpool.Pool) (*periodicWorker, error) {
	w := &periodicWorker{pool: pool, jobs: make(map[string]PeriodicJob)}
	for _, job := range list {
		if _, twice := w.jobs[job.Name]; twice || job.Name == "" || job.Run == nil || job.Every < periodicTickMin {
			return nil, fmt.Errorf("periodic job %q every %s: needs a name of its own, a period of at least %s and something to run",
				job.Name, job.Every, periodicTickMin)
		}
		w.jobs[job.Name] = job
	}
	return w, nil
}

// ticks has the leading node insert the jobs that look what is due.
func (w *periodicWorker) ticks() []*river.PeriodicJob {
	ticks := make([]*river.PeriodicJob, 0, len(w.jobs))
	for name, job := range w.jobs {
		every := min(max(job.Every/10, periodicTickMin), periodicTickMax)
		ticks = append(ticks, river.NewPeriodicJob(river.PeriodicInterval(every), func() (river.JobArgs, *river.InsertOpts) {
			return periodicArgs{name}, nil
		}, &river.PeriodicJobOpts{RunOnStart: true}))
	}
	return ticks
}

// Timeout implements river.Worker.
func (w *periodicWorker) Timeout(*river.Job[periodicArgs]) time.Duration { return periodicTimeout }

const (
	// startPeriodicSQL begins the schedule of a name: due after $2. A schedule that is there is brought forward when its period $3 has
	// become shorter.
	startPeriodicSQL = `
insert into periodic_jobs as p (name, due_at) values ($1, clock_timestamp() + $2::interval)
on conflict (name) do update set due_at = clock_timestamp() + $3::interval where p.due_at > clock_timestamp() + $3::interval`
	periodicDueSQL = `select due_at, due_at <= clock_timestamp() from periodic_jobs where name = $1`
	// periodicDoneSQL ends the due time $2. Late times that were missed are not made up for.
	periodicDoneSQL = `
update periodic_jobs
set due_at = case when due_at + $3::interval > clock_timestamp() then due_at + $3::interval else clock_timestamp() + $3::interval end,
    done_at = clock_timestamp()
where name = $1 and due_at = $2`
)

// Work implements river.Worker.
func (w *periodicWorker) Work(ctx context.Context, tick *river.Job[periodicArgs]) error {
	job, known := w.jobs[tick.Args.Name]
	if !known { // one of a newer program, or of an older one
		return nil
	}
	first := job.Every
	if job.RunOnStart {
		first = 0
	}
	if _, err := w.pool.Exec(ctx, startPeriodicSQL, job.Name, first, job.Every); err != nil {
		return failed(err, "begin the schedule of %s", job.Name)
	}
	var dueAt time.Time
	var due bool
	if err := w.pool.QueryRow(ctx, periodicDueSQL, job.Name).Scan(&dueAt, &due); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return failed(err, "read the schedule of %s", job.Name)
	}
	if !due {
		return nil
	}
	if err := job.Run(ctx); err != nil {
		return fmt.Errorf("%s: %w", job.Name, err)
	}
	if _, err := w.pool.Exec(ctx, periodicDoneSQL, job.Name, dueAt, job.Every); err != nil {
		return failed(err, "write the schedule of %s", job.Name)
	}
	return nil
}
