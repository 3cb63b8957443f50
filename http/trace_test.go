package http

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const (
	exampleTrace   = "00-" + exampleTraceID + "-00f067aa0ba902b7-01"
	exampleTraceID = "4bf92f3577b34da6a3ce929d0e0e4736"
)

func TestTrace_ValidOnesOnly(t *testing.T) {
	const ids = "-" + exampleTraceID + "-00f067aa0ba902b7-"
	for sent, want := range map[string]string{
		exampleTrace:      exampleTrace,
		"00" + ids + "00": "00" + ids + "00",
		"00" + ids + "ff": "00" + ids + "ff",
		"00-0000000000000000000000000000000a-000000000000000b-00": "00-0000000000000000000000000000000a-000000000000000b-00",
		// Later versions may say more.
		"01" + ids + "01":           "01" + ids + "01",
		"cc" + ids + "01-":          "cc" + ids + "01",
		"fe" + ids + "01-what-éver": "fe" + ids + "01",

		"": "", "00": "", "ff" + ids + "01": "", "0F" + ids + "01": "", "g0" + ids + "01": "",
		exampleTrace + "-": "", exampleTrace + "-00": "", exampleTrace + "0": "", exampleTrace[:54]: "",
		"01" + ids + "01.": "", "01" + ids + "011": "",
		"00" + ids + "0": "", "00" + ids + "0g": "", "00" + ids + "0A": "", "00" + ids + "-1": "",
		" " + exampleTrace: "", exampleTrace + " ": "",
		"00-" + strings.ToUpper(exampleTraceID) + "-00f067aa0ba902b7-01": "",
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01":         "",
		"00-" + exampleTraceID + "-0000000000000000-01":                  "",
		"00-" + exampleTraceID[1:] + "-00f067aa0ba902b7-011":             "",
		"00-" + exampleTraceID + "_00f067aa0ba902b7-01":                  "",
		"00_" + exampleTraceID + "-00f067aa0ba902b7-01":                  "",
		"00-" + exampleTraceID + "-00f067aa0ba902b7_01":                  "",
		"00-" + exampleTraceID + "-00f067aa0ba902b7-é":                   "",
	} {
		if got := traceOf(&http.Request{Header: http.Header{"Traceparent": {sent}}}); got != want {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
	for _, sent := range [][]string{nil, {exampleTrace, exampleTrace}} {
		if got := traceOf(&http.Request{Header: http.Header{"Traceparent": sent}}); got != "" {
			t.Errorf("%q: got %q", sent, got)
		}
	}
}

func TestTrace_ReachesTheEngine(t *testing.T) {
	w, box := newBoxSite(t)
	organizer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), nil)
	held := func(key string) string {
		_, r := w.book(t, 1, organizer, key, `{"quantity":1}`)
		return r.ID
	}
	a, b := held("a"), held("b")
	const revision = `{"name":"Jazz","timezone":"Europe/Berlin","starts_at":"2027-04-01T20:00:00Z","ends_at":"2027-04-01T23:00:00Z",
		"currency":"EUR","tiers":[{"id":"t1","name":"Floor","capacity":100,"base_price_minor":2500}]}`
	for _, step := range []struct{ method, path, body string }{
		{"POST", "/events/evt_0000000000001/book", `{"quantity":1}`},
		{"POST", "/reservations/" + a + "/confirm", ""},
		{"POST", "/bookings/" + a + "/cancel", ""},
		{"DELETE", "/reservations/" + b, ""},
		{"PUT", "/admin/events/evt_0000000000001", revision},
		{"POST", "/admin/events/evt_0000000000001/publish", ""},
		{"POST", "/admin/events/evt_0000000000001/cancel", ""},
	} {
		for _, trace := range []string{exampleTrace, ""} {
			headers := []string{"Authorization", organizer, "Idempotency-Key", "key" + trace, "If-Match", "*", "X-Request-Id", "r-" + step.method}
			if trace != "" {
				headers = append(headers, "Traceparent", trace)
			}
			if got := w.do(t, step.method, step.path, step.body, headers...); got.status >= 300 {
				t.Fatalf("%s %s: %d %s", step.method, step.path, got.status, got.body)
			}
			if got := box.lastRequest(t); got.Trace != trace || got.ID != "r-"+step.method {
				t.Errorf("%s %s: %q of request %s, want %q", step.method, step.path, got.Trace, got.ID, trace)
			}
		}
	}
}

func TestTrace_StandsInTheLogs(t *testing.T) {
	w := newSite(t, func(c *Config) { c.AccessLog = 1 }, route{method: "GET", path: "/broken", handle: func(*gin.Context) error {
		return errors.New("disk on fire")
	}})
	for _, c := range []struct {
		sent string
		want any
	}{{exampleTrace, exampleTraceID}, {"", nil}, {"00-x", nil}} {
		before := len(w.logs.lines())
		w.do(t, "GET", "/broken", "", "Traceparent", c.sent)
		eventually(t, "both lines are logged", func() bool { return len(w.logs.lines()) == before+2 })
		for _, line := range w.logs.lines()[before:] {
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatal(err)
			}
			if got := record["trace_id"]; got != c.want {
				t.Errorf("traceparent %q: %v in %s", c.sent, got, line)
			}
		}
	}
}
