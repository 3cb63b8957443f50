package store

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

// heard is what a listener was told.
type heard struct {
	t        *testing.T
	listener *Listener
	metrics  *Metrics
	signals  chan string
}

// listen runs a listener, named as its connection is in pg_stat_activity, until the test ends.
func listen(t *testing.T, url string) *heard {
	t.Helper()
	h := &heard{t: t, signals: make(chan string, 10_000), metrics: NewMetrics(prometheus.NewRegistry())}
	h.run(openPool(t, with(url, "application_name=listener"), 4), Handlers{
		SessionEnded: func(id evently.SessionID) { h.signals <- fmt.Sprintf("session %x", id) },
		EventChanged: func(id evently.EventID) { h.signals <- "event " + id.String() },
		Resumed:      func() { h.signals <- "resumed" },
	})
	h.expect("resumed")
	return h
}

func (h *heard) run(pool *pgxpool.Pool, handlers Handlers) {
	h.listener = NewListener(pool, handlers, discard, h.metrics)
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.listener.Run(ctx)
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
		if ok, _ := h.listener.Reachable(); ok {
			h.t.Error("reachable after the end")
		}
	})
}

// expect waits for these signals, in any order, and for no other.
func (h *heard) expect(want ...string) {
	h.t.Helper()
	var got []string
	for len(got) < len(want) {
		got = append(got, h.next())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		h.t.Errorf("heard %q, want %q", got, want)
	}
}

func (h *heard) next() string {
	h.t.Helper()
	select {
	case signal := <-h.signals:
		return signal
	case <-time.After(30 * time.Second):
		h.t.Fatal("heard nothing for 30 s")
		return ""
	}
}

// Signals arrive in the order of commits, so one that comes where another is expected is heard.
func TestListener_HearsWhatChanges(t *testing.T) {
	b := newBench(t, JournalConfig{})
	h := listen(t, b.pool.Config().ConnString())
	o := b.acquire(b.event(10))
	event := o.Ledger.Event()
	h.expect("event " + event.ID.String())
	o.book(evently.Item{Quantity: 1})
	o.MustFlush() // of which nothing is signalled
	details := event.EventDetails
	details.Name = "Concert, again"
	o.decide(&evently.Revise{Version: 1, Details: details}, o.Now)
	o.book(evently.Item{Quantity: 1})
	o.MustFlush()
	h.expect("event " + event.ID.String())

	draft := newEvent(5)
	draft.Status = evently.EventDraft
	if _, err := b.events.CreateEvent(t.Context(), draft, 1, "create"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.events.CreateEvent(t.Context(), draft, 1, "again"); err != nil { // changes nothing
		t.Fatal(err)
	}
	if err := b.events.DeleteDraft(t.Context(), draft.ID, 1, "delete"); err != nil {
		t.Fatal(err)
	}
	h.expect("event "+draft.ID.String(), "event "+draft.ID.String())

	accounts, now := NewAccounts(b.pool, nil), time.Now()
	user, origin := &evently.User{ID: 7, Email: "zoe@example.org", CreatedAt: now}, &evently.Origin{At: now}
	if err := accounts.CreateUser(t.Context(), user, nil, origin); err != nil {
		t.Fatal(err)
	}
	signIn := func() evently.SessionID {
		session := &evently.Session{User: user.ID, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(time.Hour)}
		for i := range session.ID {
			session.ID[i] = byte(mathrand.Uint32())
		}
		if _, _, err := accounts.CreateSession(t.Context(), session, [32]byte{1}, "", origin); err != nil {
			t.Fatal(err)
		}
		return session.ID
	}
	revoked, stolen := signIn(), signIn()
	if _, _, err := accounts.RotateSession(t.Context(), stolen, [32]byte{1}, [][32]byte{{2}}, origin); err != nil { // ends nothing
		t.Fatal(err)
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, revoked, origin); err != nil {
		t.Fatal(err)
	}
	h.expect(fmt.Sprintf("session %x", revoked))
	if _, _, err := accounts.RotateSession(t.Context(), stolen, [32]byte{1}, [][32]byte{{3}}, origin); err == nil {
		t.Fatal("a spent token was good")
	}
	h.expect(fmt.Sprintf("session %x", stolen))
}

func TestListener_HearsEachOfManyRows(t *testing.T) {
	b := newBench(t, JournalConfig{})
	h := listen(t, b.pool.Config().ConnString())
	const rows = 500
	if _, err := b.pool.Exec(t.Context(), `
insert into users values (7, 'zoe@example.org', '', 0, '', true, now());
insert into sessions (session_id, user_id, created_at, last_used_at, expires_at, user_agent, ip, refresh, revoked_at)
select md5(i::text)::uuid, 7, now(), now(), now(), '', '', '', case when i > 500 then now() end from generate_series(1, 600) i;
update sessions set revoked_at = now();
update sessions set revoked_at = now();
notify evently_signals, 'event_changed 5'`); err != nil {
		t.Fatal(err)
	}
	sessions := make(map[string]bool)
	last := h.next()
	for ; last != "event "+evently.EventID(5).String(); last = h.next() {
		sessions[last] = true
	}
	if len(sessions) != rows {
		t.Errorf("heard of %d sessions, want %d", len(sessions), rows)
	}
}

// A later version sends what this one does not know.
func TestListener_IgnoresWhatItDoesNotKnow(t *testing.T) {
	b := newBench(t, JournalConfig{})
	h := listen(t, b.pool.Config().ConnString())
	for _, payload := range []string{
		"", "price_changed 5", "event_changed", "event_changed x", "session_ended 5", "event_changed 99999999999999999999",
		"event_changed -1 with more to it", "session_ended 00000000-0000-0000-0000-0000000000ff later",
	} {
		if _, err := b.pool.Exec(t.Context(), "select pg_notify('evently_signals', $1)", payload); err != nil {
			t.Fatal(err)
		}
	}
	h.expect("event "+evently.EventID(1<<64-1).String(), fmt.Sprintf("session %x", evently.SessionID{15: 0xff}))
	for kind, want := range map[string]float64{sessionEndedSignal: 1, eventChangedSignal: 1, unknownSignal: 6} {
		if got := testutil.ToFloat64(h.metrics.signals.WithLabelValues(kind)); got != want {
			t.Errorf("%v signals %s, want %v", got, kind, want)
		}
	}
}

const listenersSQL = `select pg_terminate_backend(pid) from pg_stat_activity
	where application_name = 'listener' and datname = current_database()`

func TestListener_ResumesWhenItsConnectionIsLost(t *testing.T) {
	b := newBench(t, JournalConfig{})
	h := listen(t, b.pool.Config().ConnString())
	for range 3 {
		if _, err := b.pool.Exec(t.Context(), listenersSQL); err != nil {
			t.Fatal(err)
		}
		h.expect("resumed")
		h.expectReachable(true)
		event := b.event(10)
		h.expect("event " + event.String())
	}
}

// Events are created while the connection is lost again and again. Each is either seen when the listener resumes, or
// signalled later.
func TestListener_LosesNoChange(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	h := &heard{t: t, metrics: NewMetrics(prometheus.NewRegistry())}
	known := make(chan evently.EventID, 100_000)
	h.run(openPool(t, with(b.pool.Config().ConnString(), "application_name=listener"), 4), Handlers{
		EventChanged: func(id evently.EventID) { known <- id },
		Resumed: func() {
			for _, id := range b.eventIDs() {
				known <- id
			}
		},
	})
	missing := make(map[evently.EventID]bool)
	for i := range 60 {
		missing[b.event(1)] = true
		if i%5 == 0 {
			if _, err := b.pool.Exec(t.Context(), listenersSQL); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.After(30 * time.Second); i%6 == 0 && len(missing) > 0; {
			select {
			case id := <-known:
				delete(missing, id)
			case <-deadline:
				t.Fatalf("never heard of %d of %d events", len(missing), i+1)
			}
		}
	}
}

func (b *bench) eventIDs() (ids []evently.EventID) {
	b.Helper()
	var id int64
	rows, err := b.pool.Query(context.WithoutCancel(b.Context()), "select event_id from events")
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
			ids = append(ids, evently.EventID(id))
			return nil
		})
	}
	if err != nil {
		b.Error(err)
	}
	return ids
}

