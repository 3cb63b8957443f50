package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evently/evently"
)

// TestPeers is the conformance of all designs that sell.
func TestPeers(t *testing.T) {
	for _, d := range All() {
		if d.Ceiling {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			for name, test := range map[string]func(*testing.T, *world){
				"EachSeatIsSoldOnce":                    eachSeatIsSoldOnce,
				"EachSeatIsSoldOnceOfAnUnpreparedEvent": eachSeatIsSoldOnceUnprepared,
				"SeatsGoBackAndForth":                   seatsGoBackAndForth,
				"SeveralSeatsAreHadTogetherOrNot":       severalSeatsTogether,
				"BookingIsAHold":                        bookingIsAHold,
				"RepetitionHasTheFirstAnswer":           repetitionHasTheFirstAnswer,
				"KeyOfAnotherRequestIsRefused":          keyOfAnotherRequest,
				"WhatNobodyMayHaveIsRefused":            whatNobodyMayHave,
				"ReservationLivesAndEnds":               reservationLivesAndEnds,
				"ReservationIsItsOwners":                reservationIsItsOwners,
				"ExpiredHoldIsSoldAgain":                expiredHoldIsSoldAgain,
				"ExpiringHoldsAreSoldOnce":              expiringHoldsAreSoldOnce,
				"ChangeOfTheEventIsSeen":                changeOfTheEvent,
				"PreparingAgainChangesNothing":          preparingAgain,
				"UnsupportedCommandSaysSo":              unsupportedCommand,
			} {
				t.Run(name, func(t *testing.T) { test(t, newWorld(t, d.Name)) })
			}
		})
	}
}

const callers = 64

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
						reply, err := w.book(ctx, event, user, key, 1)
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
				reply, err := w.book(t.Context(), event, user, key, 1+rand.N(3))
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

func bookingIsAHold(t *testing.T, w *world) {
	event := w.event(t, nil, 10)
	got := w.mustBook(t, event, 7, "k", 2)
	at := w.now.UTC().Truncate(time.Millisecond)
	want := evently.Reservation{
		ID: got.ID, User: 7, Status: evently.Held, Items: evently.OneItem(evently.Item{Tier: 0, Quantity: 2, UnitPriceMinor: 1100}), Currency: "EUR",
		CreatedAt: at, ExpiresAt: at.Add(time.Minute), Seq: got.Seq,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(evently.Items{})); diff != "" {
		t.Error(diff)
	}
	if got.ID.Event != event || got.ID.Token == 0 || got.Seq == 0 {
		t.Errorf("%+v", got)
	}
	state, err := w.catalogue.State(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	if state.Totals().Held != 2 {
		t.Errorf("%+v is free and held", state.Totals())
	}
}

func repetitionHasTheFirstAnswer(t *testing.T, w *world) {
	event := w.event(t, nil, 2)
	first := w.mustBook(t, event, 1, "k", 2)
	again := func(when string) {
		t.Helper()
		reply, err := w.book(t.Context(), event, 1, "k", 2)
		if err != nil {
			t.Fatalf("again %s: %v", when, err)
		}
		if !reply.Replayed {
			t.Errorf("again %s: not told as a repetition", when)
		}
		if diff := cmp.Diff(first, reply.Reservation, cmp.AllowUnexported(evently.Items{})); diff != "" {
			t.Errorf("again %s: %s", when, diff)
		}
	}
	again("at once, sold out")
	if _, err := w.confirm(t.Context(), &first); err != nil {
		t.Fatal(err)
	}
	again("after its confirmation")
	if _, err := w.cancel(t.Context(), &first); err != nil {
		t.Fatal(err)
	}
	again("after its end")
	w.pass(25 * time.Hour)
	again("after the sale")

	// The same request on its way once more is no repetition.
	reply, err := w.peer.Do(t.Context(), &evently.Request{Event: event, Command: &evently.Book{
		User: 1, Key: evently.BookKey(1, "k"), Token: first.ID.Token, Items: evently.OneItem(evently.Item{Tier: evently.OnlyTier, Quantity: 2}),
	}})
	if err != nil || reply.Replayed || reply.Reservation.ID != first.ID {
		t.Errorf("%+v %v", reply, err)
	}
}

func keyOfAnotherRequest(t *testing.T, w *world) {
	event := w.event(t, nil, 4)
	w.mustBook(t, event, 1, "k", 2)
	if _, err := w.book(t.Context(), event, 1, "k", 1); !errors.Is(err, evently.ErrKeyReused) {
		t.Errorf("other seats: %v", err)
	}
	other := w.event(t, nil, 4)
	if _, err := w.book(t.Context(), other, 1, "k", 1); err != nil {
		t.Errorf("the key at another event: %v", err)
	}
	if _, err := w.book(t.Context(), event, 2, "k", 1); err != nil {
		t.Errorf("the key of another user: %v", err)
	}
	_, err := w.peer.Do(t.Context(), &evently.Request{Event: event, Command: &evently.Book{
		User: 2, Key: evently.BookKey(1, "k"), Token: 5, Items: evently.OneItem(evently.Item{Tier: evently.OnlyTier, Quantity: 2}),
	}})
	if !errors.Is(err, evently.ErrKeyReused) {
		t.Errorf("another user with the digest: %v", err)
	}
	w.audit(t, other, 4, []promise{{key: evently.BookKey(1, "k"), id: storedOf(t, w, other)}})
}

func whatNobodyMayHave(t *testing.T, w *world) {
	for name, test := range map[string]struct {
		event    func(*evently.Event)
		tier     int
		quantity int
		want     error
	}{
		"draft":       {func(e *evently.Event) { e.Status = evently.EventDraft }, 0, 1, evently.ErrEventNotFound},
		"cancelled":   {func(e *evently.Event) { e.Status = evently.EventCancelled }, 0, 1, evently.ErrEventNotOnSale},
		"too early":   {func(e *evently.Event) { e.SalesStartAt = w.now.Add(time.Second) }, 0, 1, evently.ErrEventNotOnSale},
		"too late":    {func(e *evently.Event) { e.SalesEndAt = w.now.Add(-time.Second) }, 0, 1, evently.ErrEventNotOnSale},
		"too many":    {nil, 0, 5, evently.ErrQuantityExceedsLimit},
		"no tier":     {nil, 1, 1, evently.ErrUnknownTier},
		"more than 3": {func(e *evently.Event) { e.MaxPerBooking = 3 }, 0, 4, evently.ErrQuantityExceedsLimit},
		"sold out":    {func(e *evently.Event) { e.Tiers[0].Capacity = 1 }, 0, 2, evently.ErrSoldOut},
	} {
		event := w.event(t, test.event, 10)
		if _, err := w.bookTier(t.Context(), event, 1, "k", test.tier, test.quantity); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		w.audit(t, event, 10, nil)
	}
	if _, err := w.book(t.Context(), 12345, 1, "k", 1); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("no event: %v", err)
	}
}

