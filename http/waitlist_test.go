package http

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

// soldOut adds an event whose seats are all booked, and returns the bookings, of two seats each, with who has made them.
func soldOut(t testing.TB, w *site, box *fakeBox, capacity int) (bearer string, bookings []string) {
	t.Helper()
	box.add(box.event(1, 9, seats("Floor", capacity, 2500)), nil)
	bearer, _ = w.token(t, evently.RoleUser)
	for i := range capacity / 2 {
		_, r := w.book(t, 1, bearer, fmt.Sprint("sold", i), `{"quantity":2}`)
		if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer); a.status != 200 {
			t.Fatalf("confirm: %d %s", a.status, a.body)
		}
		bookings = append(bookings, r.ID)
	}
	return bearer, bookings
}

// me is the entry by which a user waits for event 1.
func (w *site) me(t testing.TB, bearer string) (entry waiterBody) {
	t.Helper()
	w.do(t, "GET", "/events/"+evently.EventID(1).String()+"/waitlist/me", "", "Authorization", bearer).decode(t, &entry)
	return entry
}

func (w *site) cancel(t testing.TB, bearer, booking string) {
	t.Helper()
	if a := w.do(t, "POST", "/bookings/"+booking+"/cancel", "", "Authorization", bearer); a.status != 200 {
		t.Fatalf("cancel: %d %s", a.status, a.body)
	}
}

const waitlistOf1 = "/events/evt_0000000000001/waitlist"

func TestWaitlist_JoinedIsAnsweredInFull(t *testing.T) {
	w, box := newBoxSite(t)
	soldOut(t, w, box, 2)
	bearer, who := w.token(t, evently.RoleUser)
	a, entry := w.join(t, 1, bearer, "k", `{"items":[{"tier_id":"t1","quantity":2}],"on_release":"hold"}`)
	want := `{"id":"` + entry.ID + `","event_id":"evt_0000000000001","user_id":"` + who.User.String() + `","position":1,"status":"waiting",` +
		`"quantity":2,"items":[{"tier_id":"t1","quantity":2}],"on_release":"hold","priority":0,"joined_at":"2027-03-01T12:00:00Z",` +
		`"expires_at":null,"reservation_id":null}`
	if string(a.body) != want || a.header.Get("Location") != waitlistOf1+"/me" || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("Location %q\n got %s\nwant %s", a.header.Get("Location"), a.body, want)
	}
	if got := w.me(t, bearer); got.ID != entry.ID || *got.Position != 1 {
		t.Errorf("found as %+v", got)
	}
	var counts availabilityJSON
	w.do(t, "GET", "/events/evt_0000000000001/availability", "").decode(t, &counts)
	if counts.Waitlisted != 1 {
		t.Errorf("%d wait, want 1", counts.Waitlisted)
	}
}

func TestWaitlist_FreedSeatsAreBookedForTheFirst(t *testing.T) {
	w, box := newBoxSite(t)
	seller, bookings := soldOut(t, w, box, 4)
	ann, _ := w.token(t, evently.RoleUser)
	ben, _ := w.token(t, evently.RoleUser)
	first, entry := w.join(t, 1, ann, "k", `{"quantity":2}`)
	_, second := w.join(t, 1, ben, "k", `{"quantity":1}`)
	if entry.OnRelease != "book" || *entry.Position != 1 || *second.Position != 2 {
		t.Errorf("joined as %+v and %+v", entry, second)
	}

	w.cancel(t, seller, bookings[0])
	got := w.me(t, ann)
	if got.Status != "booked" || got.Position != nil || got.ReservationID == nil || got.ExpiresAt != nil {
		t.Fatalf("the first is now %+v", got)
	}
	if *got.ReservationID != strings.Replace(entry.ID, "wtl_", "rsv_", 1) {
		t.Errorf("%s is served by %s", entry.ID, *got.ReservationID)
	}
	var booking reservationBody
	w.do(t, "GET", "/bookings/"+*got.ReservationID, "", "Authorization", ann).decode(t, &booking)
	if booking.Status != "confirmed" || booking.Quantity != 2 || booking.TotalMinor != 5000 || booking.ConfirmedAt == nil {
		t.Errorf("the booking is %+v", booking)
	}
	if got := w.me(t, ben); got.Status != "waiting" || *got.Position != 1 {
		t.Errorf("the second is now %+v", got)
	}
	again, _ := w.join(t, 1, ann, "k", `{"quantity":2}`)
	if string(again.body) != string(first.body) || again.header.Get("Idempotency-Replayed") != "true" ||
		again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("repeated: %v\n got %s\nwant %s", again.header, again.body, first.body)
	}
	w.cancel(t, ann, *got.ReservationID)
	if got := w.me(t, ann); got.Status != "cancelled" {
		t.Errorf("after the cancellation: %+v", got)
	}
}

