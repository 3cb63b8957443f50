package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/evently/evently/store/pgtest"
)

// noteArgs is a job of the tests.
type noteArgs struct {
	Text string `json:"text" river:"unique"`
}

func (noteArgs) Kind() string { return "note" }

func (noteArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: mailQueue, UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

// notes counts how often each job was begun, and then does what a test wants.
type notes struct {
	mu    sync.Mutex
	begun map[string]int
	then  func(ctx context.Context, text string) error
}

func (n *notes) register(workers *river.Workers, _ *pgxpool.Pool) {
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[noteArgs]) error {
		n.mu.Lock()
		if n.begun == nil {
			n.begun = make(map[string]int)
		}
		n.begun[job.Args.Text]++
		then := n.then
		n.mu.Unlock()
		if then == nil {
			return nil
		}
		return then(ctx, job.Args.Text)
	}))
}

func (n *notes) times(text string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.begun[text]
}

// jobsOf returns jobs that are done quickly.
func jobsOf(t testing.TB, pool *pgxpool.Pool, config JobsConfig) *Jobs {
	t.Helper()
	config.Logger, config.Poll, config.eager = discard, feedPoll, true
	jobs, err := NewJobs(pool, config)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

// working runs jobs until the test or stop ends them.
func working(t testing.TB, jobs *Jobs) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- jobs.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (b *bench) insertNotes(jobs *Jobs, texts ...string) {
	b.Helper()
	var list []river.InsertManyParams
	for _, text := range texts {
		list = append(list, river.InsertManyParams{Args: noteArgs{text}})
	}
	if err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error { return jobs.InsertManyTx(b.Context(), tx, list) }); err != nil {
		b.Fatal(err)
	}
}

