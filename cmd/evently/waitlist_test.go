package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// Who waits has the seats as soon as the cancellation is answered: both are one batch of the journal.
func TestWaitlist_CancellationServesInTheSameBatch(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 4)
	path := o.show(t, 3, time.Hour, nil)
	early := o.users[1].Must(t, 409, "POST", path+"/waitlist", "early", `{"quantity":1}`)
	if code := early.Code(t); code != "seats_available" {
		t.Errorf("while seats are free: %s", code)
	}
	booking := o.book(t, path, 0, 3)
	first, second, third := o.join(t, path, 1, 2, "book"), o.join(t, path, 2, 2, "hold"), o.join(t, path, 3, 1, "hold")
	if first.Position != 1 || second.Position != 2 || third.Position != 3 || o.counts(t, path).Waitlisted != 3 {
		t.Errorf("joined at %d, %d and %d; %+v", first.Position, second.Position, third.Position, o.counts(t, path))
	}
	again := o.users[1].Must(t, 409, "POST", path+"/waitlist", "twice", `{"quantity":1}`)
	if code := again.Code(t); code != "already_waiting" {
		t.Errorf("who waits already: %s", code)
	}
	before := len(o.journal(t, path))

	o.cancel(t, 0, booking)
	booked, passed, offered := o.me(t, path, 1), o.me(t, path, 2), o.me(t, path, 3)
	if booked.Status != "booked" || booked.ReservationID != strings.Replace(first.ID, "wtl_", "rsv_", 1) {
		t.Errorf("the first is %+v", booked)
	}
	if passed.Status != "waiting" || passed.Position != 1 {
		t.Errorf("the second, for whom one seat is too few, is %+v", passed)
	}
	if offered.Status != "offered" || offered.ExpiresAt == nil {
		t.Errorf("the third is %+v", offered)
	}
	if status := o.users[1].Must(t, 200, "GET", "/bookings/"+booked.ReservationID, "", "").Seats(t).Status; status != "confirmed" {
		t.Errorf("the booking is %s", status)
	}
	if counts := o.counts(t, path); counts.Available != 0 || counts.Booked != 2 || counts.Held != 1 || counts.Waitlisted != 1 {
		t.Errorf("counts %+v", counts)
	}
	batch := o.journal(t, path)[before:]
	if got, want := kinds(batch), "cancelled held confirmed held"; got != want {
		t.Fatalf("the journal says %s, want %s", got, want)
	}
	for _, e := range batch[1:] {
		if e.tx != batch[0].tx || !e.at.Equal(batch[0].at) {
			t.Errorf("%s is of another batch than the cancellation", e.kind)
		}
	}

	// The offer is taken, and the first answers to the keys stand.
	o.users[3].Must(t, 200, "POST", "/reservations/"+offered.ReservationID+"/confirm", "", "")
	replayed := o.users[1].Must(t, 201, "POST", path+"/waitlist", "join", `{"quantity":2,"on_release":"book"}`)
	if !replayed.Replayed || !strings.Contains(string(replayed.Body), `"status":"waiting"`) {
		t.Errorf("repeated: %v %s", replayed.Replayed, replayed.Body)
	}
	o.close(t)
}

// An offer that is not taken in time, or is declined, goes to the next.
func TestWaitlist_OfferLapsesAndPassesOn(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 4)
	path := o.show(t, 1, 2*time.Second, nil)
	booking := o.book(t, path, 0, 1)
	for user := 1; user <= 3; user++ {
		o.join(t, path, user, 1, "hold")
	}
	o.cancel(t, 0, booking)
	offer := o.me(t, path, 1)
	if offer.Status != "offered" {
		t.Fatalf("the first is %+v", offer)
	}
	lapsed := o.becomes(t, path, 1, "expired")
	if now := time.Now(); now.Before(*lapsed.ExpiresAt) {
		t.Errorf("the offer lapsed %s early", lapsed.ExpiresAt.Sub(now))
	}
	o.users[1].Must(t, 410, "POST", "/reservations/"+offer.ReservationID+"/confirm", "", "")
	if next := o.me(t, path, 2); next.Status != "offered" {
		t.Errorf("the second is %+v", next)
	}
	for range 2 {
		o.users[2].Must(t, 204, "DELETE", path+"/waitlist/me", "", "")
	}
	last := o.me(t, path, 3)
	if last.Status != "offered" {
		t.Fatalf("the third is %+v", last)
	}
	o.users[3].Must(t, 200, "POST", "/reservations/"+last.ReservationID+"/confirm", "", "")
	if got := o.me(t, path, 3).Status; got != "booked" {
		t.Errorf("the third is %s", got)
	}
	o.close(t)
}

