package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// counting is a POST route that gives another answer each time.
func counting(path string, access permission) (r route, calls *atomic.Int64) {
	calls = new(atomic.Int64)
	return route{method: "POST", path: path, access: access, key: keyOptional, handle: func(c *gin.Context) error {
		n := calls.Add(1)
		c.Header("Location", fmt.Sprintf("/things/%d", n))
		c.Header("ETag", fmt.Sprintf(`"%d"`, n))
		c.Header("X-Other", "of this transmission")
		writeBody(c, http.StatusCreated, fmt.Appendf(nil, `{"secret":"token-%d"}`, n))
		return nil
	}}, calls
}

func sameAnswer(t *testing.T, got, want *answer) {
	t.Helper()
	if got.status != want.status || !bytes.Equal(got.body, want.body) {
		t.Errorf("got %d %s, want %d %s", got.status, got.body, want.status, want.body)
	}
	for _, name := range []string{"Content-Type", "Location", "Etag"} {
		if got.header.Get(name) != want.header.Get(name) {
			t.Errorf("%s: got %q, want %q", name, got.header.Get(name), want.header.Get(name))
		}
	}
	if got.header.Get("Idempotency-Replayed") != "true" || want.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("Idempotency-Replayed: got %q after %q", got.header.Get("Idempotency-Replayed"), want.header.Get("Idempotency-Replayed"))
	}
}

func TestIdempotency_FirstAnswerAgain(t *testing.T) {
	things, calls := counting("/things/:id", public)
	w := newSite(t, nil, things)
	first := w.do(t, "POST", "/things/a", `{"x":1}`, "Idempotency-Key", "key-1")
	if first.status != http.StatusCreated || string(first.body) != `{"secret":"token-1"}` || first.header.Get("Location") != "/things/1" {
		t.Fatalf("%d %v %s", first.status, first.header, first.body)
	}
	for range 3 {
		again := w.do(t, "POST", "/things/a", `{"x":1}`, "Idempotency-Key", "key-1")
		sameAnswer(t, again, first)
		if again.header.Get("X-Request-Id") == first.header.Get("X-Request-Id") {
			t.Error("the request id of the first request")
		}
	}
	if calls.Load() != 1 || testutil.ToFloat64(w.server.metrics.replays) != 3 {
		t.Errorf("%d calls, %v replays counted", calls.Load(), testutil.ToFloat64(w.server.metrics.replays))
	}
	w.do(t, "POST", "/things/a", `{"x":2}`, "Idempotency-Key", "key-1").problem(t, evently.CodeIdempotencyKeyReused)
	w.do(t, "POST", "/things/a", `{"x": 1}`, "Idempotency-Key", "key-1").problem(t, evently.CodeIdempotencyKeyReused)
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
	// Another key, another path, no key: another request.
	w.do(t, "POST", "/things/a", `{"x":1}`, "Idempotency-Key", "key-2")
	w.do(t, "POST", "/things/b", `{"x":1}`, "Idempotency-Key", "key-1")
	w.do(t, "POST", "/things/a", `{"x":1}`)
	if calls.Load() != 4 || len(w.answers.all()) != 3 {
		t.Errorf("%d calls, %d answers stored", calls.Load(), len(w.answers.all()))
	}
}

func TestIdempotency_ScopeIsTheUser(t *testing.T) {
	things, calls := counting("/things", accountOwn)
	w := newSite(t, nil, things)
	ada, _ := w.token(t, evently.RoleUser)
	bob, _ := w.token(t, evently.RoleUser)
	ask := func(token string) *answer {
		return w.do(t, "POST", "/things", `{}`, "Idempotency-Key", "k", "Authorization", token)
	}
	first, other := ask(ada), ask(bob)
	if bytes.Equal(first.body, other.body) || calls.Load() != 2 {
		t.Errorf("%s and %s", first.body, other.body)
	}
	sameAnswer(t, ask(ada), first)
	sameAnswer(t, ask(bob), other)
}

