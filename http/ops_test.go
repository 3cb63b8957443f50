package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evently/evently"
)

func TestHealth(t *testing.T) {
	type state struct{ database, mail error }
	var now state
	var calls atomic.Int64
	w := newSite(t, func(c *Config) {
		c.Health = []HealthCheck{
			{"database", true, func(context.Context) error { calls.Add(1); return now.database }},
			{"mail", false, func(ctx context.Context) error {
				if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > healthTimeout {
					return errors.New("no deadline")
				}
				return now.mail
			}},
		}
	})
	down := errors.New("dial tcp 10.0.0.1: connection refused")
	for _, c := range []struct {
		state
		status                    int
		wantAll, wantDB, wantMail string
	}{
		{state{nil, nil}, 200, "ok", "ok", "ok"},
		{state{nil, down}, 200, "degraded", "ok", "down"},
		{state{down, nil}, 503, "down", "down", "ok"},
		{state{down, down}, 503, "down", "down", "down"},
	} {
		now = c.state
		want := fmt.Sprintf(`{"status":%q,"checks":[{"name":"database","status":%q,"needed":true},{"name":"mail","status":%q,"needed":false}]}`,
			c.wantAll, c.wantDB, c.wantMail)
		a := w.do(t, "GET", "/health", "")
		if a.status != c.status || string(a.body) != want || (a.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("got  %d %s\nwant %d %s", a.status, a.body, c.status, want)
		}
		w.clock.add(healthTTL)
	}
	if lines := w.logs.lines(); len(lines) != 4 || !strings.Contains(lines[0], "10.0.0.1") {
		t.Errorf("logged %q", lines)
	}
	// However many ask, a dependency is asked once a second.
	calls.Store(0)
	for range 5 {
		w.do(t, "GET", "/health", "")
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestReadiness_NeedsWhatTheNodeNeeds(t *testing.T) {
	var database, mail error
	w := newSite(t, func(c *Config) {
		c.Health = []HealthCheck{
			{"database", true, func(context.Context) error { return database }}, {"mail", false, func(context.Context) error { return mail }},
		}
	})
	mail = errors.New("away")
	if a := w.do(t, "GET", "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("without what is not needed: %d %s", a.status, a.body)
	}
	database = errors.New("away")
	w.clock.add(healthTTL)
	if a := w.do(t, "GET", "/readyz", ""); a.problem(t, evently.CodeUnavailable).Detail != errNotReady.Detail || a.header.Get("Retry-After") != "1" {
		t.Errorf("%v %s", a.header, a.body)
	}
}

// Who comes while the checks wait for something that hangs gets their result, and does not wait for checks of its own behind those of
// others.
func TestReadiness_OfChecksThatTakeLongIsShared(t *testing.T) {
	var w *site
	var calls atomic.Int64
	w = newSite(t, func(c *Config) {
		c.Health = []HealthCheck{{"database", true, func(context.Context) error {
			calls.Add(1)
			w.clock.add(healthTimeout)
			return context.DeadlineExceeded
		}}}
	})
	for range 5 {
		if a := w.do(t, "GET", "/readyz", ""); a.status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d rounds of checks, want 1", calls.Load())
	}
	w.clock.add(healthTTL)
	w.do(t, "GET", "/readyz", "")
	if calls.Load() != 2 {
		t.Errorf("%d rounds of checks after the result was too old, want 2", calls.Load())
	}
}

func TestHealth_WithoutChecks(t *testing.T) {
	w := newSite(t, nil)
	if a := w.do(t, "GET", "/health", ""); a.status != http.StatusOK || string(a.body) != `{"status":"ok","checks":[]}` {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestInfo(t *testing.T) {
	w := newSite(t, func(c *Config) {
		c.Info = Info{Version: "1.2.3", Commit: "abc", Node: "n1", Capabilities: []string{"bookings"}}
	})
	if a := w.do(t, "GET", "/info", ""); string(a.body) != `{"version":"1.2.3","commit":"abc","node":"n1","capabilities":["bookings"],"cluster":null}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	w = newSite(t, nil)
	if a := w.do(t, "GET", "/info", ""); !strings.Contains(string(a.body), `"capabilities":[]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	w = newSite(t, func(c *Config) {
		c.Membership = func() Membership { return Membership{Members: 3, Quorum: 2, Quorate: true} }
	})
	const want = `,"cluster":{"members":3,"quorum":2,"quorate":true,"serving":false}}`
	if a := w.do(t, "GET", "/info", ""); !strings.HasSuffix(string(a.body), want) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
