package http

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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
		status int
		want   string
	}{
		{state{nil, nil}, 200, `{"status":"ok","checks":[{"name":"database","status":"ok","needed":true},{"name":"mail","status":"ok","needed":false}]}`},
		{state{nil, down}, 200, `{"status":"degraded","checks":[{"name":"database","status":"ok","needed":true},{"name":"mail","status":"down","needed":false}]}`},
		{state{down, nil}, 503, `{"status":"down","checks":[{"name":"database","status":"down","needed":true},{"name":"mail","status":"ok","needed":false}]}`},
		{state{down, down}, 503, `{"status":"down","checks":[{"name":"database","status":"down","needed":true},{"name":"mail","status":"down","needed":false}]}`},
	} {
		now = c.state
		a := w.do(t, "GET", "/health", "")
		if a.status != c.status || string(a.body) != c.want || (a.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("got  %d %s\nwant %d %s", a.status, a.body, c.status, c.want)
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
	if a := w.do(t, "GET", "/info", ""); string(a.body) != `{"version":"1.2.3","commit":"abc","node":"n1","capabilities":["bookings"]}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	w = newSite(t, nil)
	if a := w.do(t, "GET", "/info", ""); !strings.Contains(string(a.body), `"capabilities":[]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
