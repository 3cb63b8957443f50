package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
)

const (
	callers       = 64
	overloadedMax = 100 // times that a booking is refused because too many others are under way
)

// rush has callers book one seat again and again until they are refused, a third of them with each key twice at the same time.
func rush(ctx context.Context, w *world, event evently.EventID) (promises []promise) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for caller := range callers {
		user := evently.UserID(caller + 1)
		all.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprint("seat ", n)
				times := 1
				if caller%3 == 0 {
					times = 2
				}
				answers := make([]promise, times)
				var both sync.WaitGroup
				for i := range answers {
					both.Go(func() {
						reply, err := w.bookInTheEnd(ctx, event, user, key, 1)
						answers[i] = promise{key: evently.BookKey(user, key), id: reply.Reservation.ID}
						if err != nil {
							answers[i].what = err.Error()
						}
					})
				}
				both.Wait()
				mu.Lock()
				promises = append(promises, answers...)
				mu.Unlock()
				for _, answer := range answers {
					if answer.what != "" {
						return
					}
				}
			}
		})
	}
	all.Wait()
	return promises
}

// bookInTheEnd asks again while too many others do: what was refused so has had no effect.
func (w *world) bookInTheEnd(ctx context.Context, event evently.EventID, user evently.UserID, key string, quantity int) (evently.Reply, error) {
	for try := 1; ; try++ {
		reply, err := w.book(ctx, event, user, key, quantity)
		var refusal *evently.Error
		if !errors.As(err, &refusal) || refusal.Code != evently.CodeOverloaded || try == overloadedMax {
			return reply, err
		}
	}
}

func eachSeatIsSoldOnce(t *testing.T, w *world) {
	const capacity = 500
	event := w.event(t, nil, capacity)
	w.prepare(t, event)
	soldOnce(t, w, event, capacity)
}

func eachSeatIsSoldOnceUnprepared(t *testing.T, w *world) {
	const capacity = 500
	soldOnce(t, w, w.event(t, nil, capacity), capacity)
}

func soldOnce(t *testing.T, w *world, event evently.EventID, capacity int) {
	t.Helper()
	promises := rush(t.Context(), w, event)
	w.audit(t, event, capacity, promises)
	ids := make(map[evently.ReservationID]bool)
	for _, p := range promises {
		switch p.what {
		case "":
			ids[p.id] = true
		case evently.ErrSoldOut.Error():
		default:
			t.Errorf("refused with %s", p.what)
		}
	}
	if len(ids) != capacity {
		t.Errorf("%d reservations of %d seats", len(ids), capacity)
	}
	if _, err := w.book(t.Context(), event, 9999, "late", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Errorf("a late booking: %v", err)
	}
}

// seatsGoBackAndForth has callers book, confirm, cancel and release few seats at random.
func seatsGoBackAndForth(t *testing.T, w *world) {
	const capacity, rounds = 20, 40
	event := w.event(t, nil, capacity)
	w.prepare(t, event)
	var mu sync.Mutex
	var promises []promise
	var sold int
	var all sync.WaitGroup
	for caller := range 16 {
		user := evently.UserID(caller + 1)
		all.Go(func() {
			for n := range rounds {
				key := fmt.Sprint(n)
				reply, err := w.bookInTheEnd(t.Context(), event, user, key, 1+rand.N(3))
				mu.Lock()
				if err == nil {
					sold++
					promises = append(promises, promise{key: evently.BookKey(user, key), id: reply.Reservation.ID})
				}
				mu.Unlock()
				r := reply.Reservation
				switch {
				case errors.Is(err, evently.ErrSoldOut):
					continue
				case err != nil:
					t.Errorf("book: %v", err)
					return
				}
				var steps []func(context.Context, *evently.Reservation) (evently.Reservation, error)
				switch rand.N(4) {
				case 0:
					steps = append(steps, w.confirm, w.cancel)
				case 1:
					steps = append(steps, w.release)
				case 2:
					steps = append(steps, w.cancel, w.cancel)
				default:
					if n == rounds-1 {
						steps = append(steps, w.confirm)
					} else {
						steps = append(steps, w.confirm, w.confirm, w.cancel, w.cancel)
					}
				}
				for _, step := range steps {
					if _, err := step(t.Context(), &r); err != nil {
						t.Errorf("a step of %s: %v", r.ID, err)
					}
				}
			}
		})
	}
	all.Wait()
	w.audit(t, event, capacity, promises)
	if sold < capacity {
		t.Errorf("%d sold of %d that came back again and again", sold, capacity)
	}
}

