package http

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

func TestRoute_UnknownIs404(t *testing.T) {
	w := newSite(t, nil)
	for _, path := range []string{"/nowhere", "/livez/", "//livez", "/LIVEZ", "/me/x"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			w.do(t, method, path, "").problem(t, evently.CodeNotFound)
		}
	}
}

func TestRoute_WrongMethodIs405WithAllow(t *testing.T) {
	w := newSite(t, nil)
	for path, want := range map[string][]string{"/livez": {"GET", "HEAD"}, "/login": {"POST"}, "/sessions/x": {"DELETE"}} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
			if slices.Contains(want, method) {
				continue
			}
			a := w.do(t, method, path, "")
			if method == "HEAD" {
				if a.status != http.StatusMethodNotAllowed {
					t.Errorf("HEAD %s: %d", path, a.status)
				}
			} else {
				a.problem(t, codeMethodNotAllowed)
			}
			got := strings.Split(a.header.Get("Allow"), ", ")
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s %s: Allow is %q", method, path, got)
			}
		}
	}
}

func TestHead_IsGetWithoutItsBody(t *testing.T) {
	w := newSite(t, nil)
	for _, path := range []string{"/livez", "/info", "/me", "/nowhere"} {
		get, head := w.do(t, "GET", path, ""), w.do(t, "HEAD", path, "")
		if head.status != get.status || len(head.body) > 0 {
			t.Errorf("%s: %d with %d bytes, GET is %d", path, head.status, len(head.body), get.status)
		}
		for _, header := range []*answer{get, head} {
			delete(header.header, "X-Request-Id")
			delete(header.header, "Date")
		}
		// The request id, of one length always, stands in the body of a problem.
		if !maps.EqualFunc(get.header, head.header, slices.Equal) {
			t.Errorf("%s: headers %v, GET has %v", path, head.header, get.header)
		}
	}
}

func TestRequestID_IsEchoedOrMade(t *testing.T) {
	w := newSite(t, nil)
	for _, id := range []string{"a", "0AZaz.9_-", strings.Repeat("x", requestIDLenMax)} {
		for _, path := range []string{"/livez", "/nowhere", "/me"} {
			if got := w.do(t, "GET", path, "", "X-Request-Id", id).header.Get("X-Request-Id"); got != id {
				t.Errorf("%s: sent %q, got %q", path, id, got)
			}
		}
	}
	seen := make(map[string]bool)
	for _, headers := range [][]string{
		nil, nil,
		{"X-Request-Id", ""},
		{"X-Request-Id", strings.Repeat("x", requestIDLenMax+1)},
		{"X-Request-Id", "a b"},
		{"X-Request-Id", "é"},
		{"X-Request-Id", `"`},
		{"X-Request-Id", "a/b"},
		{"X-Request-Id", "a", "X-Request-Id", "b"},
		{"X-Request-Id", "@"},
		{"X-Request-Id", "["},
		{"X-Request-Id", "`"},
		{"X-Request-Id", "{"},
		{"X-Request-Id", ":"},
	} {
		got := w.do(t, "GET", "/nowhere", "", headers...).problem(t, evently.CodeNotFound).RequestID
		if !validRequestID(got) || len(got) < 10 || seen[got] {
			t.Errorf("%q: made %q", headers, got)
		}
		seen[got] = true
	}
}

func TestHeaders_OfEveryAnswer(t *testing.T) {
	w := newSite(t, nil)
	for _, path := range []string{"/livez", "/nowhere", "/me"} {
		a := w.do(t, "GET", path, "")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
}

func TestPanic_IsA500AndTheProcessLives(t *testing.T) {
	w := newSite(t, nil, route{method: "GET", path: "/panic", handle: func(*gin.Context) error { panic("hunter2") }})
	for range 2 {
		a := w.do(t, "GET", "/panic", "", "X-Request-Id", "req-1")
		if a.problem(t, evently.CodeInternal); strings.Contains(string(a.body), "hunter2") {
			t.Errorf("shown: %s", a.body)
		}
	}
	lines := w.logs.lines()
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for _, want := range []string{"hunter2", "req-1", "middleware_test.go"} { // the stack names this file
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %q in %s", want, lines[0])
		}
	}
	if got := testutil.ToFloat64(w.server.metrics.panics); got != 2 {
		t.Errorf("%v panics counted", got)
	}
	if n := w.server.metrics.working.Load(); n != 0 {
		t.Errorf("%d requests in flight", n)
	}
}

