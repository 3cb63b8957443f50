package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

// bench is a journal on a fresh database.
type bench struct {
	testing.TB
	pool    *pgxpool.Pool
	journal *Journal
	events  *Catalogue
}

func newBench(t testing.TB, config JournalConfig) *bench {
	t.Helper()
	return benchOn(t, openPool(t, pgtest.Database(t), 8), config)
}

func benchOn(t testing.TB, pool *pgxpool.Pool, config JournalConfig) *bench {
	t.Helper()
	config.Logger = slog.New(slog.DiscardHandler)
	config.Metrics = NewMetrics(prometheus.NewRegistry())
	journal := OpenJournal(pool, config)
	t.Cleanup(journal.Close)
	return &bench{t, pool, journal, NewCatalogue(pool)}
}

// event stores a published event with tiers of these capacities.
func (b *bench) event(capacities ...int) evently.EventID {
	b.Helper()
	event := newEvent(capacities...)
	if _, err := b.events.CreateEvent(b.Context(), event, 1, "create"); err != nil {
		b.Fatal(err)
	}
	return event.ID
}

// newEvent returns a published event with tiers of these capacities.
func newEvent(capacities ...int) *evently.Event {
	now := time.Now().UTC().Truncate(time.Millisecond)
	event := &evently.Event{
		ID: evently.EventID(mathrand.Uint64() | 1), Organizer: 1, Status: evently.EventPublished, Version: 1, CreatedAt: now,
		EventDetails: evently.EventDetails{
			Name: "Concert", Timezone: "Europe/Berlin", Currency: "EUR", StartsAt: now.Add(24 * time.Hour), EndsAt: now.Add(26 * time.Hour),
			HoldTTL: time.Minute, MaxPerBooking: 10,
		},
	}
	for i, capacity := range capacities {
		event.Tiers = append(event.Tiers, evently.Tier{Name: fmt.Sprint("tier ", i), Capacity: capacity, BasePriceMinor: 1000, PriceMinor: 1200})
	}
	return event
}

// owner is an office of the bench.
type owner struct {
	*bench
	*storetest.Office
}

func (b *bench) acquire(event evently.EventID) *owner {
	b.Helper()
	return &owner{b, storetest.OpenOffice(b.TB, b.journal, event)}
}

func (o *owner) decide(command evently.Command, at time.Time) evently.Reservation {
	o.Helper()
	return o.Decide(command, at)
}

func (o *owner) book(items ...evently.Item) evently.Reservation {
	o.Helper()
	return o.Book(7, o.Now, items...)
}

// verify expects the journal and the rows to agree.
func (b *bench) verify() {
	b.Helper()
	if differences := b.differences(); len(differences) > 0 {
		b.Errorf("differences: %v", differences)
	}
}

func (b *bench) differences() (list []string) {
	b.Helper()
	if _, err := Verify(context.WithoutCancel(b.Context()), b.pool, func(d Difference) { list = append(list, fmt.Sprintf("%+v", d)) }); err != nil {
		b.Fatal(err)
	}
	return list
}

func (b *bench) count(sql string, args ...any) (n int) {
	b.Helper()
	if err := b.pool.QueryRow(b.Context(), sql, args...).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

// One transaction of many events, of which one is fenced and one is damaged: the others are written.
func TestJournal_OnlyTheFencedAndTheDamagedDropOut(t *testing.T) {
	b := newBench(t, JournalConfig{Writers: 1})
	release := b.stall()
	var outcomes []<-chan error
	for i := range 10 {
		o := b.acquire(b.event(5))
		o.book(evently.Item{Quantity: 1})
		if i == 3 {
			b.acquire(o.Ledger.Event().ID)
		}
		batch, outcome := o.Take()
		if i == 6 {
			batch.Tiers = []evently.TierAvailability{{Capacity: 5, Held: 6}}
		}
		if err := b.journal.Append(batch); err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, outcome)
	}
	release()
	for i, outcome := range outcomes {
		want := map[int]error{3: evently.ErrFenced, 6: evently.ErrNotWritten}[i]
		if err := storetest.Await(b.TB, outcome); !errors.Is(err, want) {
			t.Errorf("event %d: got %v, want %v", i, err, want)
		}
	}
	if n := b.count("select count(*) from reservations"); n != 9 {
		t.Errorf("%d reservations, want 8 and the one of the stall", n)
	}
	b.verify()
}

