package peers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

// world is a design over a database, and perhaps a Redis, of its own.
type world struct {
	design    Design
	pool      *pgxpool.Pool
	redis     *Redis // nil unless the design needs one
	catalogue evently.Catalogue
	peer      *Peer
	storage   *Storage

	mu  sync.Mutex
	now time.Time // of the peer; moved by pass
}

func newWorld(t testing.TB, name string) *world {
	t.Helper()
	return newWorldOver(t, name, pgtest.Database(t), 0)
}

// newWorldOver opens a design over a migrated database, with conns connections unless that is 0.
func newWorldOver(t testing.TB, name, dsn string, conns int32) *world {
	t.Helper()
	d, found := Named(name)
	if !found {
		t.Fatalf("no design %s", name)
	}
	if conns == 0 {
		conns = d.Conns
	}
	w := &world{design: d, now: time.Now()}
	var err error
	if w.pool, err = store.Open(t.Context(), dsn, store.PoolOptions{MaxConns: conns}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	addr := ""
	if d.Redis {
		w.redis = startRedis(t)
		addr = w.redis.Addr
	}
	if w.peer, err = Open(t.Context(), name, w.pool, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, w.peer.Close) })
	w.peer.now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	}
	if w.storage, err = OpenStorage(name, w.pool, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, w.storage.Close) })
	w.catalogue = w.peer.Catalogue(store.NewCatalogue(w.pool))
	return w
}

// startRedis starts a server for one test.
func startRedis(t testing.TB) *Redis {
	t.Helper()
	needRedis(t)
	r, err := StartRedis(t.Context(), pgtest.Dir(t)) // whose path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, r.Stop) })
	return r
}

