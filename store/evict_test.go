package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

const lockHead = "select from event_heads where event_id = $1 for update"

// session opens a connection like those of a program, with settings of its own, and begins a transaction.
func (b *bench) session(settings ...string) (*pgx.Conn, pgx.Tx) {
	b.Helper()
	url := b.pool.Config().ConnString()
	for _, setting := range settings {
		url = with(url, setting)
	}
	config, err := ConnConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	tx, err := conn.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return conn, tx
}

func (b *bench) evictions() int { return int(testutil.ToFloat64(b.journal.config.Metrics.evictions)) }

// mustEvict acquires an event behind hanging sessions. Nothing else frees its head within the test's time.
func (b *bench) mustEvict(event evently.EventID, want int) *owner {
	b.Helper()
	b.journal.lockWait = time.Minute
	began := time.Now()
	fresh := b.acquire(event)
	b.Logf("acquired after %v", time.Since(began))
	b.journal.evictor.running.Wait() // it counts afterwards
	if got := b.evictions(); got != want {
		b.Errorf("evicted %d sessions, want %d", got, want)
	}
	return fresh
}

const neverIdle = "idle_in_transaction_session_timeout=0"

func TestAcquire_EvictsWhoStandsIdleInATransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	event := b.event(10)
	_, tx := b.session(neverIdle)
	if _, err := tx.Exec(t.Context(), lockHead, int64(event)); err != nil {
		t.Fatal(err)
	}
	b.mustEvict(event, 1)
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the session goes on")
	}
}

// The same after an error, which keeps the locks.
func TestAcquire_EvictsWhoStandsIdleInAFailedTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	event := b.event(10)
	_, tx := b.session(neverIdle)
	if _, err := tx.Exec(t.Context(), "savepoint before"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table event_heads"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "release before"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "savepoint later"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select 1 / 0"); err == nil {
		t.Fatal("no error")
	}
	b.mustEvict(event, 1)
}

// A node is stopped while it sends a batch: the statement has arrived and has been carried out, the Sync that would commit it
// has not. The batch was never acknowledged, and is gone.
func TestAcquire_EvictsAnOwnerThatStoppedBeforeItsSync(t *testing.T) {
	t.Parallel()
	b, stopped, wire := newStoppable(t)
	old := stopped.acquire(b.event(10))
	old.book(evently.Item{Quantity: 1})
	old.MustFlush()
	wire.withoutSync.Store(true)
	old.book(evently.Item{Quantity: 1})
	batch, outcome := old.Take()
	if err := stopped.journal.Append(batch); err != nil {
		t.Fatal(err)
	}
	b.waitFor("a statement that waits for its Sync",
		"select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'ClientRead' and state = 'active'")
	fresh := b.mustEvict(old.Ledger.Event().ID, 1)
	if live := fresh.Ledger.Live(); live != 1 {
		t.Errorf("loaded %d reservations, want the acknowledged one", live)
	}
	if err := storetest.Await(t, outcome); !errors.Is(err, evently.ErrOutcomeUnknown) {
		t.Errorf("the stopped owner was told %v, want %v", err, evently.ErrOutcomeUnknown)
	}
	wire.withoutSync.Store(false)
	old.book(evently.Item{Quantity: 1})
	if err := old.Flush(); !errors.Is(err, evently.ErrFenced) {
		t.Errorf("the stopped owner got %v, want %v", err, evently.ErrFenced)
	}
	b.verify()
}

// The head is held by one who works and waits for the next, and so on: only the last one hangs.
func TestAcquire_EvictsTheEndOfAChain(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	first, second, third := b.event(10), b.event(10), b.event(10)
	_, hung := b.session(neverIdle)
	if _, err := hung.Exec(t.Context(), lockHead, int64(third)); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 2)
	for _, links := range [][]evently.EventID{{second, third}, {first, second}} {
		_, tx := b.session(neverIdle)
		if _, err := tx.Exec(t.Context(), lockHead, int64(links[0])); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := tx.Exec(context.WithoutCancel(t.Context()), lockHead, int64(links[1]))
			results <- errors.Join(err, tx.Commit(context.WithoutCancel(t.Context())))
		}()
	}
	b.mustEvict(first, 1)
	for range cap(results) {
		if err := storetest.Await(t, results); err != nil {
			t.Errorf("one who only waited: %v", err)
		}
	}
}

