package http

import (
	"fmt"
	"testing"
	"time"

	"github.com/evently/evently"
)

// Sales begin at sales_start_at and have ended at sales_end_at, to the millisecond.
func TestSales_BeginAndEndAtTheirInstants(t *testing.T) {
	w, box := newBoxSite(t)
	start := w.clock.Now().Add(time.Minute)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), func(event *evently.Event) {
		event.SalesStartAt, event.SalesEndAt = start, start.Add(time.Minute)
	})
	bearer, _ := w.token(t, evently.RoleUser)
	for i, step := range []struct {
		at     time.Time
		onSale bool
	}{
		{start.Add(-time.Millisecond), false},
		{start, true},
		{start.Add(time.Minute - time.Millisecond), true},
		{start.Add(time.Minute), false},
	} {
		w.clock.add(step.at.Sub(w.clock.Now()))
		for _, route := range []string{"book", "waitlist"} {
			a := w.do(t, "POST", "/events/evt_0000000000001/"+route, `{"quantity":1}`, "Authorization", bearer, "Idempotency-Key", fmt.Sprint(i))
			switch {
			case !step.onSale:
				a.problem(t, evently.CodeEventNotOnSale)
			case route == "waitlist":
				a.problem(t, evently.CodeSeatsAvailable)
			case a.status != 201:
				t.Errorf("%s at %s: %d %s", route, step.at, a.status, a.body)
			}
		}
	}
}

func TestUserLimit(t *testing.T) {
	w, box := newBoxSite(t)
	organizer, _ := w.token(t, evently.RoleOrganizer)
	create := func(limit any) *answer {
		t.Helper()
		return w.do(t, "POST", "/admin/events", newEventBody(t, map[string]any{"max_per_user": limit}), "Authorization", organizer)
	}
	var event eventJSON
	for _, none := range []any{nil, 0} {
		if create(none).decode(t, &event); event.MaxPerUser != nil {
			t.Errorf("max_per_user %v is answered as %d", none, *event.MaxPerUser)
		}
	}
	for _, wrong := range []any{-1, evently.MaxPerUserMax + 1} {
		create(wrong).field(t, "max_per_user")
	}
	if create(3).decode(t, &event); event.MaxPerUser == nil || *event.MaxPerUser != 3 {
		t.Fatalf("max_per_user is %v, want 3", event.MaxPerUser)
	}
	id, err := evently.ParseEventID(event.ID)
	if err != nil {
		t.Fatal(err)
	}
	bearer, _ := w.token(t, evently.RoleUser)
	w.book(t, id, bearer, "1", `{"quantity":2}`)
	const path = "/events/%s/book"
	w.do(t, "POST", fmt.Sprintf(path, id), `{"quantity":2}`, "Authorization", bearer, "Idempotency-Key", "2").problem(t, evently.CodeUserLimitExceeded)
	_, last := w.book(t, id, bearer, "3", `{"quantity":1}`)
	w.do(t, "POST", fmt.Sprintf(path, id), `{"quantity":1}`, "Authorization", bearer, "Idempotency-Key", "4").problem(t, evently.CodeUserLimitExceeded)
	other, _ := w.token(t, evently.RoleUser)
	w.book(t, id, other, "1", `{"quantity":3}`) // another user has seats of his own

	// What is given back counts no more, and neither does anything without a limit.
	w.do(t, "DELETE", "/reservations/"+last.ID, "", "Authorization", bearer)
	w.book(t, id, bearer, "5", `{"quantity":1}`)
	a := w.do(t, "PUT", "/admin/events/"+event.ID, newEventBody(t, map[string]any{"max_per_user": nil}), "Authorization", organizer, "If-Match", `"1"`)
	if event.MaxPerUser = nil; a.status != 200 {
		t.Fatalf("revise: %d %s", a.status, a.body)
	}
	if a.decode(t, &event); event.MaxPerUser != nil {
		t.Errorf("max_per_user is %d", *event.MaxPerUser)
	}
	w.book(t, id, bearer, "6", `{"quantity":9}`)
	if err := box.ledgers[id].Check(); err != nil {
		t.Error(err)
	}
}
