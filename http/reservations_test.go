package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

func TestReservationJSON(t *testing.T) {
	at := time.Date(2027, time.March, 1, 12, 0, 0, 120e6, time.UTC)
	two, err := evently.NewItems(
		evently.Item{Tier: 31, Quantity: 1, UnitPriceMinor: 100}, evently.Item{Tier: 0, Quantity: 2, UnitPriceMinor: 2500},
	)
	if err != nil {
		t.Fatal(err)
	}
	held := evently.Reservation{
		ID: evently.ReservationID{Event: 1, Token: 1<<64 - 1}, User: 3, Items: evently.OneItem(evently.Item{Quantity: 2, UnitPriceMinor: 2500}),
		Currency: "EUR", CreatedAt: at, ExpiresAt: at.Add(10 * time.Minute), Seq: 7,
	}
	booked, cancelled, expired := held, held, held
	booked.Items, booked.Status, booked.ConfirmedAt, booked.Seq = two, evently.Confirmed, at.Add(time.Second), 8
	cancelled.Status, cancelled.EndedAt, cancelled.Seq = evently.Cancelled, at.Add(880*time.Millisecond), 9
	expired.Status, expired.EndedAt, expired.Seq = evently.Expired, at.Add(10*time.Minute), 10

	const ids = `{"id":"rsv_0000000000001fzzzzzzzzzzzz","event_id":"evt_0000000000001","user_id":"usr_0000000000003",`
	const one = `"quantity":2,"items":[{"tier_id":"t1","quantity":2,"unit_price_minor":2500}],"total_minor":5000,`
	const times = `"currency":"EUR","created_at":"2027-03-01T12:00:00.12Z","expires_at":"2027-03-01T12:10:00.12Z",`
	for _, test := range []struct {
		r    evently.Reservation
		want string
	}{
		{held, ids + `"status":"held",` + one + times + `"confirmed_at":null,"cancelled_at":null,"seq":7}`},
		{booked, ids + `"status":"confirmed","quantity":3,"items":[{"tier_id":"t1","quantity":2,"unit_price_minor":2500},` +
			`{"tier_id":"t32","quantity":1,"unit_price_minor":100}],"total_minor":5100,` + times +
			`"confirmed_at":"2027-03-01T12:00:01.12Z","cancelled_at":null,"seq":8}`},
		{cancelled, ids + `"status":"cancelled",` + one + times + `"confirmed_at":null,"cancelled_at":"2027-03-01T12:00:01Z","seq":9}`},
		{expired, ids + `"status":"expired",` + one + times + `"confirmed_at":null,"cancelled_at":null,"seq":10}`},
	} {
		got := appendReservation([]byte("kept "), &test.r)
		if string(got) != "kept "+test.want {
			t.Errorf("%s:\n got %s\nwant kept %s", test.r.Status, got, test.want)
		}
		if !json.Valid(got[len("kept "):]) {
			t.Errorf("%s: not JSON: %s", test.r.Status, got)
		}
	}
}

func TestReservation_ConfirmedIsReadBack(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	_, r := w.book(t, 1, bearer, "k", `{"quantity":2}`)
	w.clock.add(time.Minute)

	first := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", `{"payment_token":"tok_1"}`, "Authorization", bearer)
	var confirmed reservationBody
	first.decode(t, &confirmed)
	if first.status != 200 || confirmed.Status != "confirmed" || confirmed.ConfirmedAt == nil || !confirmed.ConfirmedAt.Equal(w.clock.Now()) {
		t.Fatalf("confirm: status %d: %s", first.status, first.body)
	}
	w.clock.add(5 * time.Minute)
	for _, request := range []string{"POST /reservations/%s/confirm", "GET /reservations/%s", "GET /bookings/%s"} {
		method, path, _ := strings.Cut(fmt.Sprintf(request, r.ID), " ")
		again := w.do(t, method, path, "", "Authorization", bearer)
		if again.status != 200 || !bytes.Equal(again.body, first.body) {
			t.Errorf("%s: status %d: %s, want %s", request, again.status, again.body, first.body)
		}
	}
	w.do(t, "DELETE", "/reservations/"+r.ID, "", "Authorization", bearer).problem(t, evently.CodeReservationConfirmed)
}

