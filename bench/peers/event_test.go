package peers

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/evently/evently"
)

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
