package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// hungAfter is how long an acquisition waits before it looks for who keeps it waiting, and how long a session must have
	// waited for its client to be ended.
	hungAfter = 250 * time.Millisecond
	// evictPeriod is the time between two looks.
	evictPeriod = 100 * time.Millisecond
	// evictMax bounds one look, with the connect.
	evictMax = 2 * time.Second
)

// evictSQL ends sessions that block the backends $1, directly or through others, when they are of this program and role and
// wait for their client: one that stands idle in a transaction at once, as Postgres tells since when it does. When Postgres
// began to wait in the middle of a request it does not tell. Such a session is one of the suspects $2 if it was seen waiting
// long enough, and its state has not changed since: no message of its client has come.
const evictSQL = `
with recursive blocker (pid) as (
    select unnest(pg_blocking_pids(waiting)) from unnest($1::int4[]) as w (waiting)
    union
    select unnest(pg_blocking_pids(pid)) from blocker
), hanging as (
    select pid, state, state_change, concat_ws(' ', pid, backend_start, state_change) as suspect,
        state like 'idle in transaction%' and state_change < clock_timestamp() - $3::interval as idle
    from pg_stat_activity join blocker using (pid)
    where usename = session_user and application_name = current_setting('application_name') and application_name <> ''
        and (state like 'idle in transaction%' or wait_event_type = 'Client')
)
select pid, state, clock_timestamp() - state_change, suspect,
    case when idle or suspect = any ($2::text[]) then pg_terminate_backend(pid) else false end
from hanging`

// evictor frees acquisitions from owners that hang: a process that was stopped, or lost its network, in the middle of a
// transaction keeps its locks until Postgres notices, which can take as long as the process is paused. So while
// acquisitions wait for more than hungAfter, it ends the sessions that they wait for, if those wait for their client.
// A Postgres that is merely slow is not punished: its sessions work, or wait for disks or locks.
//
// What a session that is ended had sent is rolled back, and was never acknowledged.
//
// It looks with one connection of its own, which is open only while somebody waits: the pool may have none left
// when all wait.
type evictor struct {
	connect *pgx.ConnConfig
	config  *JournalConfig
	running sync.WaitGroup

	mu      sync.Mutex
	waiting map[*lockWait]struct{} // for longer than hungAfter; no more than the pool has connections
	closed  bool
	end     context.CancelFunc // of the goroutine that serves those that wait; nil: there is none
}

// lockWait is a backend that may wait for a lock.
type lockWait struct {
	pid  uint32
	over bool
}

func newEvictor(connect *pgx.ConnConfig, config *JournalConfig) *evictor {
	return &evictor{connect: connect.Copy(), config: config, waiting: make(map[*lockWait]struct{})}
}

// watch ends sessions that block a backend for too long, until stop is called.
func (e *evictor) watch(pid uint32) (stop func()) {
	w := &lockWait{pid: pid}
	timer := time.AfterFunc(hungAfter, func() { e.add(w) })
	return func() {
		timer.Stop()
		e.mu.Lock()
		defer e.mu.Unlock()
		w.over = true
		delete(e.waiting, w)
	}
}

func (e *evictor) add(w *lockWait) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.over || e.closed {
		return
	}
	e.waiting[w] = struct{}{}
	if e.end == nil {
		ctx, end := context.WithCancel(context.Background())
		e.end = end
		e.running.Go(func() { e.run(ctx) })
	}
}

func (e *evictor) close() {
	e.mu.Lock()
	e.closed = true
	if e.end != nil {
		e.end()
	}
	e.mu.Unlock()
	e.running.Wait()
}

func (e *evictor) run(ctx context.Context) {
	ticker := time.NewTicker(evictPeriod)
	defer ticker.Stop()
	var look look
	defer look.close(e)
	for pids := e.pids(); len(pids) > 0; pids = e.pids() {
		if err := look.evict(ctx, e, pids); err != nil && ctx.Err() == nil {
			e.config.Logger.Warn("look for owners that hang", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// pids returns the backends that wait. When there are none the goroutine that asks must end.
func (e *evictor) pids() (pids []int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 || e.closed {
		e.end()
		e.end = nil
		return nil
	}
	for w := range e.waiting {
		pids = append(pids, int32(w.pid))
	}
	return pids
}

// look is a connection and what was seen with it.
type look struct {
	conn     *pgx.Conn
	suspects map[string]time.Time // when each was first seen waiting, without a pause since
	ended    map[string]bool      // those that were told to end, which can take longer than evictPeriod
}

func (l *look) evict(ctx context.Context, e *evictor, pids []int32) (err error) {
	ctx, cancel := context.WithTimeout(ctx, evictMax)
	defer cancel()
	if l.conn == nil || l.conn.IsClosed() {
		if l.conn, err = pgx.ConnectConfig(ctx, e.connect); err != nil {
			l.conn = nil
			return err
		}
	}
	var guilty []string
	for suspect, since := range l.suspects {
		if time.Since(since) >= hungAfter {
			guilty = append(guilty, suspect)
		}
	}
	now := time.Now()
	rows, err := l.conn.Query(ctx, evictSQL, pids, guilty, hungAfter)
	if err != nil {
		return err
	}
	seen, told := make(map[string]time.Time), make(map[string]bool)
	var pid int32
	var state, suspect string
	var age time.Duration
	var ended bool
	_, err = pgx.ForEachRow(rows, []any{&pid, &state, &age, &suspect, &ended}, func() error {
		if l.ended[suspect] {
			told[suspect] = true
			return nil
		}
		if ended {
			told[suspect] = true
			e.config.Metrics.evictions.Inc()
			e.config.Logger.Warn("ended a session that hangs with a lock", "pid", pid, "state", state, "since", age)
			return nil
		}
		since, known := l.suspects[suspect]
		if !known {
			since = now
		}
		seen[suspect] = since
		return nil
	})
	l.suspects, l.ended = seen, told
	return err
}

func (l *look) close(e *evictor) {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.conn.Close(ctx); err != nil {
		e.config.Logger.Debug("close the evictor's connection", "error", err)
	}
}