func TestReservation_ConfirmBodyIsStrict(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	_, r := w.book(t, 1, bearer, "k", `{"quantity":2}`)
	for body, field := range map[string]string{`{"payment_token":1}`: "payment_token", `{"pay":1}`: "pay", `[]`: "body", `{}{}`: "body"} {
		w.do(t, "POST", "/reservations/"+r.ID+"/confirm", body, "Authorization", bearer).field(t, field)
	}
	for _, body := range []string{`{}`, `{"payment_token":null}`} {
		if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", body, "Authorization", bearer); a.status != 200 {
			t.Errorf("%s: %s", body, a.body)
		}
	}
}

func TestReservation_ReleaseAndCancelHaveOneEffect(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	_, held := w.book(t, 1, bearer, "k1", `{"quantity":2}`)
	_, booked := w.book(t, 1, bearer, "k2", `{"quantity":3}`)
	if a := w.do(t, "POST", "/reservations/"+booked.ID+"/confirm", "", "Authorization", bearer); a.status != 200 {
		t.Fatalf("confirm: %s", a.body)
	}
	for range 2 {
		if a := w.do(t, "DELETE", "/reservations/"+held.ID, "", "Authorization", bearer); a.status != 204 || len(a.body) > 0 {
			t.Errorf("release: status %d: %s", a.status, a.body)
		}
	}
	w.do(t, "POST", "/reservations/"+held.ID+"/confirm", "", "Authorization", bearer).problem(t, evently.CodeReservationCancelled)
	var first *answer
	for range 2 {
		w.clock.add(time.Second)
		a := w.do(t, "POST", "/bookings/"+booked.ID+"/cancel", "", "Authorization", bearer)
		if first == nil {
			first = a
		}
		if a.status != 200 || !bytes.Equal(a.body, first.body) || !bytes.Contains(a.body, []byte(`"status":"cancelled"`)) {
			t.Errorf("cancel: status %d: %s, first %s", a.status, a.body, first.body)
		}
	}
	if state, err := box.State(t.Context(), 1); err != nil || state.Totals().Available() != 100 {
		t.Errorf("after all was given back: %+v, %v", state, err)
	}
}

// Ledgers forget reservations that ended longer ago than KeyRetention. Their rows go on answering.
func TestReservation_EndedLongAgoAnswersAsBefore(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, who := w.token(t, evently.RoleUser)
	_, released := w.book(t, 1, bearer, "k1", `{"quantity":2}`)
	_, expired := w.book(t, 1, bearer, "k2", `{"quantity":3}`)
	w.do(t, "DELETE", "/reservations/"+released.ID, "", "Authorization", bearer)
	w.clock.add(11 * time.Minute)
	box.sweep(t, 1)

	check := func() {
		t.Helper()
		ask := func(method, path string) *answer { return w.do(t, method, path, "", "Authorization", bearer) }
		ask("POST", "/reservations/"+released.ID+"/confirm").problem(t, evently.CodeReservationCancelled)
		ask("POST", "/reservations/"+expired.ID+"/confirm").problem(t, evently.CodeReservationExpired)
		ask("POST", "/bookings/"+expired.ID+"/cancel").problem(t, evently.CodeReservationExpired)
		if a := ask("POST", "/bookings/"+released.ID+"/cancel"); a.status != 200 || !bytes.Contains(a.body, []byte(`"status":"cancelled"`)) {
			t.Errorf("cancel again: status %d: %s", a.status, a.body)
		}
		for _, id := range []string{released.ID, expired.ID} {
			if a := ask("DELETE", "/reservations/"+id); a.status != 204 {
				t.Errorf("release again: status %d: %s", a.status, a.body)
			}
		}
	}
	check()
	w.clock.add(evently.KeyRetention + time.Hour)
	bearer = w.sign(t, who)                              // the token has expired too
	_, r := w.book(t, 1, bearer, "k3", `{"quantity":1}`) // an entry has the ledger forget
	if _, found := box.ledgers[1].Reservation(mustParse(t, released.ID).Token); found {
		t.Fatal("the ledger still knows the released reservation")
	}
	check()
	w.do(t, "DELETE", "/reservations/"+r.ID, "", "Authorization", bearer)
}

// sign makes an access token.
func (w *site) sign(t testing.TB, who evently.Principal) (bearer string) {
	t.Helper()
	text, err := w.server.tokens.sign(who)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + text
}

