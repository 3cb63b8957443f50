package http

import (
	"net/http"
	"testing"

	"github.com/evently/evently"
)

// What the contract says of all routes of a kind.
func TestRoutes_KeepTheConventions(t *testing.T) {
	table := newSite(t, nil).server.routes()
	seen := make(map[string]bool)
	booking := 0
	for _, r := range table {
		name := r.method + " " + r.path
		if seen[name] {
			t.Errorf("%s stands twice", name)
		}
		seen[name] = true
		if (r.method == http.MethodPost) != (r.key != keyNone) {
			t.Errorf("%s: an Idempotency-Key is for every POST, and for nothing else", name)
		}
		if (r.key == keyBook) != (r.limit == limitBook) {
			t.Errorf("%s: bookings and those who wait are limited for each user, and nothing else is", name)
		}
		if r.limit == limitBook {
			booking++
		}
		if r.access == public && r.method != http.MethodGet && r.limit != limitAuth {
			t.Errorf("%s: anyone may change something without limit", name)
		}
		if r.key == keyOptional && r.workMax > keyedWorkMax {
			t.Errorf("%s: may work for %s, and holds its key for %s at the most", name, r.workMax, keyedWorkMax)
		}
		if r.always && r.method != http.MethodGet {
			t.Errorf("%s: is answered under overload", name)
		}
	}
	if booking != 2 || len(table) < 30 {
		t.Errorf("%d routes, %d of them book or wait for it", len(table), booking)
	}
}

// An escaped slash is part of a name and leads to no other route.
func TestRoutes_EscapedSlash(t *testing.T) {
	w, box := newBoxSite(t)
	event := box.add(box.event(1, 9, seats("Floor", 10, 100)), nil)
	path := "/events/" + event.ID.String()
	if a := w.do(t, "GET", path+"/availability", ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.do(t, "GET", path+"%2Favailability", "").problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", "/events%2F"+event.ID.String(), "").problem(t, evently.CodeNotFound)
}

func TestRoutes_QueryIsStrict(t *testing.T) {
	w, _ := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleAdmin)
	for query, field := range map[string]string{
		"q=%zz": "q", "q=a;limit=2": "q", "utm=%": "utm", "%zz=1": "%zz", "limit=1&limit=2": "limit", "limit=1&l%69mit=1": "limit", "q=&q=": "q",
	} {
		w.do(t, "GET", "/events?"+query, "").field(t, field)
	}
	for _, path := range []string{
		"/admin/events?status=draft&status=draft", "/admin/events/capacity_utilization?status=draft&status=draft", "/bookings?status=held&status=held",
	} {
		w.do(t, "GET", path, "", "Authorization", bearer).field(t, "status")
	}
	for _, query := range []string{"", "&", "utm=1&utm=2", "q=a+b%20c"} {
		if a := w.do(t, "GET", "/events?"+query, ""); a.status != 200 {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
	}
}

func TestRoutes_DeletionsTakeNoBody(t *testing.T) {
	w, _ := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleAdmin)
	for _, path := range []string{
		"/reservations/" + evently.ReservationID{Event: 1, Token: 1}.String(), "/admin/events/" + evently.EventID(1).String(),
	} {
		w.do(t, "DELETE", path, "junk", "Authorization", bearer).field(t, "body")
		if a := w.do(t, "DELETE", path, "{}", "Authorization", bearer); a.status != http.StatusNotFound {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}
