package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

// problem is the body of an error, RFC 9457.
type problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      evently.Code   `json:"code"`
	RequestID string         `json:"request_id"`
	Errors    []problemField `json:"errors,omitempty"`
	Available *int           `json:"available,omitempty"`
}

type problemField struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func problemType(code evently.Code) string { return problemTypePrefix + string(code) }

// Every code of the domain has a status: one that was forgotten would be answered as 500.
func TestProblem_EveryCodeHasAStatus(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes++
		if kind := problemKinds[evently.Code(text)]; kind.status < 400 || kind.status > 599 || kind.title == "" {
			t.Errorf("%s is %+v", text, kind)
		}
		return true
	})
	if codes < 20 || len(problemKinds) != codes+3 {
		t.Errorf("%d codes in the domain, %d problems", codes, len(problemKinds))
	}
}

// failing answers every request with an error.
func failing(err error) route {
	return route{method: "GET", path: "/failing", handle: func(*gin.Context) error { return err }}
}

func TestProblem_IsMadeOfTheRefusal(t *testing.T) {
	for code, kind := range problemKinds {
		refusal := &evently.Error{Code: code, Detail: "Because."}
		w := newSite(t, nil, failing(fmt.Errorf("secret: %w", refusal)))
		a := w.do(t, "GET", "/failing", "")
		p := a.problem(t, code)
		if p.Detail != "Because." || strings.Contains(string(a.body), "secret") || len(p.Errors) > 0 || p.Title != kind.title {
			t.Errorf("%s: %s", code, a.body)
		}
		if (p.Available != nil) != (code == evently.CodeSoldOut) {
			t.Errorf("%s: %s", code, a.body)
		}
		if (a.header.Get("WWW-Authenticate") != "") != (a.status == http.StatusUnauthorized) {
			t.Errorf("%s: WWW-Authenticate is %q", code, a.header.Get("WWW-Authenticate"))
		}
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", code, got)
		}
	}
}

// The problems are put together by hand, and are what encoding/json makes of a problem to the byte.
func TestProblem_IsEncodedAsByReflection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]*`))
		refusal := &evently.Error{
			Code:   rapid.SampledFrom(slices.Sorted(maps.Keys(problemKinds))).Draw(t, "code"),
			Detail: text.Draw(t, "detail"), Available: rapid.Int().Draw(t, "available"),
		}
		kind := problemKinds[refusal.Code]
		body := problem{
			Type: problemType(refusal.Code), Title: kind.title, Status: kind.status, Detail: refusal.Detail, Code: refusal.Code,
			RequestID: rapid.StringMatching(`[A-Za-z0-9._-]{1,128}`).Draw(t, "request_id"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "fields") {
			field := evently.FieldError{Field: text.Draw(t, "field"), Message: text.Draw(t, "message")}
			refusal.Fields, body.Errors = append(refusal.Fields, field), append(body.Errors, problemField(field))
		}
		if refusal.Code == evently.CodeSoldOut {
			body.Available = &refusal.Available
		}
		if got, want := string(appendProblem(nil, refusal, kind, body.RequestID)), string(encoded(body)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestProblem_TellsWhatTheRefusalKnows(t *testing.T) {
	ask := func(err error) *answer { return newSite(t, nil, failing(err)).do(t, "GET", "/failing", "") }
	for available := range 2 {
		p := ask(&evently.Error{Code: evently.CodeSoldOut, Detail: "x", Available: available}).problem(t, evently.CodeSoldOut)
		if p.Available == nil || *p.Available != available {
			t.Errorf("available is %v, want %d", p.Available, available)
		}
	}
	fields := evently.FieldErrors{{Field: "a", Message: `<"é">`}, {Field: "b[0]", Message: "y"}}
	p := ask(fields.Err()).problem(t, evently.CodeInvalidRequest)
	if len(p.Errors) != 2 || p.Errors[0] != (problemField{"a", `<"é">`}) || p.Errors[1] != (problemField{"b[0]", "y"}) {
		t.Errorf("errors are %v", p.Errors)
	}
	for after, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Second: "1", 61500 * time.Millisecond: "62"} {
		a := ask(&evently.Error{Code: evently.CodeOverloaded, Detail: "x", RetryAfter: after})
		if a.problem(t, evently.CodeOverloaded); a.header.Get("Retry-After") != want {
			t.Errorf("Retry-After is %q, want %q", a.header.Get("Retry-After"), want)
		}
	}
	for _, err := range []error{evently.ErrOverloaded, evently.ErrUnavailable} {
		if a := ask(err); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%v: %d, Retry-After is %q", err, a.status, a.header.Get("Retry-After"))
		}
	}
}

// What is no refusal is told to the log, once, and not to the client.
func TestProblem_InternalErrorsAreLoggedAndNotShown(t *testing.T) {
	for name, err := range map[string]error{
		"any error": errors.New("password=hunter2"), "unknown code": &evently.Error{Code: "hunter2", Detail: "hunter2"},
	} {
		w := newSite(t, nil, failing(err))
		a := w.do(t, "GET", "/failing", "", "X-Request-Id", "req-1")
		if a.problem(t, evently.CodeInternal); bytes.Contains(a.body, []byte("hunter2")) {
			t.Errorf("%s: %s", name, a.body)
		}
		lines := w.logs.lines()
		if len(lines) != 1 {
			t.Fatalf("%s: %d lines: %q", name, len(lines), lines)
		}
		var line struct {
			Level, Error, Route string
			RequestID           string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
			t.Fatal(err)
		}
		if line.Level != "ERROR" || !strings.Contains(line.Error, "hunter2") || line.Route != "/failing" || line.RequestID != "req-1" {
			t.Errorf("%s: logged %s", name, lines[0])
		}
	}
}

func TestProblem_OutOfTimeIsUnavailable(t *testing.T) {
	for _, err := range []error{context.DeadlineExceeded, fmt.Errorf("query: %w", context.Canceled)} {
		newSite(t, nil, failing(err)).do(t, "GET", "/failing", "").problem(t, evently.CodeUnavailable)
	}
}

func TestProblem_UnavailableIsLoggedWithItsCause(t *testing.T) {
	w := newSite(t, nil, failing(fmt.Errorf("%w: connection refused", evently.ErrUnavailable)))
	w.do(t, "GET", "/failing", "").problem(t, evently.CodeUnavailable)
	if lines := w.logs.lines(); len(lines) != 1 || !strings.Contains(lines[0], "connection refused") || !strings.Contains(lines[0], "WARN") {
		t.Errorf("logged %q", lines)
	}
	w = newSite(t, nil, failing(evently.ErrUnavailable))
	w.do(t, "GET", "/failing", "").problem(t, evently.CodeUnavailable)
	if lines := w.logs.lines(); len(lines) != 0 {
		t.Errorf("logged %q", lines)
	}
}

func TestProblem_IsNotTheAnswerThatWasMeant(t *testing.T) {
	w := newSite(t, nil, route{method: "POST", path: "/fails", handle: func(c *gin.Context) error {
		c.Header("ETag", `"1"`)
		c.Header("Location", "/things/1")
		return evently.ErrUnavailable
	}})
	a := w.do(t, "POST", "/fails", "")
	if a.problem(t, evently.CodeUnavailable); a.header.Get("ETag") != "" || a.header.Get("Location") != "" {
		t.Errorf("%v", a.header)
	}
	if n := testutil.ToFloat64(w.server.metrics.refusals.of(string(evently.CodeUnavailable))); n != 1 {
		t.Errorf("%v counted", n)
	}
}