func TestAcquire_EvictsNobodyElse(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	execAt(t, url, "create role evently_other superuser login")
	defer execAt(t, url, "drop role evently_other")
	for name, c := range map[string]struct {
		settings []string
		busy     bool // works, instead of waiting for its client
	}{
		"another program":             {settings: []string{"application_name=psql"}},
		"another role":                {settings: []string{"user=evently_other"}},
		"one whose statement is slow": {busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := benchOn(t, openPool(t, url, 4), JournalConfig{})
			b.journal.lockWait = 3 * hungAfter
			event := b.event(10)
			conn, tx := b.session(append(c.settings, neverIdle)...)
			defer conn.Close(context.WithoutCancel(t.Context()))
			if _, err := tx.Exec(t.Context(), lockHead, int64(event)); err != nil {
				t.Fatal(err)
			}
			working, stop := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() {
				var err error
				if c.busy {
					_, err = tx.Exec(working, "select pg_sleep(60)")
				}
				result <- err
			}()
			_, err := b.journal.Acquire(t.Context(), event)
			if !errors.Is(err, evently.ErrUnavailable) || errors.Is(err, evently.ErrFenced) {
				t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
			}
			if alive := b.count("select count(*) from pg_stat_activity where pid = $1", int64(conn.PgConn().PID())); alive != 1 || b.evictions() != 0 {
				t.Errorf("the session's backends: %d, evicted: %d", alive, b.evictions())
			}
			stop()
			if err := storetest.Await(t, result); c.busy != errors.Is(err, context.Canceled) {
				t.Errorf("the session got %v", err)
			}
		})
	}
}

// The node that is stopped is itself acquiring. It has no lock that others wait for.
func TestAcquire_StoppedBetweenItsPhasesBlocksNobody(t *testing.T) {
	b, stopped, wire := newStoppable(t)
	event := b.event(10)
	stopped.acquire(event) // the connection has its statements
	resume := wire.stop()
	result := make(chan error, 1)
	go func() {
		_, err := stopped.journal.Acquire(context.WithoutCancel(t.Context()), event)
		result <- err
	}()
	b.waitFor("first phase", "select count(*) from event_heads where epoch = 2")
	fresh := b.mustEvict(event, 0)
	resume()
	if err := storetest.Await(t, result); !errors.Is(err, evently.ErrFenced) || !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("the stopped one got %v, want %v and %v", err, evently.ErrUnavailable, evently.ErrFenced)
	}
	if fresh.Epoch != 3 {
		t.Errorf("epoch %d, want 3", fresh.Epoch)
	}
	fresh.book(evently.Item{Quantity: 1})
	fresh.MustFlush()
}

// Its snapshot is from before the others, so it loads what there was then, and is fenced.
func TestAcquire_StoppedWhileLoadingBlocksNobody(t *testing.T) {
	b, stopped, wire := newStoppable(t)
	event := b.event(10)
	conn, err := stopped.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	var owned *head
	for range 2 { // the first time the connection prepares its statements
		if owned, err = stopped.journal.takeHead(t.Context(), conn.Conn(), event); err != nil {
			t.Fatal(err)
		}
		if owned.epoch == 1 {
			if _, err := load(t.Context(), conn.Conn(), owned); err != nil {
				t.Fatal(err)
			}
		}
	}
	resume := wire.stop()
	result := make(chan error, 1)
	var old loaded
	go func() {
		var err error
		old, err = load(context.WithoutCancel(t.Context()), conn.Conn(), owned)
		result <- err
	}()
	b.waitFor("second phase", fmt.Sprintf("select count(*) from pg_stat_activity where pid = %d and state = 'idle' and query = 'commit'",
		conn.Conn().PgConn().PID()))
	fresh := b.mustEvict(event, 0)
	fresh.book(evently.Item{Quantity: 1})
	fresh.MustFlush()
	resume()
	if err := storetest.Await(t, result); err != nil || old.ledger.Live() != 0 {
		t.Fatalf("the stopped one: %v, want the event without the booking", err)
	}
	outcome := make(chan error, 1)
	if err := stopped.journal.Append(&evently.Batch{
		Event: event, Epoch: owned.epoch, Owner: owned.owner, PrevSeq: old.ledger.Seq(), Done: func(_ time.Time, err error) { outcome <- err },
	}); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Await(t, outcome); !errors.Is(err, evently.ErrFenced) {
		t.Errorf("the stopped one got %v, want %v", err, evently.ErrFenced)
	}
}

// newStoppable returns a bench, and one on the same database whose node can be stopped.
func newStoppable(t *testing.T) (b, stopped *bench, w *wire) {
	t.Helper()
	url := pgtest.Database(t)
	w = new(wire)
	stopped = benchOn(t, openWire(t, url, w), JournalConfig{Writers: 1, Timeout: time.Minute})
	return benchOn(t, openPool(t, url, 8), JournalConfig{}), stopped, w
}