// stall occupies the only writer with a batch that waits for a row lock, so that the batches that follow gather.
func (b *bench) stall() (release func()) {
	b.Helper()
	o := b.acquire(b.event(1))
	tx := b.begin("select from event_heads where event_id = $1 for update", int64(o.Ledger.Event().ID))
	o.book(evently.Item{Quantity: 1})
	batch, outcome := o.Take()
	if err := b.journal.Append(batch); err != nil {
		b.Fatal(err)
	}
	b.waitFor("a writer that waits for a lock", "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()")
	return func() {
		if err := tx.Rollback(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := storetest.Await(b.TB, outcome); err != nil {
			b.Fatal(err)
		}
	}
}

// waitFor polls the database until a count is above zero.
func (b *bench) waitFor(what, sql string) {
	b.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for b.count(sql) == 0 {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("no %s after 30 s", what)
		}
	}
}

func TestJournal_FullQueueIsOverloaded(t *testing.T) {
	b := newBench(t, JournalConfig{Writers: 1, QueueMax: 1})
	release := b.stall()
	first, second := b.acquire(b.event(1)), b.acquire(b.event(1))
	first.book(evently.Item{Quantity: 1})
	second.book(evently.Item{Quantity: 1})
	batch, outcome := first.Take()
	if err := b.journal.Append(batch); err != nil {
		t.Fatal(err)
	}
	if err := second.Flush(); !errors.Is(err, evently.ErrOverloaded) {
		t.Errorf("got %v, want %v", err, evently.ErrOverloaded)
	}
	release()
	if err := storetest.Await(b.TB, outcome); err != nil {
		t.Error(err)
	}
}

// The connection breaks after the statement was sent and before its answer is read, once with the commit done and once
// with the commit still to come. In both cases Acquire settles it for good.
func TestJournal_UnknownOutcomeIsSettledByAcquire(t *testing.T) {
	t.Parallel()
	t.Run("committed", func(t *testing.T) {
		wire := new(wire)
		b := benchOn(t, openWire(t, pgtest.Database(t), wire), JournalConfig{})
		o := b.acquire(b.event(10))
		o.book(evently.Item{Quantity: 1})
		o.MustFlush() // the writer has its connection
		held := o.book(evently.Item{Quantity: 1})
		wire.cut.Store(true)
		if err := o.Flush(); !errors.Is(err, evently.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, evently.ErrOutcomeUnknown)
		}
		wire.cut.Store(false)
		again := b.acquire(o.Ledger.Event().ID)
		if _, found := again.Ledger.Reservation(held.ID.Token); !found || again.Ledger.Seq() != o.Ledger.Seq() {
			t.Errorf("found=%v seq %d, want the committed reservation at seq %d", found, again.Ledger.Seq(), o.Ledger.Seq())
		}
		b.verify()
	})
	// The backend of the broken connection holds the head's lock and goes on once it can: Acquire waits for its end.
	t.Run("commits late", func(t *testing.T) {
		b, o, held := newAbandoned(t)
		tx := b.begin(`insert into reservations select event_id, $1, user_id, status, tier, quantity, unit_price, more, created_at,
			expires_at, confirmed_at, ended_at, created_seq, confirmed_seq, seq, null from reservations`, int64(held.ID.Token))
		if err := o.Flush(); !errors.Is(err, evently.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, evently.ErrOutcomeUnknown)
		}
		acquired := make(chan *evently.Tenure, 1)
		go func() {
			tenure, err := b.journal.Acquire(context.WithoutCancel(t.Context()), o.Ledger.Event().ID)
			if err != nil {
				t.Error(err)
			}
			acquired <- tenure
		}()
		b.waitFor("Acquire that waits", "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"+
			" and query like '%epoch = epoch + 1%'")
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tenure := <-acquired; tenure == nil || tenure.Ledger.Live() != 2 || b.count("select count(*) from reservations") != 2 {
			t.Errorf("acquired %+v, want the reservation that was committed late", tenure)
		}
		b.verify()
	})
	// The backend of the broken connection has not come to the head yet: Acquire fences it.
	t.Run("comes too late", func(t *testing.T) {
		b, o, _ := newAbandoned(t)
		tx := b.begin("lock table journal in exclusive mode")
		if err := o.Flush(); !errors.Is(err, evently.ErrOutcomeUnknown) {
			t.Fatalf("got %v, want %v", err, evently.ErrOutcomeUnknown)
		}
		again := b.acquire(o.Ledger.Event().ID)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		again.MustFlush()
		if again.Ledger.Live() != 1 || b.count("select count(*) from reservations") != 1 {
			t.Errorf("%d live, want the first reservation alone", again.Ledger.Live())
		}
		b.verify()
	})
}

