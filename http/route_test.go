package http

import (
	"net/http"
	"testing"
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
			t.Errorf("%s: bookings are limited for each user, and nothing else is", name)
		}
		if r.limit == limitBook {
			booking++
		}
		if r.access == public && r.method != http.MethodGet && r.limit != limitAuth {
			t.Errorf("%s: anyone may change something without limit", name)
		}
		if r.always && r.method != http.MethodGet {
			t.Errorf("%s: is answered under overload", name)
		}
	}
	if booking != 1 || len(table) < 30 {
		t.Errorf("%d routes, %d of them book", len(table), booking)
	}
}