// expectReachable waits until the listener says so.
func (h *heard) expectReachable(want bool) (since time.Time) {
	h.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, since := h.listener.Reachable()
		if ok == want {
			if gauge := testutil.ToFloat64(h.metrics.reachable); (gauge == 1) != want {
				h.t.Errorf("the gauge is %v", gauge)
			}
			return since
		}
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("reachable is %v after 30 s", ok)
		}
	}
}

func TestListener_TellsWhetherPostgresAnswers(t *testing.T) {
	var config embedded.Config
	server := pgtest.Private(t, func(c *embedded.Config) { config = *c })
	if err := Migrate(t.Context(), server.DSN(), discard); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	h := listen(t, server.DSN())
	up := h.expectReachable(true)
	if up.Before(before) {
		t.Errorf("reachable since %v, before it began", up)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	down := h.expectReachable(false)
	again, err := embedded.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.StopImmediate(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	h.expect("resumed")
	if since := h.expectReachable(true); !up.Before(down) || !down.Before(since) {
		t.Errorf("up at %v, down at %v, up again at %v", up, down, since)
	}
}

// A Postgres that takes no notice is as good as none: pings have a bound. Not parallel: while a backend hangs, databases of other tests
// cannot be dropped.
func TestListener_DoesNotWaitForAPostgresThatHangs(t *testing.T) {
	b := newBench(t, JournalConfig{})
	h := listen(t, b.pool.Config().ConnString())
	rows, err := b.pool.Query(t.Context(), "select pid from pg_stat_activity where application_name = 'listener' and datname = current_database()")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(pids) == 0 {
		t.Fatalf("backends %v, %v", pids, err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}()
	}
	h.expectReachable(false)
	h.expect("resumed") // on a connection of its own
	h.expect(fmt.Sprint("event ", b.event(1)))
}