// newAbandoned returns an owner whose writer gives up soon, with one reservation stored and one decided.
func newAbandoned(t *testing.T) (*bench, *owner, evently.Reservation) {
	t.Helper()
	b := newBench(t, JournalConfig{Writers: 1, Timeout: 300 * time.Millisecond})
	o := b.acquire(b.event(10))
	o.book(evently.Item{Quantity: 1})
	o.MustFlush() // the writer has its connection
	return b, o, o.book(evently.Item{Quantity: 1})
}

// begin opens a transaction with a statement; it is rolled back at the latest when the test ends.
func (b *bench) begin(sql string, args ...any) pgx.Tx {
	b.Helper()
	tx, err := b.pool.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(b.Context(), sql, args...); err != nil {
		b.Fatal(err)
	}
	return tx
}

// Two owners sell the last seat, each unaware of the other. The epoch decides. Without the fence, and without the journal's
// primary key, which is a second one, both succeed and the event is oversold: so this test can fail.
func TestFence_WithoutItAnEventIsOversold(t *testing.T) {
	seat := evently.Item{Quantity: 1}
	for _, c := range []struct {
		statement, sql string
		sell           func(o *owner, user evently.UserID)
	}{
		{appendHoldsStatement, appendHoldsSQL, func(o *owner, user evently.UserID) { o.Book(user, o.Now, seat) }},
		{appendStatement, appendSQL, func(o *owner, user evently.UserID) {
			o.decide(&evently.Confirm{User: user, Token: o.Book(user, o.Now, seat).ID.Token}, o.Now)
		}},
		{appendWaitlistStatement, appendWaitlistSQL, func(o *owner, user evently.UserID) {
			o.Book(user, o.Now, seat)
			o.Join(user, o.Now, evently.BookOnRelease, seat)
		}},
	} {
		for _, fenced := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s fenced=%v", c.statement, fenced), func(t *testing.T) {
				b := newBench(t, JournalConfig{Writers: 1})
				if _, err := b.pool.Exec(t.Context(), "alter table journal drop constraint journal_pkey"); err != nil {
					t.Fatal(err)
				}
				if !fenced {
					const fence = " and h.epoch = b.epoch and h.owner = b.owner and h.seq = b.prev_seq"
					if strings.Count(c.sql, fence) != 1 {
						t.Fatal("the fence is not where this test looks for it")
					}
					// The others raise an error, so that a batch which took another statement would be seen.
					for name := range b.journal.writers[0].statements {
						b.journal.writers[0].statements[name] = "select raise_error('EV001', 'not this one')"
					}
					b.journal.writers[0].statements[c.statement] = strings.Replace(c.sql, fence, "", 1)
				}
				old := b.acquire(b.event(1))
				fresh := b.acquire(old.Ledger.Event().ID)
				c.sell(old, 1)
				c.sell(fresh, 2)
				oldErr, freshErr := old.Flush(), fresh.Flush()
				sold := b.count("select count(*) from reservations")
				if fenced && (sold != 1 || !errors.Is(oldErr, evently.ErrFenced) || freshErr != nil) {
					t.Errorf("sold %d of 1; old owner: %v, fresh owner: %v", sold, oldErr, freshErr)
				}
				if !fenced && (sold != 2 || oldErr != nil || freshErr != nil || len(b.differences()) == 0) {
					t.Errorf("removed the fence and saw no damage: sold %d of 1; old owner: %v, fresh owner: %v", sold, oldErr, freshErr)
				}
			})
		}
	}
}