// A client must not take the beginning of an answer for the whole.
func TestPanic_AfterTheAnswerBeganCutsTheConnection(t *testing.T) {
	begin := func(c *gin.Context) {
		c.Writer.WriteHeader(http.StatusOK)
		_, _ = c.Writer.WriteString("the beginning")
		c.Writer.Flush()
	}
	w := newSite(t, nil,
		route{method: "GET", path: "/panic", handle: func(c *gin.Context) error { begin(c); panic("hunter2") }},
		route{method: "GET", path: "/error", handle: func(c *gin.Context) error { begin(c); return evently.ErrSoldOut }},
		route{method: "GET", path: "/abort", handle: func(c *gin.Context) error { panic(http.ErrAbortHandler) }})
	for _, path := range []string{"/panic", "/error", "/abort"} {
		if a, err := w.try(t.Context(), "GET", path, ""); err == nil {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := w.do(t, "GET", "/livez", ""); a.status != http.StatusOK {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestOverload_IsRefusedAndProbesAreNot(t *testing.T) {
	slow, reached, let := blocking("/slow")
	w := newSite(t, func(c *Config) { c.InFlightMax = 2 }, slow)
	first, second := w.begin(t, "POST", "/slow", "{}"), w.begin(t, "POST", "/slow", "{}")
	<-reached
	<-reached
	for range 3 {
		a := w.do(t, "POST", "/login", "{}")
		if a.problem(t, evently.CodeOverloaded); a.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
	}
	w.do(t, "GET", "/nowhere", "").problem(t, evently.CodeOverloaded)
	for _, path := range []string{"/livez", "/readyz", "/health"} {
		if a := w.do(t, "GET", path, ""); a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	close(let)
	for _, later := range []chan outcome{first, second} {
		if o := <-later; o.err != nil || o.answer.status != http.StatusOK {
			t.Errorf("%+v", o)
		}
	}
	w.do(t, "GET", "/nowhere", "").problem(t, evently.CodeNotFound)
}

// A stream sets the deadline of its own connection, through whatever stands around it.
func TestExchange_ServesTheResponseController(t *testing.T) {
	w := newSite(t, nil, route{method: "GET", path: "/stream", handle: func(c *gin.Context) error {
		if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		writeNothing(c)
		return nil
	}})
	if a := w.do(t, "GET", "/stream", ""); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestRequestTimeout_IsUnavailable(t *testing.T) {
	slow, reached, _ := blocking("/slow")
	w := newSite(t, func(c *Config) { c.RequestTimeout = 10 * time.Millisecond }, slow)
	later := w.begin(t, "POST", "/slow", "{}")
	<-reached
	o := <-later
	if o.err != nil {
		t.Fatal(o.err)
	}
	o.answer.problem(t, evently.CodeUnavailable)
}

// RequestTimeout bounds the work of handlers that wait for it to end, and tells its deadline to those that do not.
func TestRequestTimeout_BoundsTheContext(t *testing.T) {
	const bound = 100 * time.Millisecond
	for _, key := range []string{"", "key-1"} {
		w := newSite(t, func(c *Config) { c.RequestTimeout = bound }, route{
			method: "POST", path: "/slow", key: keyOptional, handle: func(c *gin.Context) error {
				ctx := c.Request.Context()
				if deadline, bounded := ctx.Deadline(); !bounded || time.Until(deadline) > bound {
					t.Errorf("the deadline is %s, %v", deadline, bounded)
				}
				<-ctx.Done()
				return ctx.Err()
			},
		})
		headers := []string{"Idempotency-Key", key}
		if key == "" {
			headers = nil
		}
		if a := w.do(t, "POST", "/slow", "{}", headers...); a.status != http.StatusServiceUnavailable {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
}

func TestCORS(t *testing.T) {
	const ours, other = "https://tickets.example", "https://evil.example"
	w := newSite(t, func(c *Config) { c.CORSOrigins = []string{ours} })
	preflight := func(path, origin string) *answer {
		return w.do(t, "OPTIONS", path, "", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
	}
	for _, path := range []string{"/login", "/me", "/nowhere"} {
		a := preflight(path, ours)
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != ours ||
			!strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") ||
			!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "DELETE") || a.header.Get("Access-Control-Max-Age") == "" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	if a := preflight("/login", other); a.status != http.StatusMethodNotAllowed || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of another origin: %d %v", a.status, a.header)
	}
	a := w.do(t, "GET", "/livez", "", "Origin", ours)
	if a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != ours || a.header.Get("Vary") != "Origin" ||
		!strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "Retry-After") ||
		a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := w.do(t, "GET", "/livez", "", "Origin", other); a.status != http.StatusOK ||
		a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Vary") != "Origin" {
		t.Errorf("another origin: %d %v", a.status, a.header)
	}
	if a := w.do(t, "GET", "/livez", ""); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no origin: %v", a.header)
	}
	w = newSite(t, func(c *Config) { c.CORSOrigins = []string{"*"} })
	if a := w.do(t, "GET", "/livez", "", "Origin", other); a.header.Get("Access-Control-Allow-Origin") != other {
		t.Errorf("any origin: %v", a.header)
	}
	w = newSite(t, nil)
	if a := w.do(t, "GET", "/livez", "", "Origin", ours); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no origins: %v", a.header)
	}
}

func TestAccessLog(t *testing.T) {
	w := newSite(t, func(c *Config) { c.AccessLog = 1 })
	token, who := w.token(t, evently.RoleUser)
	a := w.do(t, "GET", "/me?secret=1", "", "Authorization", token, "X-Request-Id", "req-1")
	lines := w.logs.lines()
	if len(lines) != 1 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "INFO", "msg": "request", "request_id": "req-1", "method": "GET", "path": "/me", "status": 200.0, "bytes": float64(len(a.body)),
		"seconds": 0.0, "address": "127.0.0.1", "user": who.User.String(),
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// What clients choose is cut, and not within a character.
func TestAccessLog_IsBounded(t *testing.T) {
	w := newSite(t, func(c *Config) { c.AccessLog = 1 })
	w.do(t, strings.Repeat("M", 2000), "/"+strings.Repeat("%C3%A9", 2000), "")
	var got struct{ Method, Path string }
	if err := json.Unmarshal([]byte(w.logs.lines()[0]), &got); err != nil {
		t.Fatal(err)
	}
	if want := "/" + strings.Repeat("é", (logBytesMax-1)/2); got.Path != want || got.Method != strings.Repeat("M", logBytesMax) {
		t.Errorf("got  %s %s\nwant %s", got.Method, got.Path, want)
	}
}

// A sample has its share of the requests, and all that the server failed at.
func TestAccessLog_IsSampled(t *testing.T) {
	for oneOf, bounds := range map[int][2]int{0: {0, 0}, 1: {200, 200}, 2: {50, 150}, 1 << 40: {0, 0}} {
		w := newSite(t, func(c *Config) { c.AccessLog = oneOf }, failing(evently.ErrUnavailable))
		for range 200 {
			w.do(t, "GET", "/livez", "")
		}
		if n := len(w.logs.lines()); n < bounds[0] || n > bounds[1] {
			t.Errorf("one of %d: %d of 200 are logged", oneOf, n)
		}
		before := len(w.logs.lines())
		w.do(t, "GET", "/failing", "").problem(t, evently.CodeUnavailable)
		if n := len(w.logs.lines()) - before; (n == 1) != (oneOf > 0) {
			t.Errorf("one of %d: %d lines of a failure", oneOf, n)
		}
	}
}

func TestMetrics_CountByRouteAndStatus(t *testing.T) {
	w := newSite(t, nil)
	w.do(t, "GET", "/sessions/x", "")
	w.do(t, "DELETE", "/sessions/x", "")
	w.do(t, "DELETE", "/sessions/y", "")
	w.do(t, "GET", "/livez", "")
	w.do(t, "HEAD", "/livez", "")
	for path := range 20 {
		w.do(t, "BREW", fmt.Sprintf("/nowhere/%d", path), "")
	}
	for _, c := range []struct {
		route, method, status string
		want                  float64
	}{
		{"/sessions/:id", "DELETE", "4xx", 2}, {"/livez", "GET", "2xx", 2}, {unmatched, "any", "4xx", 21},
	} {
		if got := testutil.ToFloat64(w.server.metrics.requests.WithLabelValues(c.route, c.method, c.status)); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	if problems, err := testutil.GatherAndLint(w.server.config.Gatherer); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
