package peers

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

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