func mustParse(t testing.TB, id string) evently.ReservationID {
	t.Helper()
	parsed, err := evently.ParseReservationID(id)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestReservation_HoldThatExpiredCannotBeConfirmed(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	_, r := w.book(t, 1, bearer, "k", `{"quantity":2}`)
	w.clock.add(10 * time.Minute)
	w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer).problem(t, evently.CodeReservationExpired)
	w.do(t, "POST", "/bookings/"+r.ID+"/cancel", "", "Authorization", bearer).problem(t, evently.CodeReservationExpired)
}

func TestReservation_OfSomebodyElseIsNotThere(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	_, r := w.book(t, 1, bearer, "k", `{"quantity":2}`)
	other, _ := w.token(t, evently.RoleAdmin)
	routes := []string{
		"GET /reservations/%s", "POST /reservations/%s/confirm", "DELETE /reservations/%s", "GET /bookings/%s", "POST /bookings/%s/cancel",
	}
	for _, request := range routes {
		for id, bearer := range map[string]string{r.ID: other, "rsv_1": bearer, evently.ReservationID{Event: 1, Token: 1}.String(): bearer} {
			method, path, _ := strings.Cut(fmt.Sprintf(request, id), " ")
			w.do(t, method, path, "", "Authorization", bearer).problem(t, evently.CodeReservationNotFound)
		}
		method, path, _ := strings.Cut(fmt.Sprintf(request, r.ID), " ")
		w.do(t, method, path, "").problem(t, evently.CodeUnauthenticated)
	}
	if box.rows[mustParse(t, r.ID)].Status != evently.Held {
		t.Error("somebody else changed the reservation")
	}
}

func TestReservation_ErrorsOfThePortsAreTold(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleUser)
	id := evently.ReservationID{Event: 1, Token: 1}.String()
	for err, code := range map[error]evently.Code{evently.ErrUnavailable: evently.CodeUnavailable, errors.New("torn"): evently.CodeInternal} {
		box.failWith(err)
		for _, request := range []string{
			"GET /reservations/" + id, "POST /reservations/" + id + "/confirm", "DELETE /reservations/" + id, "POST /bookings/" + id + "/cancel",
			"GET /bookings",
		} {
			method, path, _ := strings.Cut(request, " ")
			w.do(t, method, path, "", "Authorization", bearer).problem(t, code)
		}
	}
}

func TestBookings_AreTheUsersNewestFirst(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 2500)), nil)
	box.add(box.event(2, 9, seats("Floor", 100, 2500)), nil)
	bearer, _ := w.token(t, evently.RoleUser)
	other, _ := w.token(t, evently.RoleUser)
	var ids []string
	for i := range 5 {
		w.clock.add(time.Second)
		_, r := w.book(t, evently.EventID(i%2+1), bearer, fmt.Sprint("k", i), `{"quantity":1}`)
		ids = append([]string{r.ID}, ids...)
	}
	w.book(t, 1, other, "k", `{"quantity":1}`)
	w.do(t, "DELETE", "/reservations/"+ids[1], "", "Authorization", bearer)
	if a := w.do(t, "POST", "/reservations/"+ids[2]+"/confirm", "", "Authorization", bearer); a.status != 200 {
		t.Fatalf("confirm: %s", a.body)
	}

	for query, want := range map[string][]string{
		"":                         ids,
		"?status=cancelled":        {ids[1]},
		"?status=confirmed,held":   {ids[0], ids[2], ids[3], ids[4]},
		"?limit=2":                 ids,
		"?limit=1&status=held":     {ids[0], ids[3], ids[4]},
		"?status=expired":          nil,
		"?limit=5&unknown=ignored": ids,
	} {
		var got []string
		for next := ""; ; {
			path := "/bookings" + query
			if next != "" {
				path = "/bookings" + strings.Join([]string{query, "cursor=" + next}, "&")
			}
			var page struct {
				Data       []reservationBody `json:"data"`
				NextCursor *string           `json:"next_cursor"`
			}
			w.do(t, "GET", path, "", "Authorization", bearer).decode(t, &page)
			for _, r := range page.Data {
				got = append(got, r.ID)
			}
			if page.NextCursor == nil {
				break
			}
			next = *page.NextCursor
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
	if a := w.do(t, "GET", "/bookings?status=expired", "", "Authorization", bearer); string(a.body) != `{"data":[],"next_cursor":null}` {
		t.Errorf("empty list: %s", a.body)
	}
	for query, field := range map[string]string{"status=paid": "status", "limit=0": "limit", "cursor=x": "cursor", "status=held,": "status"} {
		w.do(t, "GET", "/bookings?"+query, "", "Authorization", bearer).field(t, field)
	}
}