// Postgres goes away and comes back: what was acknowledged is there, what comes meanwhile is refused, and the journal
// works again by itself.
func TestJournal_OutlivesARestartOfPostgres(t *testing.T) {
	server := pgtest.Private(t)
	if err := Migrate(t.Context(), server.DSN(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	pool, err := Open(t.Context(), server.DSN(), PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := benchOn(t, pool, JournalConfig{})
	o := b.acquire(b.event(10))
	kept := o.book(evently.Item{Quantity: 1})
	o.MustFlush()
	if err := server.Restart(t.Context(), embedded.Immediate); err != nil {
		t.Fatal(err)
	}
	o.book(evently.Item{Quantity: 1})
	if err := o.Flush(); !errors.Is(err, evently.ErrOutcomeUnknown) && !errors.Is(err, evently.ErrNotWritten) {
		t.Errorf("append on a connection that the restart broke: %v", err)
	}
	// The pool's idle connections are broken as well; each costs one try.
	for tries := 0; ; tries++ {
		tenure, err := b.journal.Acquire(t.Context(), o.Ledger.Event().ID)
		if err == nil {
			o = &owner{b, storetest.OpenOffice(t, b.journal, tenure.Ledger.Event().ID)}
			break
		}
		if !errors.Is(err, evently.ErrUnavailable) || tries > int(pool.Config().MaxConns) {
			t.Fatalf("acquire after the restart, try %d: %v", tries, err)
		}
	}
	again := o
	if _, found := again.Ledger.Reservation(kept.ID.Token); !found || again.Ledger.Live() != 1 {
		t.Errorf("found=%v live=%d, want the acknowledged reservation alone", found, again.Ledger.Live())
	}
	again.book(evently.Item{Quantity: 1})
	again.MustFlush()
	b.verify()
}

func TestJournal_DueListsWhatNobodyServes(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(10))
	o.book(evently.Item{Quantity: 1})
	o.MustFlush()
	if _, err := b.pool.Exec(t.Context(), "update event_heads set next_due = next_due - interval '2 min'"); err != nil {
		t.Fatal(err)
	}
	b.acquire(b.event(10)).MustFlush()
	got, err := b.journal.Due(t.Context(), time.Second, 10)
	if err != nil || len(got) != 1 || got[0] != o.Ledger.Event().ID {
		t.Errorf("got %v %v, want event %v", got, err, o.Ledger.Event().ID)
	}
}

// A key whose time is over must not make its event refuse everything, even if the job that clears keys stands still.
func TestJournal_AcquireClearsOverdueKeys(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(10))
	book := &evently.Book{User: 7, Key: evently.Key{Hi: 5}, Items: evently.OneItem(evently.Item{Quantity: 1}), Token: 5}
	o.decide(book, o.Now)
	o.decide(&evently.Release{User: 7, Token: 5}, o.Now)
	o.MustFlush()
	if _, err := b.pool.Exec(t.Context(), "update reservations set ended_at = ended_at - interval '27 hours'"); err != nil {
		t.Fatal(err)
	}
	again := b.acquire(o.Ledger.Event().ID)
	book.Token = 6
	again.decide(book, again.Now)
	again.MustFlush()
	if n := b.count("select count(*) from reservations"); n != 2 {
		t.Errorf("%d reservations, want the old one and a new one", n)
	}
}

// The same of the keys of waiters. One whose offer is still held is known all the same.
func TestJournal_AcquireClearsOverdueKeysOfWaiters(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(2))
	held := o.book(evently.Item{Quantity: 2})
	join := &evently.JoinWaitlist{User: 1, Key: evently.Key{Hi: 5}, Items: evently.OneItem(evently.Item{Quantity: 1}), Token: 5}
	o.decide(join, o.Now)
	o.decide(&evently.LeaveWaitlist{User: 1}, o.Now)
	offered := o.Join(2, o.Now, evently.HoldOnRelease, evently.Item{Quantity: 2})
	o.decide(&evently.Release{User: 7, Token: held.ID.Token}, o.Now)
	o.MustFlush()
	if _, err := b.pool.Exec(t.Context(), "update waitlist set joined_at = joined_at - interval '27 hours', ended_at = ended_at - interval '27 hours'"); err != nil {
		t.Fatal(err)
	}
	again := b.acquire(o.Ledger.Event().ID)
	if _, found := again.Ledger.Waiter(5); found {
		t.Error("one who left 27 hours ago is known")
	}
	if _, found := again.Ledger.Waiter(offered.ID.Token); !found {
		t.Error("one whose offer is held is not known")
	}
	join.Token = 6
	again.decide(join, again.Now)
	again.MustFlush()
	if n := b.count("select count(*) from waitlist where key is not null"); n != 1 {
		t.Errorf("%d keys, want the one that was used again", n)
	}
}