// More capacity serves those who wait at once, in order, and passes over one for whom it is too little.
func TestWaitlist_CapacityServes(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 4)
	path := o.show(t, 4, time.Hour, nil)
	o.book(t, path, 0, 4)
	large, middle, small := o.join(t, path, 1, 4, "book"), o.join(t, path, 2, 2, "book"), o.join(t, path, 3, 1, "hold")
	o.admin.Must(t, 200, "PUT", "/admin"+path, "", proctest.EventBody("Hamlet", 7, time.Hour), "If-Match", `"1"`)
	if got := o.me(t, path, 1); got.Status != "waiting" || got.Position != 1 || large.Position != 1 {
		t.Errorf("four seats: %+v", got)
	}
	if got := o.me(t, path, 2); got.Status != "booked" || middle.Position != 2 {
		t.Errorf("two seats: %+v", got)
	}
	if got := o.me(t, path, 3); got.Status != "offered" || small.Position != 3 {
		t.Errorf("one seat: %+v", got)
	}
	if counts := o.counts(t, path); counts.Available != 0 || counts.Waitlisted != 1 {
		t.Errorf("counts %+v", counts)
	}
	o.close(t)
}

// The waitlist outlives the node that kept it: places, priorities and the answers to keys.
func TestWaitlist_OutlivesItsNode(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 4)
	path := o.show(t, 1, time.Hour, nil)
	booking := o.book(t, path, 0, 1)
	var places []place
	for user := 1; user <= 3; user++ {
		places = append(places, o.join(t, path, user, 1, "book"))
	}
	o.admin.Must(t, 200, "PUT", "/admin"+path+"/waitlist/"+places[2].ID, "", `{"priority":7}`)
	first := o.users[1].Must(t, 201, "POST", path+"/waitlist", "join", `{"quantity":1,"on_release":"book"}`)
	o.users[0].Must(t, 404, "GET", path+"/waitlist/me", "", "")

	o.restart(t)
	again := o.users[1].Must(t, 201, "POST", path+"/waitlist", "join", `{"quantity":1,"on_release":"book"}`)
	if !again.Replayed || string(again.Body) != string(first.Body) {
		t.Errorf("replayed %v\n%s\n%s", again.Replayed, first.Body, again.Body)
	}
	o.users[1].Must(t, 422, "POST", path+"/waitlist", "join", `{"quantity":1,"on_release":"hold"}`)
	order := func() (ids []string) {
		t.Helper()
		var list struct {
			Data []place `json:"data"`
		}
		into(t, o.admin.Must(t, 200, "GET", "/admin"+path+"/waitlist?status=waiting", "", ""), &list)
		for i, p := range list.Data {
			if p.Position != i+1 {
				t.Errorf("%s is listed as %d and stands at %d", p.ID, i+1, p.Position)
			}
			ids = append(ids, p.ID)
		}
		return ids
	}
	if got, want := order(), []string{places[2].ID, places[0].ID, places[1].ID}; !slices.Equal(got, want) {
		t.Errorf("order of service %v, want %v", got, want)
	}
	o.cancel(t, 0, booking)
	if got := o.me(t, path, 3); got.Status != "booked" || got.Priority != 7 {
		t.Errorf("the preferred one is %+v", got)
	}
	if got, want := order(), []string{places[0].ID, places[1].ID}; !slices.Equal(got, want) {
		t.Errorf("order of service %v, want %v", got, want)
	}
	o.restart(t)
	o.cancel(t, 3, o.me(t, path, 3).ReservationID)
	if got := o.me(t, path, 1); got.Status != "booked" {
		t.Errorf("the next one is %+v", got)
	}
	o.close(t)
}