func TestIdempotency_KeyIsChecked(t *testing.T) {
	things, calls := counting("/things", public)
	w := newSite(t, nil, things)
	for _, headers := range [][]string{
		{"Idempotency-Key", ""},
		{"Idempotency-Key", strings.Repeat("k", 256)},
		{"Idempotency-Key", "a b"},
		{"Idempotency-Key", "é"},
		{"Idempotency-Key", "a", "Idempotency-Key", "b"},
		{"Idempotency-Key", "a\tb"},
	} {
		w.do(t, "POST", "/things", `{}`, headers...).field(t, "Idempotency-Key")
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls", calls.Load())
	}
	for _, key := range []string{"k", strings.Repeat("k", 255), `!"#$%&'()*+,-./:;<=>?@[\]^_{|}~`} {
		if a := w.do(t, "POST", "/things", `{}`, "Idempotency-Key", key); a.status != http.StatusCreated {
			t.Errorf("%q: %d %s", key, a.status, a.body)
		}
	}
}

func TestIdempotency_RequiredWhereTheLedgerRemembers(t *testing.T) {
	w := newSite(t, nil, route{method: "POST", path: "/keyed", key: keyBook, handle: func(c *gin.Context) error {
		key, err := idempotencyKey(c)
		if err != nil {
			return err
		}
		writeJSON(c, http.StatusOK, key)
		return nil
	}})
	w.do(t, "POST", "/keyed", `{}`).problem(t, evently.CodeIdempotencyKeyRequired)
	w.do(t, "POST", "/keyed", `{}`, "Idempotency-Key", "a b").field(t, "Idempotency-Key")
	if a := w.do(t, "POST", "/keyed", `{}`, "Idempotency-Key", "k"); string(a.body) != `"k"` || len(w.answers.all()) != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestIdempotency_WaitsForTheFirstInFlight(t *testing.T) {
	slow, reached, let := blocking("/slow")
	w := newSite(t, nil, slow)
	ask := func() chan outcome { return w.begin(t, "POST", "/slow", `{}`, "Idempotency-Key", "k") }
	first := ask()
	<-reached
	var others []chan outcome
	for range 3 {
		others = append(others, ask())
	}
	eventually(t, "all others wait", func() bool {
		w.answers.mu.Lock()
		defer w.answers.mu.Unlock()
		return w.answers.waiting == len(others)
	})
	close(let) // a second call of the handler would wait for ever in front of reached
	want := <-first
	if want.err != nil || want.answer.status != http.StatusOK {
		t.Fatalf("%+v", want)
	}
	for _, later := range others {
		got := <-later
		if got.err != nil {
			t.Fatal(got.err)
		}
		sameAnswer(t, got.answer, want.answer)
	}
}

// What was refused may be tried again with the same key, and with another body.
func TestIdempotency_RefusalsAreNotStored(t *testing.T) {
	for name, fail := range map[string]func(c *gin.Context) error{
		"refusal": func(*gin.Context) error { return evently.ErrSoldOut },
		"error":   func(*gin.Context) error { return errors.New("x") },
		"panic":   func(*gin.Context) error { panic("x") },
		"panic after writing": func(c *gin.Context) error {
			writeJSON(c, http.StatusOK, "half")
			panic("x")
		},
		"error after writing": func(c *gin.Context) error {
			writeJSON(c, http.StatusOK, "half")
			return evently.ErrOverloaded
		},
		"written 4xx": func(c *gin.Context) error {
			writeJSON(c, http.StatusNotFound, "x")
			return nil
		},
	} {
		failing := true
		w := newSite(t, nil, route{method: "POST", path: "/things", key: keyOptional, handle: func(c *gin.Context) error {
			if failing {
				return fail(c)
			}
			writeNothing(c)
			return nil
		}})
		if a := w.do(t, "POST", "/things", `{"x":1}`, "Idempotency-Key", "k"); a.status < 400 || strings.Contains(string(a.body), "half") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if n := len(w.answers.all()); n != 0 {
			t.Errorf("%s: %d answers stored", name, n)
		}
		failing = false
		first := w.do(t, "POST", "/things", `{"x":2}`, "Idempotency-Key", "k")
		if first.status != http.StatusNoContent {
			t.Errorf("%s: then %d %s", name, first.status, first.body)
		}
		sameAnswer(t, w.do(t, "POST", "/things", `{"x":2}`, "Idempotency-Key", "k"), first)
	}
}

// An answer that cannot be stored is not given either: the next try could not give it again.
func TestIdempotency_AnswerIsStoredBeforeItIsSent(t *testing.T) {
	things, calls := counting("/things", public)
	w := newSite(t, nil, things)
	w.answers.failStore = evently.ErrUnavailable
	a := w.do(t, "POST", "/things", `{}`, "Idempotency-Key", "k")
	if a.problem(t, evently.CodeUnavailable); strings.Contains(string(a.body), "token") {
		t.Errorf("%s", a.body)
	}
	w.answers.failStore = nil
	first := w.do(t, "POST", "/things", `{}`, "Idempotency-Key", "k")
	if first.status != http.StatusCreated || calls.Load() != 2 {
		t.Errorf("%d %s after %d calls", first.status, first.body, calls.Load())
	}
	sameAnswer(t, w.do(t, "POST", "/things", `{}`, "Idempotency-Key", "k"), first)
}

func TestIdempotency_StoredThoughTheRequestRanOutOfTime(t *testing.T) {
	w := newSite(t, func(c *Config) { c.RequestTimeout = time.Millisecond },
		route{method: "POST", path: "/things", key: keyOptional, handle: func(c *gin.Context) error {
			<-c.Request.Context().Done() // and the work was done all the same
			writeJSON(c, http.StatusOK, "done")
			return nil
		}})
	first := w.do(t, "POST", "/things", `{}`, "Idempotency-Key", "k")
	if first.status != http.StatusOK || len(w.answers.all()) != 1 {
		t.Fatalf("%d %s", first.status, first.body)
	}
}

// The effect of a request may be there before its client hangs up; the answer must be there for when the client comes back.
func TestIdempotency_CarriedOutThoughTheClientHasGone(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	w := newSite(t, nil, route{method: "POST", path: "/things", key: keyOptional, handle: func(c *gin.Context) error {
		hangUp()
		if err := c.Request.Context().Err(); err != nil {
			return err
		}
		if _, bounded := c.Request.Context().Deadline(); !bounded {
			t.Error("the work has no deadline")
		}
		writeJSON(c, http.StatusOK, "done")
		return nil
	}})
	request := httptest.NewRequestWithContext(ctx, "POST", "/things", strings.NewReader("{}"))
	request.Header.Set("Idempotency-Key", "k")
	w.server.Handler().ServeHTTP(httptest.NewRecorder(), request)
	a := w.do(t, "POST", "/things", "{}", "Idempotency-Key", "k")
	if a.status != http.StatusOK || a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
}

func TestIdempotency_SealedAtRest(t *testing.T) {
	things, _ := counting("/things", public)
	w := newSite(t, nil, things)
	const body = `{"password":"correct horse"}`
	w.do(t, "POST", "/things", body, "Idempotency-Key", "k")
	w.do(t, "POST", "/things", body, "Idempotency-Key", "k2")
	answers := w.answers.all()
	if len(answers) != 2 {
		t.Fatalf("%d answers", len(answers))
	}
	for _, stored := range answers {
		if bytes.Contains(stored.Body, []byte("token")) {
			t.Errorf("stored in the clear: %q", stored.Body)
		}
	}
	if bytes.Equal(answers[0].Body, answers[1].Body) {
		t.Error("two answers are sealed alike")
	}
	seals, err := newSeals([]Secret{testSecret})
	if err != nil {
		t.Fatal(err)
	}
	other, err := newSeals([]Secret{{testSecret.KID, bytes.Repeat([]byte("o"), 32)}})
	if err != nil {
		t.Fatal(err)
	}
	if seals[0].fingerprint([]byte(body)) == other[0].fingerprint([]byte(body)) {
		t.Error("the fingerprint does not depend on the secret: a password in the body could be guessed from it")
	}
	scope := scopeOf(0, "POST", "/things", "k")
	sealed := w.answers.stored[scope].Body
	if opened, err := seals[0].open(scope, "k", sealed); err != nil || string(opened) != `{"secret":"token-1"}` {
		t.Errorf("opened as %q, %v", opened, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another key":    func() ([]byte, error) { return seals[0].open(scope, "k2", sealed) },
		"another scope":  func() ([]byte, error) { return seals[0].open(scopeOf(0, "POST", "/other", "k"), "k", sealed) },
		"another secret": func() ([]byte, error) { return other[0].open(scope, "k", sealed) },
		"cut off":        func() ([]byte, error) { return seals[0].open(scope, "k", sealed[:8]) },
		"changed": func() ([]byte, error) {
			return seals[0].open(scope, "k", append(sealed[:len(sealed)-1:len(sealed)-1], 0))
		},
	} {
		if opened, err := open(); err == nil {
			t.Errorf("%s opens it: %q", name, opened)
		}
	}
}

func TestIdempotency_OutlivesTheRotationOfSecrets(t *testing.T) {
	old, fresh := testSecret, Secret{KID: "k2", Key: bytes.Repeat([]byte("z"), SecretBytesMin)}
	answers := newFakeAnswers()
	things, calls := counting("/things", public)
	with := func(secrets ...Secret) *site {
		return newSite(t, func(c *Config) { c.Answers, c.Tokens.Secrets = answers, secrets }, things)
	}
	ask := func(w *site, body string) *answer { return w.do(t, "POST", "/things", body, "Idempotency-Key", "k") }
	first := ask(with(old), `{}`)
	rotated := with(fresh, old)
	sameAnswer(t, ask(rotated, `{}`), first)
	ask(rotated, `{"x":1}`).problem(t, evently.CodeIdempotencyKeyReused)
	// When the secret was dropped too early the answer is lost, and the request is not done a second time.
	ask(with(fresh), `{}`).problem(t, evently.CodeIdempotencyKeyReused)
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestIdempotency_HowEverTheAnswerIsWritten(t *testing.T) {
	for name, write := range map[string]func(c *gin.Context){
		"string":  func(c *gin.Context) { c.String(http.StatusOK, "text") },
		"json":    func(c *gin.Context) { c.JSON(http.StatusAccepted, "text") },
		"parts":   func(c *gin.Context) { c.String(http.StatusOK, "a"); c.Writer.Flush(); c.String(http.StatusOK, "b") },
		"status":  func(c *gin.Context) { c.Status(http.StatusAccepted) },
		"nothing": func(*gin.Context) {},
	} {
		calls := 0
		w := newSite(t, nil, route{method: "POST", path: "/things", key: keyOptional, handle: func(c *gin.Context) error {
			calls++
			write(c)
			return nil
		}})
		first := w.do(t, "POST", "/things", "", "Idempotency-Key", "k")
		again := w.do(t, "POST", "/things", "", "Idempotency-Key", "k")
		if sameAnswer(t, again, first); calls != 1 {
			t.Errorf("%s: %d calls", name, calls)
		}
	}
}

func TestScope_TellsPartsApart(t *testing.T) {
	seen := make(map[evently.Key]bool)
	for _, scope := range []evently.Key{
		scopeOf(0, "POST", "/a", "b"), scopeOf(1, "POST", "/a", "b"), scopeOf(0, "PUT", "/a", "b"),
		scopeOf(0, "POST", "/ab", ""), scopeOf(0, "POST", "/a", "c"),
	} {
		if seen[scope] || scope == (evently.Key{}) {
			t.Errorf("%v stands twice", scope)
		}
		seen[scope] = true
	}
}