// step asks for a change and expects a status, or a refusal.
func step(t *testing.T, what string, do func(context.Context, *evently.Reservation) (evently.Reservation, error), r *evently.Reservation,
	want evently.ReservationStatus, refusal error,
) {
	t.Helper()
	got, err := do(t.Context(), r)
	switch {
	case !errors.Is(err, refusal) || refusal == nil && err != nil:
		t.Errorf("%s: got %v, want %v", what, err, refusal)
	case refusal == nil && got.Status != want:
		t.Errorf("%s: it is %s, want %s", what, got.Status, want)
	case refusal == nil:
		ignored := cmpopts.IgnoreFields(evently.Reservation{}, "Status", "ConfirmedAt", "EndedAt", "Seq")
		if diff := cmp.Diff(*r, got, cmp.AllowUnexported(evently.Items{}), ignored); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if got.ConfirmedAt.IsZero() != (want != evently.Confirmed) && want != evently.Cancelled || got.EndedAt.IsZero() != want.Live() {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

func reservationLivesAndEnds(t *testing.T, w *world) {
	event := w.event(t, nil, 3)
	booked := w.mustBook(t, event, 1, "a", 1)
	step(t, "confirm", w.confirm, &booked, evently.Confirmed, nil)
	step(t, "confirm again", w.confirm, &booked, evently.Confirmed, nil)
	step(t, "release a booking", w.release, &booked, 0, evently.ErrReservationConfirmed)
	step(t, "cancel", w.cancel, &booked, evently.Cancelled, nil)
	step(t, "cancel again", w.cancel, &booked, evently.Cancelled, nil)
	step(t, "confirm a cancelled one", w.confirm, &booked, 0, evently.ErrReservationCancelled)

	released := w.mustBook(t, event, 1, "b", 1)
	step(t, "release", w.release, &released, evently.Cancelled, nil)
	step(t, "release again", w.release, &released, evently.Cancelled, nil)

	held := w.mustBook(t, event, 1, "c", 3) // all have come back
	step(t, "cancel a hold", w.cancel, &held, evently.Cancelled, nil)
	again := w.mustBook(t, event, 1, "d", 3)
	if _, err := w.book(t.Context(), event, 1, "e", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Errorf("one more: %v", err)
	}
	var promises []promise
	for key, r := range map[string]evently.Reservation{"a": booked, "b": released, "c": held, "d": again} {
		promises = append(promises, promise{key: evently.BookKey(1, key), id: r.ID})
	}
	w.audit(t, event, 3, promises)
}

func reservationIsItsOwners(t *testing.T, w *world) {
	event := w.event(t, nil, 3)
	r := w.mustBook(t, event, 1, "a", 1)
	foreign, unknown := r, r
	foreign.User = 2
	unknown.ID.Token++
	nowhere := r
	nowhere.ID.Event++
	for what, r := range map[string]*evently.Reservation{"another's": &foreign, "none": &unknown, "no event": &nowhere} {
		step(t, "confirm "+what, w.confirm, r, 0, evently.ErrReservationNotFound)
		step(t, "release "+what, w.release, r, 0, evently.ErrReservationNotFound)
		step(t, "cancel "+what, w.cancel, r, 0, evently.ErrReservationNotFound)
	}
	step(t, "confirm", w.confirm, &r, evently.Confirmed, nil)
}

func expiredHoldIsSoldAgain(t *testing.T, w *world) {
	event := w.event(t, nil, 4)
	w.prepare(t, event)
	kept := w.mustBook(t, event, 1, "kept", 1)
	step(t, "confirm", w.confirm, &kept, evently.Confirmed, nil)
	late := w.mustBook(t, event, 1, "late", 2)
	w.pass(30 * time.Second)
	held := w.mustBook(t, event, 1, "held", 1)
	if _, err := w.book(t.Context(), event, 2, "too early", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Fatalf("before the end of the hold: %v", err)
	}
	w.pass(30*time.Second - time.Millisecond)
	if _, err := w.book(t.Context(), event, 2, "too early", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Fatalf("a moment before the end of the hold: %v", err)
	}
	w.pass(time.Millisecond)
	step(t, "confirm too late", w.confirm, &late, 0, evently.ErrReservationExpired)
	step(t, "cancel too late", w.cancel, &late, 0, evently.ErrReservationExpired)
	step(t, "release too late", w.release, &late, evently.Expired, nil)
	next := w.mustBook(t, event, 2, "in time", 2)
	step(t, "confirm after others have the seats", w.confirm, &late, 0, evently.ErrReservationExpired)
	step(t, "release after others have the seats", w.release, &late, evently.Expired, nil)
	step(t, "cancel after others have the seats", w.cancel, &late, 0, evently.ErrReservationExpired)
	if _, err := w.book(t.Context(), event, 2, "one more", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Fatalf("one more: %v", err)
	}
	step(t, "confirm the hold that lives", w.confirm, &held, evently.Confirmed, nil)
	reply, err := w.book(t.Context(), event, 1, "late", 2)
	if err != nil || !reply.Replayed || reply.Reservation.ID != late.ID {
		t.Errorf("the key of the hold that ended: %+v %v", reply, err)
	}
	var promises []promise
	for key, r := range map[string]evently.Reservation{"kept": kept, "late": late, "held": held, "in time": next} {
		promises = append(promises, promise{key: evently.BookKey(r.User, key), id: r.ID})
	}
	w.audit(t, event, 4, promises)
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
			reply, err := w.book(t.Context(), event, user, "second", 1)
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

func changeOfTheEvent(t *testing.T, w *world) {
	event := w.event(t, func(e *evently.Event) { e.Status = evently.EventDraft }, 1_000_000)
	if _, err := w.book(t.Context(), event, 1, "draft", 1); !errors.Is(err, evently.ErrEventNotFound) {
		t.Fatalf("a draft: %v", err)
	}
	reply, err := w.peer.Do(t.Context(), &evently.Request{Event: event, Command: &evently.Publish{}})
	if err != nil || reply.Event.Status != evently.EventPublished {
		t.Fatalf("publish: %+v %v", reply.Event, err)
	}
	r := w.mustBook(t, event, 1, "published", 1)
	if _, err := w.pool.Exec(t.Context(), "update events set max_per_booking = 1 where event_id = $1", int64(event)); err != nil {
		t.Fatal(err)
	}
	tries := 0
	eventually(t, func() error { // the database tells
		tries++
		if _, err := w.book(t.Context(), event, 1, fmt.Sprint("two ", tries), 2); !errors.Is(err, evently.ErrQuantityExceedsLimit) {
			return fmt.Errorf("try %d at the old limit: %w", tries, errors.Join(err, errors.New("booked")))
		}
		return nil
	})
	if reply, err = w.peer.Do(t.Context(), &evently.Request{Event: event, Command: &evently.CancelEvent{}}); err != nil ||
		reply.Event.Status != evently.EventCancelled {
		t.Fatalf("cancel: %+v %v", reply.Event, err)
	}
	if _, err := w.book(t.Context(), event, 1, "cancelled", 1); !errors.Is(err, evently.ErrEventNotOnSale) {
		t.Errorf("a cancelled event: %v", err)
	}
	step(t, "confirm at a cancelled event", w.confirm, &r, 0, evently.ErrReservationCancelled)
	if reply, err := w.book(t.Context(), event, 1, "published", 1); err != nil || reply.Reservation.ID != r.ID {
		t.Errorf("the key from before: %+v %v", reply, err)
	}
}

func preparingAgain(t *testing.T, w *world) {
	event := w.event(t, nil, 3)
	w.prepare(t, event)
	r := w.mustBook(t, event, 1, "a", 2)
	w.prepare(t, event)
	if _, err := w.book(t.Context(), event, 1, "b", 2); !errors.Is(err, evently.ErrSoldOut) {
		t.Errorf("2 of 1: %v", err)
	}
	w.audit(t, event, 3, []promise{{key: evently.BookKey(1, "a"), id: r.ID}})
	w.prepare(t)
}

func unsupportedCommand(t *testing.T, w *world) {
	event := w.event(t, nil, 3)
	_, err := w.peer.Do(t.Context(), &evently.Request{Event: event, Command: &evently.JoinWaitlist{}})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	limited := w.event(t, func(e *evently.Event) { e.MaxPerUser = 2 }, 3)
	if _, err := w.book(t.Context(), limited, 1, "k", 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