// Nobody is served at an event that has begun: the waitlist is closed, and a seat that is freed stays free.
func TestWaitlist_ClosesWhenTheEventBegins(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 3)
	begins := time.Now().Add(4 * time.Second).UTC()
	path := o.show(t, 1, time.Hour, map[string]any{"starts_at": begins.Format(time.RFC3339Nano)})
	booking := o.book(t, path, 0, 1)
	o.join(t, path, 1, 1, "book")
	closed := o.becomes(t, path, 1, "closed")
	if now := time.Now(); now.Before(begins.Truncate(time.Millisecond)) {
		t.Errorf("closed %s early: %+v", begins.Sub(now), closed)
	}
	o.cancel(t, 0, booking)
	if counts := o.counts(t, path); counts.Available != 1 || counts.Waitlisted != 0 {
		t.Errorf("counts %+v", counts)
	}
	for _, route := range []string{"/waitlist", "/book"} {
		if code := o.users[2].Must(t, 409, "POST", path+route, "late", `{"quantity":1}`).Code(t); code != "event_not_on_sale" {
			t.Errorf("%s: %s", route, code)
		}
	}
	o.users[1].Must(t, 204, "DELETE", path+"/waitlist/me", "", "")
	o.close(t)
}

// What a user holds, has booked and waits for counts towards max_per_user.
func TestWaitlist_UserLimit(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 2)
	path := o.show(t, 4, time.Hour, map[string]any{"max_per_user": 3})
	booking := o.book(t, path, 0, 3)
	for _, quantity := range []int{1, 4} {
		body := fmt.Sprintf(`{"quantity":%d}`, quantity)
		if code := o.users[0].Must(t, 422, "POST", path+"/book", fmt.Sprint("more", quantity), body).Code(t); code != "user_limit_exceeded" {
			t.Errorf("%d more: %s", quantity, code)
		}
	}
	o.book(t, path, 1, 1)
	if code := o.users[0].Must(t, 422, "POST", path+"/waitlist", "wait", `{"quantity":1}`).Code(t); code != "user_limit_exceeded" {
		t.Errorf("waiting for more: %s", code)
	}
	o.join(t, path, 1, 2, "book")
	o.restart(t)
	if code := o.users[1].Must(t, 422, "POST", path+"/book", "and-more", `{"quantity":1}`).Code(t); code != "user_limit_exceeded" {
		t.Errorf("after the restart: %s", code)
	}
	o.cancel(t, 0, booking)
	if got := o.me(t, path, 1); got.Status != "booked" {
		t.Errorf("who waits is %+v", got)
	}
	o.close(t)
}

// Who joined at any node is served by the one that takes over from a node that has died.
func TestWaitlist_OutlivesTheDeathOfItsOwner(t *testing.T) {
	t.Parallel()
	c := proctest.Start(t, proctest.Config{Nodes: 2, Quorum: 1})
	path := c.Members[0].CreateEvent(t, 1, time.Hour)
	tokens := c.Members[0].Users(t, 3)
	seller := c.Members[0].Client(t, tokens[0])
	booking := seller.Must(t, 201, "POST", path+"/book", "k", `{"quantity":1}`).Seats(t).ID
	seller.Must(t, 200, "POST", "/reservations/"+booking+"/confirm", "", "")
	for user := 1; user <= 2; user++ {
		c.Members[user-1].Client(t, tokens[user]).Must(t, 201, "POST", path+"/waitlist", "k", `{"quantity":1}`)
	}
	owner, _ := c.Owner(t)
	survivor := c.Members[1-owner.Number]
	owner.Kill(t)
	proctest.Eventually(t, proctest.UpMax, func() error {
		a, err := survivor.Client(t, tokens[0]).Send(t.Context(), "POST", "/bookings/"+booking+"/cancel", "", "")
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	for user, want := range map[int]string{1: "booked", 2: "waiting"} {
		var p place
		into(t, survivor.Client(t, tokens[user]).Must(t, 200, "GET", path+"/waitlist/me", "", ""), &p)
		if p.Status != want {
			t.Errorf("user %d is %+v, want %s", user, p, want)
		}
	}
	again := survivor.Client(t, tokens[2]).Must(t, 201, "POST", path+"/waitlist", "k", `{"quantity":1}`)
	if !again.Replayed {
		t.Errorf("repeated at the other node: %s", again.Body)
	}
}