// Seats that go from one to another, and those who wait for them: after a batch whose outcome nobody knows the next owner finds
// all of it, or nothing.
func TestJournal_UnknownOutcomeLosesNoWaiter(t *testing.T) {
	t.Parallel()
	for _, committed := range []bool{true, false} {
		t.Run(fmt.Sprintf("committed=%v", committed), func(t *testing.T) {
			wire := new(wire)
			b := benchOn(t, openWire(t, pgtest.Database(t), wire), JournalConfig{Writers: 1, Timeout: time.Second})
			o := b.acquire(b.event(2))
			first, second := o.book(evently.Item{Quantity: 1}), o.book(evently.Item{Quantity: 1})
			waits := o.Join(1, o.Now, evently.BookOnRelease, evently.Item{Quantity: 1})
			o.MustFlush()
			o.decide(&evently.Release{User: 7, Token: first.ID.Token}, o.Now)
			joins := o.Join(2, o.Now, evently.HoldOnRelease, evently.Item{Quantity: 1})
			o.decide(&evently.Release{User: 7, Token: second.ID.Token}, o.Now)
			more := o.Join(1, o.Now, evently.HoldOnRelease, evently.Item{Quantity: 2})
			release := func() {}
			if committed {
				wire.cut.Store(true)
			} else {
				tx := b.begin("lock table journal in exclusive mode")
				release = func() {
					if err := tx.Rollback(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := o.Flush(); !errors.Is(err, evently.ErrOutcomeUnknown) {
				t.Fatalf("got %v, want %v", err, evently.ErrOutcomeUnknown)
			}
			wire.cut.Store(false)
			again := b.acquire(o.Ledger.Event().ID)
			release()
			again.MustFlush()
			statuses := make(map[evently.WaiterStatus]int)
			for _, waiter := range []evently.Waiter{waits, joins, more} {
				if known, found := again.Ledger.Waiter(waiter.ID.Token); found {
					statuses[known.Status]++
				}
			}
			want := map[evently.WaiterStatus]int{evently.Waiting: 1}
			if committed {
				want = map[evently.WaiterStatus]int{evently.Served: 2, evently.Waiting: 1}
			}
			if !maps.Equal(statuses, want) || again.Ledger.Waiting() != 1 || again.Ledger.Live() != 2 {
				t.Errorf("waiters %v, %d live; want %v and 2", statuses, again.Ledger.Live(), want)
			}
			b.verify()
		})
	}
}