// A crash between the two kinds of migrations, and several that go on at once.
func TestMigrate_JobsAreBroughtUpToDateToo(t *testing.T) {
	url, conn := emptyDatabase(t)
	if err := Migrate(t.Context(), url, discard); err != nil {
		t.Fatal(err)
	}
	pool := openPool(t, url, 4)
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	last := migrator.AllVersions()[len(migrator.AllVersions())-1].Version
	if _, err := migrator.Migrate(t.Context(), rivermigrate.DirectionDown, &rivermigrate.MigrateOpts{TargetVersion: -1}); err != nil {
		t.Fatal(err)
	}
	status, err := MigrationStatus(t.Context(), url)
	if err != nil || len(status.Pending) != last || !strings.HasPrefix(status.Pending[0], "jobs 001 ") || status.Current != status.Target {
		t.Fatalf("without jobs: %+v %v, want %d pending", status, err, last)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := Migrate(t.Context(), url, discard); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if status, err = MigrationStatus(t.Context(), url); err != nil || len(status.Pending) != 0 {
		t.Errorf("after: %+v %v", status, err)
	}
	var tables, locks int
	if err := conn.QueryRow(t.Context(), `select count(*) from pg_tables where schemaname = 'public' and tablename like 'river_%'`).
		Scan(&tables); err != nil || tables == 0 {
		t.Errorf("%d tables of the jobs in the schema, %v", tables, err)
	}
	if err := conn.QueryRow(t.Context(), `select count(*) from pg_locks where locktype = 'advisory'
		and database = (select oid from pg_database where datname = current_database())`).Scan(&locks); err != nil || locks != 0 {
		t.Errorf("%d locks are left, %v", locks, err)
	}
}

func TestJobs_AreDoneOnceByAnyNode(t *testing.T) {
	b := newBench(t, JournalConfig{})
	var done notes
	var all []*Jobs
	for range 2 {
		jobs := jobsOf(t, b.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
		working(t, jobs)
		all = append(all, jobs)
	}
	inserting := jobsOf(t, b.pool, JobsConfig{}) // a node that does no jobs
	var texts []string
	for i := range 60 {
		texts = append(texts, fmt.Sprint(i))
	}
	b.insertNotes(inserting, texts...)
	b.insertNotes(all[0], texts...) // once more: left out
	b.insertNotes(all[0])
	b.waitUntil("all jobs are done", func() bool { return b.count(`select count(*) from river_job where state = 'completed'`) == 60 })
	for _, text := range texts {
		if n := done.times(text); n != 1 {
			t.Errorf("job %s was done %d times", text, n)
		}
	}
}

// What a transaction inserts is there when it commits, and not at all when it does not.
func TestJobs_BelongToTheirTransaction(t *testing.T) {
	b := newBench(t, JournalConfig{})
	var done notes
	jobs := jobsOf(t, b.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
	working(t, jobs)
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.InsertManyTx(t.Context(), tx, []river.InsertManyParams{{Args: noteArgs{"rolled back"}}}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.insertNotes(jobs, "committed")
	b.waitUntil("the job is done", func() bool { return done.times("committed") == 1 })
	if n := b.count(`select count(*) from river_job`); n != 1 {
		t.Errorf("%d jobs, want 1", n)
	}
}

// A job under way when its node is told to stop comes to its end.
func TestJobs_StopWaits(t *testing.T) {
	b := newBench(t, JournalConfig{})
	begun, release := make(chan struct{}), make(chan struct{})
	done := notes{then: func(ctx context.Context, _ string) error {
		close(begun)
		<-release
		return ctx.Err()
	}}
	jobs := jobsOf(t, b.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
	stop := working(t, jobs)
	b.insertNotes(jobs, "slow")
	<-begun
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	close(release)
	<-stopped
	if n := b.count(`select count(*) from river_job where state = 'completed'`); n != 1 {
		t.Errorf("%d jobs completed, want 1", n)
	}
}

// A job whose node has died in the middle of it is tried again.
func TestJobs_OutliveTheirNode(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	var done notes
	jobs := jobsOf(t, b.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
	b.insertNotes(jobs, "orphan")
	b.exec(`update river_job set state = 'running', attempt = 1, attempted_at = now() - interval '1 hour', attempted_by = '{nobody}'`)
	working(t, jobs)
	b.waitUntil("the job is done by another node", func() bool {
		b.exec(`update river_job set scheduled_at = now() where state = 'retryable'`)
		return done.times("orphan") == 1
	})
}

// Sessions that are ended cost no job: what was done is recorded on others.
func TestJobs_OutliveTheirConnections(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	done := notes{then: func(ctx context.Context, _ string) error {
		_, err := b.pool.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'evently_jobs' and datname = current_database()`)
		return err
	}}
	jobs := jobsOf(t, b.pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
	working(t, jobs)
	b.insertNotes(jobs, "a", "b", "c")
	b.waitUntil("all are recorded", func() bool { return b.count(`select count(*) from river_job where state = 'completed'`) == 3 })
}

// The database is away when the node starts, and comes later.
func TestJobs_WaitForTheDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	var done notes
	config := b.pool.Config()
	var tries atomic.Int64
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if tries.Add(1) <= 2 {
			return errors.New("away")
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	jobs := jobsOf(t, pool, JobsConfig{Workers: []func(*river.Workers, *pgxpool.Pool){done.register}})
	b.insertNotes(jobs, "patient")
	working(t, jobs)
	b.waitUntil("the job is done", func() bool { return done.times("patient") == 1 })
	if n := tries.Load(); n < 3 {
		t.Errorf("%d attempts to connect: the database was never away", n)
	}
}

// While jobs wait for connections of their own, the pool of the API is untouched.
func TestJobs_HaveConnectionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	var busiest atomic.Int64
	done := notes{then: func(ctx context.Context, _ string) error {
		if n := int64(b.pool.Stat().AcquiredConns()); n > busiest.Load() {
			busiest.Store(n)
		}
		return nil
	}}
	registry := prometheus.NewRegistry()
	jobs := jobsOf(t, b.pool, JobsConfig{
		Workers: []func(*river.Workers, *pgxpool.Pool){done.register}, Metrics: NewJobMetrics(registry),
	})
	var texts []string
	for i := range 200 {
		texts = append(texts, fmt.Sprint(i))
	}
	b.insertNotes(jobs, texts...)
	working(t, jobs)
	for range 20 {
		b.waitUntil("jobs are done", func() bool { return done.times("199") == 1 })
		if n := b.count(`select count(*) from pg_stat_activity where application_name = 'evently_jobs' and datname = current_database()`); n > jobsConnsMax {
			t.Errorf("%d connections, at most %d are promised", n, jobsConnsMax)
		}
	}
	if n := busiest.Load(); n > 1 { // that of the polling test
		t.Errorf("%d connections of the API's pool were in use", n)
	}
	if n := testutil.ToFloat64(jobs.config.Metrics.attempts.WithLabelValues("note", "done")); n == 0 {
		t.Error("nothing is counted")
	}
}

func TestPeriodic_OneNodeDoesWhatIsDue(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	var hourly, first, broken atomic.Int64
	list := []PeriodicJob{
		{Name: "hourly", Every: time.Hour, RunOnStart: true, Run: func(context.Context) error {
			hourly.Add(1)
			return nil
		}},
		{Name: "first", Every: time.Hour, Run: func(context.Context) error {
			first.Add(1)
			return nil
		}},
		{Name: "broken", Every: time.Hour, RunOnStart: true, Run: func(context.Context) error {
			if broken.Add(1) == 1 {
				return errors.New("not now")
			}
			return nil
		}},
	}
	doneSQL := `select count(*) from periodic_jobs where done_at is not null`
	for range 2 { // and again after a restart
		stops := []func(){working(t, jobsOf(t, b.pool, JobsConfig{Periodic: list})), working(t, jobsOf(t, b.pool, JobsConfig{Periodic: list}))}
		b.waitUntil("what is due is done", func() bool {
			b.exec(`update river_job set scheduled_at = now() where state = 'retryable'`)
			return b.count(doneSQL) == 2 && b.count(`select count(*) from periodic_jobs`) == 3
		})
		for _, stop := range stops {
			stop()
		}
	}
	if hourly.Load() != 1 || first.Load() != 0 || broken.Load() != 2 {
		t.Errorf("hourly ran %d times, first %d, broken %d; want 1, 0, 2", hourly.Load(), first.Load(), broken.Load())
	}
	// After an outage of days it is due once, and then after an hour.
	b.exec(`update periodic_jobs set due_at = now() - interval '3 days 10 minutes'`)
	stop := working(t, jobsOf(t, b.pool, JobsConfig{Periodic: list}))
	b.waitUntil("what was due is done", func() bool { return b.count(`select count(*) from periodic_jobs where due_at > now()`) == 3 })
	if hourly.Load() != 2 || first.Load() != 1 {
		t.Errorf("hourly ran %d times and first %d, want 2 and 1", hourly.Load(), first.Load())
	}
	stop()
	// A shorter period holds at once, and not after the longer one.
	list[1].Every = 20 * time.Minute
	working(t, jobsOf(t, b.pool, JobsConfig{Periodic: list}))
	b.waitUntil("the schedule is brought forward", func() bool {
		return b.count(`select count(*) from periodic_jobs where name = 'first' and due_at <= now() + interval '20 minutes'`) == 1
	})
}

func TestPeriodic_RefusesWhatCannotBe(t *testing.T) {
	run := func(context.Context) error { return nil }
	for _, list := range [][]PeriodicJob{
		{{Name: "", Every: time.Hour, Run: run}},
		{{Name: "a", Every: time.Hour}},
		{{Name: "a", Every: time.Millisecond, Run: run}},
		slices.Repeat([]PeriodicJob{{Name: "a", Every: time.Hour, Run: run}}, 2),
	} {
		if _, err := NewJobs(openPool(t, pgtest.Database(t), 4), JobsConfig{Periodic: list}); err == nil {
			t.Errorf("%+v is accepted", list)
		}
	}
}