func severalSeatsTogether(t *testing.T, w *world) {
	event := w.event(t, nil, 5, 3)
	w.prepare(t, event)
	book := func(key string, tier, quantity int) error {
		_, err := w.bookTier(t.Context(), event, 1, key, tier, quantity)
		return err
	}
	if err := book("a", 0, 3); err != nil {
		t.Fatal(err)
	}
	var refusal *evently.Error
	if err := book("b", 0, 3); !errors.As(err, &refusal) || refusal.Code != evently.CodeSoldOut || refusal.Available != 2 {
		t.Errorf("3 of 2 seats: %v, available %+v", err, refusal)
	}
	for key, quantity := range map[string]int{"c": 2, "d": 3} {
		tier := quantity - 2
		if err := book(key, tier, quantity); err != nil {
			t.Errorf("%d of tier %d: %v", quantity, tier, err)
		}
	}
	for tier := range 2 {
		if err := book("e", tier, 1); !errors.Is(err, evently.ErrSoldOut) {
			t.Errorf("one more of tier %d: %v", tier, err)
		}
	}
	if err := book("f", evently.OnlyTier, 1); !errors.As(err, &refusal) || refusal.Code != evently.CodeInvalidRequest {
		t.Errorf("a seat of no tier: %v", err)
	}
}

// expiringHoldsAreSoldOnce confirms holds in the moment in which others want their seats.
func expiringHoldsAreSoldOnce(t *testing.T, w *world) {
	const capacity = 200
	event := w.event(t, func(e *evently.Event) { e.HoldTTL = time.Second }, capacity)
	w.prepare(t, event)
	promises := rush(t.Context(), w, event)
	mine := make(map[evently.ReservationID]*evently.Reservation)
	for _, p := range promises {
		if p.what == "" {
			mine[p.id] = nil
		}
	}
	err := w.storage.Reservations(t.Context(), []evently.EventID{event}, storedInto(mine))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	confirmed := 0
	all.Go(func() { w.pass(time.Second) })
	for _, r := range mine {
		all.Go(func() {
			switch _, err := w.confirm(t.Context(), r); {
			case err == nil:
				mu.Lock()
				confirmed++
				mu.Unlock()
			case !errors.Is(err, evently.ErrReservationExpired):
				t.Errorf("confirm: %v", err)
			}
		})
	}
	for caller := range capacity {
		user := evently.UserID(1000 + caller)
		all.Go(func() {
			reply, err := w.bookInTheEnd(t.Context(), event, user, "second", 1)
			if errors.Is(err, evently.ErrSoldOut) {
				return
			}
			if err != nil {
				t.Errorf("book: %v", err)
				return
			}
			mu.Lock()
			promises = append(promises, promise{key: evently.BookKey(user, "second"), id: reply.Reservation.ID})
			mu.Unlock()
		})
	}
	all.Wait()
	t.Logf("%d of %d holds were confirmed in time", confirmed, len(mine))
	w.audit(t, event, capacity, promises)
	for n := 0; ; n++ { // what is left can be sold
		reply, err := w.book(t.Context(), event, 5000, fmt.Sprint("rest ", n), 1)
		if errors.Is(err, evently.ErrSoldOut) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		promises = append(promises, promise{key: evently.BookKey(5000, fmt.Sprint("rest ", n)), id: reply.Reservation.ID})
	}
	w.audit(t, event, capacity, promises)
	live := 0
	err = w.storage.Reservations(t.Context(), []evently.EventID{event}, liveSeats(&live))
	if err != nil || live != capacity {
		t.Errorf("%d of %d seats are sold in the end, %v", live, capacity, err)
	}
}