func TestWaitlist_OffersPassOn(t *testing.T) {
	w, box := newBoxSite(t)
	seller, bookings := soldOut(t, w, box, 2)
	var bearers []string
	for range 3 {
		bearer, _ := w.token(t, evently.RoleUser)
		w.join(t, 1, bearer, "k", `{"quantity":2,"on_release":"hold"}`)
		bearers = append(bearers, bearer)
	}
	w.cancel(t, seller, bookings[0])
	if got := w.me(t, bearers[0]); got.Status != "offered" || got.ExpiresAt == nil || *got.ExpiresAt != "2027-03-01T12:10:00Z" {
		t.Fatalf("the first is now %+v", got)
	}

	// It lapses, and the second one declines, twice.
	w.clock.add(10 * time.Minute)
	box.sweep(t, 1)
	if got := w.me(t, bearers[0]); got.Status != "expired" || got.ReservationID == nil {
		t.Errorf("the first is now %+v", got)
	}
	for range 2 {
		if a := w.do(t, "DELETE", waitlistOf1+"/me", "", "Authorization", bearers[1]); a.status != 204 {
			t.Fatalf("decline: %d %s", a.status, a.body)
		}
	}
	if got := w.me(t, bearers[1]); got.Status != "cancelled" {
		t.Errorf("the second is now %+v", got)
	}
	third := w.me(t, bearers[2])
	if third.Status != "offered" {
		t.Fatalf("the third is now %+v", third)
	}
	if a := w.do(t, "POST", "/reservations/"+*third.ReservationID+"/confirm", "", "Authorization", bearers[2]); a.status != 200 {
		t.Errorf("confirm: %d %s", a.status, a.body)
	}
	if got := w.me(t, bearers[2]); got.Status != "booked" {
		t.Errorf("the third is now %+v", got)
	}
}

func TestWaitlist_Left(t *testing.T) {
	w, box := newBoxSite(t)
	soldOut(t, w, box, 2)
	bearer, _ := w.token(t, evently.RoleUser)
	a := w.do(t, "DELETE", waitlistOf1+"/me", "", "Authorization", bearer)
	a.problem(t, evently.CodeWaiterNotFound)
	w.do(t, "GET", waitlistOf1+"/me", "", "Authorization", bearer).problem(t, evently.CodeWaiterNotFound)
	w.join(t, 1, bearer, "k", `{"quantity":1}`)
	for range 2 {
		if a := w.do(t, "DELETE", waitlistOf1+"/me", "", "Authorization", bearer); a.status != 204 || len(a.body) > 0 {
			t.Fatalf("leave: %d %s", a.status, a.body)
		}
	}
	if got := w.me(t, bearer); got.Status != "left" || got.Position != nil {
		t.Errorf("is now %+v", got)
	}
	_, again := w.join(t, 1, bearer, "other", `{"quantity":1}`)
	if got := w.me(t, bearer); got.Status != "waiting" || got.ID != again.ID {
		t.Errorf("joined again as %+v, found %+v", again, got)
	}
	box.add(box.event(2, 9, seats("Floor", 1, 0)), nil)
	w.do(t, "DELETE", "/events/nonsense/waitlist/me", "", "Authorization", bearer).problem(t, evently.CodeEventNotFound)
}

