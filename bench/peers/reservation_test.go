package peers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evently/evently"
)

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