func closed(t testing.TB, close func() error) {
	t.Helper()
	if err := close(); err != nil {
		t.Error(err)
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// event makes an event with tiers of some capacities, changed by change if that is given.
func (w *world) event(t testing.TB, change func(*evently.Event), capacities ...int) evently.EventID {
	t.Helper()
	event := &evently.Event{
		ID: evently.EventID(rand.Uint64() | 1), Organizer: 1, Status: evently.EventPublished, Version: 1, CreatedAt: w.now,
		EventDetails: evently.EventDetails{
			Name: "Concert", Timezone: "Europe/Vienna", Currency: "EUR", StartsAt: w.now.Add(24 * time.Hour), EndsAt: w.now.Add(26 * time.Hour),
			HoldTTL: time.Minute, MaxPerBooking: 4,
		},
	}
	for i, capacity := range capacities {
		event.Tiers = append(event.Tiers, evently.Tier{
			Name: evently.TierID(i), Capacity: capacity, BasePriceMinor: 1000, PriceMinor: 1100 + int64(i),
		})
	}
	if change != nil {
		change(event)
	}
	event.Normalize()
	if err := event.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.NewCatalogue(w.pool).CreateEvent(t.Context(), event, 1, "test"); err != nil {
		t.Fatal(err)
	}
	return event.ID
}

func (w *world) prepare(t testing.TB, events ...evently.EventID) {
	t.Helper()
	addr := ""
	if w.redis != nil {
		addr = w.redis.Addr
	}
	if err := Prepare(t.Context(), w.design.Name, w.pool, addr, events); err != nil {
		t.Fatal(err)
	}
}

// book asks for seats of the only tier.
func (w *world) book(ctx context.Context, event evently.EventID, user evently.UserID, key string, quantity int) (evently.Reply, error) {
	return w.bookTier(ctx, event, user, key, evently.OnlyTier, quantity)
}

func (w *world) bookTier(ctx context.Context, event evently.EventID, user evently.UserID, key string, tier, quantity int) (evently.Reply, error) {
	return w.peer.Do(ctx, &evently.Request{Event: event, Who: user, ID: "test", Command: &evently.Book{
		User: user, Key: evently.BookKey(user, key), Token: evently.Token(rand.Uint64() | 1),
		Items: evently.OneItem(evently.Item{Tier: tier, Quantity: quantity}),
	}})
}

func (w *world) mustBook(t testing.TB, event evently.EventID, user evently.UserID, key string, quantity int) evently.Reservation {
	t.Helper()
	reply, err := w.book(t.Context(), event, user, key, quantity)
	if err != nil {
		t.Fatalf("book %d seats with key %s: %v", quantity, key, err)
	}
	return reply.Reservation
}

func (w *world) do(ctx context.Context, r *evently.Reservation, command evently.Command) (evently.Reservation, error) {
	reply, err := w.peer.Do(ctx, &evently.Request{Event: r.ID.Event, Who: r.User, ID: "test", Command: command})
	return reply.Reservation, err
}

func (w *world) confirm(ctx context.Context, r *evently.Reservation) (evently.Reservation, error) {
	return w.do(ctx, r, &evently.Confirm{User: r.User, Token: r.ID.Token})
}

func (w *world) cancel(ctx context.Context, r *evently.Reservation) (evently.Reservation, error) {
	return w.do(ctx, r, &evently.Cancel{User: r.User, Token: r.ID.Token})
}

func (w *world) release(ctx context.Context, r *evently.Reservation) (evently.Reservation, error) {
	return w.do(ctx, r, &evently.Release{User: r.User, Token: r.ID.Token})
}

// promise is what a client was told of a key.
type promise struct {
	key  evently.Key
	id   evently.ReservationID
	what string // of another answer than a reservation
}

// faults compares what clients were told of an event with what is stored, and that with the capacity. It returns a line for each difference.
func faults(ctx context.Context, storage bench.Storage, event evently.EventID, capacity int, promises []promise) (faults []string, err error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	stored := make(map[evently.ReservationID]bench.Stored)
	byKey := make(map[evently.Key]evently.ReservationID)
	var held, booked int
	err = storage.Reservations(ctx, []evently.EventID{event}, func(s bench.Stored) {
		if other, found := byKey[s.Key]; found {
			fault("doubled: %s and %s have one key", other, s.ID)
		}
		stored[s.ID], byKey[s.Key] = s, s.ID
		switch s.Status {
		case evently.Held:
			held += s.Quantity
		case evently.Confirmed:
			booked += s.Quantity
		case evently.Cancelled, evently.Expired:
		}
	})
	if err != nil {
		return nil, err
	}
	if held+booked > capacity {
		fault("oversold: %d seats of %d", held+booked, capacity)
	}
	promised := make(map[evently.Key]evently.ReservationID)
	for _, p := range promises {
		if p.what != "" {
			continue
		}
		if other, found := promised[p.key]; found && other != p.id {
			fault("doubled: one key was answered with %s and %s", other, p.id)
		}
		promised[p.key] = p.id
		if _, found := stored[p.id]; !found {
			fault("lost: %s", p.id)
		}
	}
	for _, s := range stored {
		if _, found := promised[s.Key]; !found {
			fault("never acknowledged: %s", s.ID)
		}
	}
	counts, err := storage.Counts(ctx, []evently.EventID{event})
	if err != nil {
		return nil, err
	}
	if counts != nil && counts[event] != (bench.Count{Held: held, Booked: booked}) {
		fault("miscounted: %+v for %d held and %d booked", counts[event], held, booked)
	}
	return faults, nil
}

func (w *world) audit(t testing.TB, event evently.EventID, capacity int, promises []promise) {
	t.Helper()
	found, err := faults(t.Context(), w.storage, event, capacity, promises)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		t.Errorf("%d faults:\n%s", len(found), strings.Join(found[:min(len(found), 10)], "\n"))
	}
	state, err := w.catalogue.State(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := w.storage.Counts(t.Context(), []evently.EventID{event})
	if err != nil {
		t.Fatal(err)
	}
	if totals := state.Totals(); counts != nil && (bench.Count{Held: totals.Held, Booked: totals.Booked}) != counts[event] {
		t.Errorf("the catalogue has %+v, the counters %+v", totals, counts[event])
	}
}

// storedOf is the only reservation of an event.
func storedOf(t testing.TB, w *world, event evently.EventID) (id evently.ReservationID) {
	t.Helper()
	err := w.storage.Reservations(t.Context(), []evently.EventID{event}, func(s bench.Stored) { id = s.ID })
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// storedInto fills the values of a map of reservations.
func storedInto(all map[evently.ReservationID]*evently.Reservation) func(bench.Stored) {
	return func(s bench.Stored) { all[s.ID] = &evently.Reservation{ID: s.ID, User: s.User} }
}

// liveSeats adds up.
func liveSeats(sum *int) func(bench.Stored) {
	return func(s bench.Stored) {
		if s.Status.Live() {
			*sum += s.Quantity
		}
	}
}

// eventually polls until check has no error.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}