func TestWaitlist_Refusals(t *testing.T) {
	w, box := newBoxSite(t)
	soldOut(t, w, box, 2)
	free := box.event(2, 9, seats("Floor", 5, 100), seats("Balcony", 1, 100))
	box.add(free, func(event *evently.Event) { event.MaxPerUser, event.MaxPerBooking = 4, 5 })
	draft := box.event(3, 9, seats("Floor", 5, 100))
	box.add(draft, func(event *evently.Event) { event.Status = evently.EventDraft })
	begun := box.event(4, 9, seats("Floor", 5, 100))
	box.add(begun, func(event *evently.Event) { event.StartsAt = w.clock.Now() })
	bearer, _ := w.token(t, evently.RoleUser)
	w.join(t, 1, bearer, "joined", `{"quantity":1}`)
	w.book(t, 2, bearer, "sold", `{"items":[{"tier_id":"t2","quantity":1}]}`)
	for _, try := range []struct {
		event evently.EventID
		key   string
		body  string
		code  evently.Code
		field string
	}{
		{1, "other", `{"quantity":1}`, evently.CodeAlreadyWaiting, ""},
		{1, "joined", `{"quantity":2}`, evently.CodeIdempotencyKeyReused, ""},
		{1, "joined", `{"quantity":1,"on_release":"hold"}`, evently.CodeIdempotencyKeyReused, ""},
		{1, "", `{"quantity":1}`, evently.CodeIdempotencyKeyRequired, ""},
		{1, "k k", `{"quantity":1}`, evently.CodeInvalidRequest, "Idempotency-Key"},
		{1, "k", `{"quantity":1,"on_release":"sell"}`, evently.CodeInvalidRequest, "on_release"},
		{1, "k", `{"quantity":1,"on_release":null}`, evently.CodeInvalidRequest, "on_release"},
		{1, "k", `{"quantity":1,"on_release":"hold","on_release":"hold"}`, evently.CodeInvalidRequest, "on_release"},
		{1, "k", `{"on_release":"hold"}`, evently.CodeInvalidRequest, "quantity"},
		{1, "k", `{"quantity":1,"priority":7}`, evently.CodeInvalidRequest, "priority"},
		{1, "k", `{"quantity":0}`, evently.CodeInvalidRequest, "quantity"},
		{2, "k", `{"quantity":1}`, evently.CodeInvalidRequest, "items"},
		{2, "k", `{"items":[{"tier_id":"t1","quantity":1}]}`, evently.CodeSeatsAvailable, ""},
		{2, "k", `{"items":[{"tier_id":"t2","quantity":4}]}`, evently.CodeQuantityExceedsLimit, ""},
		{2, "k", `{"items":[{"tier_id":"t1","quantity":6}]}`, evently.CodeQuantityExceedsLimit, ""},
		{2, "k", `{"items":[{"tier_id":"t1","quantity":4}]}`, evently.CodeUserLimitExceeded, ""},
		{2, "k", `{"items":[{"tier_id":"t3","quantity":1}]}`, evently.CodeUnknownTier, ""},
		{3, "k", `{"quantity":1}`, evently.CodeEventNotFound, ""},
		{4, "k", `{"quantity":1}`, evently.CodeEventNotOnSale, ""},
		{5, "k", `{"quantity":1}`, evently.CodeEventNotFound, ""},
	} {
		headers := []string{"Authorization", bearer}
		if try.key != "" {
			headers = append(headers, "Idempotency-Key", try.key)
		}
		a := w.do(t, "POST", "/events/"+try.event.String()+"/waitlist", try.body, headers...)
		if p := a.problem(t, try.code); try.field != "" && (len(p.Errors) != 1 || p.Errors[0].Field != try.field) {
			t.Errorf("%s: %s, want field %s", try.body, a.body, try.field)
		}
	}
	if a := w.do(t, "POST", waitlistOf1, `{"quantity":1}`, "Idempotency-Key", "k"); a.problem(t, evently.CodeUnauthenticated).Code == "" {
		t.Error("no code")
	}
}

// A key of a booking and the same key of a waitlist are two keys.
func TestWaitlist_KeysAreItsOwn(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 2, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, bearer, "k", `{"quantity":2}`)
	if a, _ := w.join(t, 1, bearer, "k", `{"quantity":2}`); a.header.Get("Idempotency-Replayed") != "" {
		t.Error("the key of the booking was taken for one of the waitlist")
	}
}

