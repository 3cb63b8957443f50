package bench

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// meter reads what is used by the processes of a target and by this one.
type meter struct {
	processes Processes
	database  *pgxpool.Pool
}

// newMeter finds the postmaster when it is on this machine.
func newMeter(ctx context.Context, t *Target) *meter {
	m := &meter{t.Processes, t.Database}
	if m.processes.Postgres == 0 && t.Database != nil {
		var pid int
		// A server elsewhere has other process ids: the one here is then no child of a postmaster.
		if err := t.Database.QueryRow(ctx, `select pg_backend_pid()`).Scan(&pid); err == nil {
			m.processes.Postgres, _ = parentOf(pid, "postgres")
		}
	}
	return m
}

// reading is what was used up to a moment.
type reading struct {
	at                            time.Time
	server, postgres, redis, load used
	commits                       int64
	counted                       bool // commits are known
}

// used is processor time.
type used struct {
	time  time.Duration
	known bool
}

// commitsSQL counts the transactions of the server that wrote, up to now. The statistics of a database are up to a second old.
const commitsSQL = `select pg_snapshot_xmax(pg_current_snapshot())::text::int8`

func (m *meter) read(ctx context.Context) reading {
	r := reading{at: time.Now()}
	of := func(u *used, pid int, cpu func(int) (time.Duration, bool)) {
		if pid != 0 {
			u.time, u.known = cpu(pid)
		}
	}
	of(&r.load, os.Getpid(), cpuOf)
	of(&r.server, m.processes.Server, cpuOf)
	of(&r.postgres, m.processes.Postgres, cpuOfFamily)
	of(&r.redis, m.processes.Redis, cpuOf)
	if m.database != nil {
		// Without it the figure stays away: it is no reason to end the round.
		r.counted = m.database.QueryRow(ctx, commitsSQL, pgx.QueryExecModeExec).Scan(&r.commits) == nil
	}
	return r
}

// since is what was used between two readings: by what, or by all of it for each that was done in the round.
func (r *reading) since(before *reading, round *Round) {
	seconds := r.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return
	}
	done := round.Done * seconds
	total := time.Duration(0)
	for _, one := range []struct {
		cpu           *float64
		before, after used
	}{
		{&round.CPU.Server, before.server, r.server},
		{&round.CPU.Postgres, before.postgres, r.postgres},
		{&round.CPU.Redis, before.redis, r.redis},
		{&round.CPU.Load, before.load, r.load},
	} {
		if !one.before.known || !one.after.known {
			continue
		}
		spent := one.after.time - one.before.time
		total += spent
		if done > 0 {
			*one.cpu = float64(spent.Microseconds()) / done
		}
	}
	round.CPU.Used = total.Seconds() / seconds / float64(runtime.NumCPU())
	if before.counted && r.counted {
		round.Commits = float64(r.commits-before.commits) / seconds
	}
}

// busy is the processor time that the target uses, in cores, as of two readings.
func (r *reading) busy(before *reading) float64 {
	target := func(r *reading) time.Duration { return r.server.time + r.postgres.time + r.redis.time }
	return (target(r) - target(before)).Seconds() / r.at.Sub(before.at).Seconds()
}

// Before a round the target is left alone until it uses settledCores at most for settlePeriod: what it had left to do of the
// round before, or with new events, is no part of the next. It has settleMax for it.
const (
	settledCores = 0.1
	settlePeriod = 250 * time.Millisecond
	settleMax    = 30 * time.Second
)

// settle has Postgres write down what is in its memory, so that no round pays for others' rows, and waits until the target is quiet.
func (m *meter) settle(ctx context.Context) error {
	if m.database != nil {
		if err := checkpoint(ctx, m.database); err != nil {
			return err
		}
	}
	ticker := time.NewTicker(settlePeriod)
	defer ticker.Stop()
	before := m.read(ctx)
	if !before.server.known && !before.postgres.known {
		return nil
	}
	for began := before.at; before.at.Sub(began) < settleMax; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := m.read(ctx)
		if now.busy(&before) <= settledCores {
			return nil
		}
		before = now
	}
	return nil
}

// checkpoint is left out where the role may not have one.
func checkpoint(ctx context.Context, database *pgxpool.Pool) error {
	const insufficientPrivilege = "42501"
	_, err := database.Exec(ctx, `checkpoint`)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == insufficientPrivilege {
		return nil
	}
	return err
}
