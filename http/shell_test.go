package http

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/evently/evently"
)

func TestShell_PutsTheChainAroundConstants(t *testing.T) {
	const event = "/events/evt_3w4zq9d0b7c2k"
	w := newSite(t, nil)
	config := newConfig()
	config.Now = w.clock.Now
	server, err := NewShell(config, Constant{Method: "POST", Path: "/events/:id/book", Status: 201, Body: []byte(`{"id":"rsv"}`)},
		Constant{Method: "GET", Path: "/events/:id", Status: 200, Body: []byte(`{"id":"evt"}`)})
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(server.Handler())
	t.Cleanup(listener.Close)
	w.client, w.url, w.server = listener.Client(), listener.URL, server
	bearer, _ := w.token(t, evently.RoleUser)

	if a := w.do(t, "GET", event, ""); a.status != http.StatusOK || string(a.body) != `{"id":"evt"}` || a.header.Get("X-Request-Id") == "" {
		t.Errorf("a public route: %d %s %v", a.status, a.body, a.header)
	}
	if a := w.do(t, "POST", event+"/book", `{"quantity":1}`, "Idempotency-Key", "k"); a.status != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", a.status, a.body)
	}
	if a := w.do(t, "POST", event+"/book", `{"quantity":1}`, "Authorization", bearer); a.status != http.StatusBadRequest {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}
	a := w.do(t, "POST", event+"/book", `{"quantity":1}`, "Authorization", bearer, "Idempotency-Key", "k")
	if a.status != http.StatusCreated || string(a.body) != `{"id":"rsv"}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.do(t, "GET", "/livez", ""); a.status != http.StatusOK {
		t.Errorf("another route: %d %s", a.status, a.body)
	}
}

func TestShell_KnowsItsRoutes(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a constant for no route is taken")
		}
	}()
	_, err := NewShell(newConfig(), Constant{Method: "GET", Path: "/nowhere"})
	t.Error(err)
}