func TestWaitlist_PrioritiesAndLists(t *testing.T) {
	w, box := newBoxSite(t)
	soldOut(t, w, box, 2)
	organizer, manager := w.token(t, evently.RoleOrganizer)
	box.ledgers[1].Event().Organizer = manager.User
	var entries []waiterBody
	var bearers []string
	for range 5 {
		bearer, _ := w.token(t, evently.RoleUser)
		_, entry := w.join(t, 1, bearer, "k", `{"quantity":1}`)
		bearers, entries = append(bearers, bearer), append(entries, entry)
		w.clock.add(time.Second)
	}
	const managed = "/admin" + waitlistOf1
	put := func(id, body string) *answer {
		t.Helper()
		return w.do(t, "PUT", managed+"/"+id, body, "Authorization", organizer)
	}
	var moved waiterBody
	put(entries[3].ID, `{"priority":5}`).decode(t, &moved)
	if moved.ID != entries[3].ID || *moved.Position != 1 || moved.Priority != 5 {
		t.Errorf("moved to %+v", moved)
	}
	put(entries[0].ID, `{"priority":-1}`).decode(t, &moved)
	if *moved.Position != 5 || moved.Priority != -1 {
		t.Errorf("moved to %+v", moved)
	}
	w.do(t, "DELETE", waitlistOf1+"/me", "", "Authorization", bearers[2])

	list := func(bearer, path string) (ids []string) {
		t.Helper()
		for cursor := ""; ; {
			var page struct {
				Data       []waiterBody `json:"data"`
				NextCursor *string      `json:"next_cursor"`
			}
			w.do(t, "GET", path+cursor, "", "Authorization", bearer).decode(t, &page)
			for _, entry := range page.Data {
				ids = append(ids, entry.ID)
			}
			if page.NextCursor == nil {
				return ids
			}
			cursor = "&cursor=" + *page.NextCursor
		}
	}
	ids := func(order ...int) (ids []string) {
		for _, i := range order {
			ids = append(ids, entries[i].ID)
		}
		return ids
	}
	if got := list(organizer, managed+"?limit=2"); !slices.Equal(got, ids(3, 1, 4, 0, 2)) {
		t.Errorf("in the order of service: %v, joined as %v", got, ids(0, 1, 2, 3, 4))
	}
	if got := list(organizer, managed+"?status=waiting&limit=3"); !slices.Equal(got, ids(3, 1, 4, 0)) {
		t.Errorf("those who wait: %v, joined as %v", got, ids(0, 1, 2, 3, 4))
	}
	if got := list(bearers[2], "/waitlist?limit=100"); !slices.Equal(got, ids(2)) {
		t.Errorf("own: %v, want %v", got, ids(2))
	}
	if got := list(bearers[2], "/waitlist?status=waiting"); len(got) != 0 {
		t.Errorf("own that wait: %v", got)
	}
	w.do(t, "GET", "/waitlist?status=left", "", "Authorization", bearers[2]).field(t, "status")
	w.do(t, "GET", managed+"?cursor=nonsense", "", "Authorization", organizer).field(t, "cursor")

	for _, body := range []string{`{}`, `{"priority":null}`, `{"priority":1000001}`, `{"priority":-1000001}`, `{"priority":"1"}`} {
		put(entries[1].ID, body).field(t, "priority")
	}
	put(entries[2].ID, `{"priority":1}`).problem(t, evently.CodeNotWaiting)
	for _, id := range []string{"nonsense", evently.WaiterID{Event: 2, Token: 1}.String(), evently.WaiterID{Event: 1, Token: 1}.String()} {
		put(id, `{"priority":1}`).problem(t, evently.CodeWaiterNotFound)
	}
	stranger, _ := w.token(t, evently.RoleOrganizer)
	w.do(t, "PUT", managed+"/"+entries[1].ID, `{"priority":1}`, "Authorization", stranger).problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", managed, "", "Authorization", stranger).problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", managed, "", "Authorization", bearers[0]).problem(t, evently.CodeForbidden)
	admin, _ := w.token(t, evently.RoleAdmin)
	if got := list(admin, managed+"?limit=100"); len(got) != 5 {
		t.Errorf("an admin sees %v", got)
	}
}

// What waits is closed when sales end, and nobody is served then.
func TestWaitlist_EndsWithTheSales(t *testing.T) {
	w, box := newBoxSite(t)
	seller, bookings := soldOut(t, w, box, 2)
	bearer, _ := w.token(t, evently.RoleUser)
	box.ledgers[1].Event().SalesEndAt = w.clock.Now().Add(time.Minute)
	w.join(t, 1, bearer, "k", `{"quantity":1}`)
	w.clock.add(time.Minute)
	w.cancel(t, seller, bookings[0])
	box.sweep(t, 1)
	if got := w.me(t, bearer); got.Status != "closed" || got.ReservationID != nil {
		t.Errorf("is now %+v", got)
	}
}
