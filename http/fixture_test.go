package http

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// site is a Server with fakes behind it and a listener before it.
type site struct {
	server   *Server
	client   *http.Client
	url      string
	clock    *fakeClock
	accounts *fakeAccounts
	answers  *fakeAnswers
	webhooks *fakeWebhooks
	logs     *logBuffer
}

var testSecret = Secret{KID: "k1", Key: []byte("0123456789abcdef0123456789abcdef")}

// newConfig is a configuration of fakes. Ports that a test does not set panic when they are used.
func newConfig() Config {
	registry := prometheus.NewRegistry()
	return Config{
		Engine:    struct{ evently.Engine }{},
		Catalogue: struct{ evently.Catalogue }{},
		History:   struct{ evently.History }{},
		Waitlists: struct{ evently.Waitlists }{},
		Exports:   struct{ evently.Exports }{},
		Pricer:    struct{ evently.Pricer }{},
		Streams:   struct{ evently.Streams }{},
		Audit:     struct{ evently.Audit }{},
		Analytics: struct{ evently.Analytics }{},
		Webhooks:  newFakeWebhooks(),
		Accounts:  newFakeAccounts(), Answers: newFakeAnswers(),
		Tokens:     TokenConfig{Secrets: []Secret{testSecret}},
		Registerer: registry, Gatherer: registry,
		WebhookTarget: fakeTarget,
	}
}

// newSite starts a site that ends with the test. change may replace anything of its configuration, and extra routes are
// mounted besides the real ones.
func newSite(t testing.TB, change func(*Config), extra ...route) *site {
	t.Helper()
	w := &site{clock: newFakeClock(), logs: new(logBuffer)}
	config := newConfig()
	w.accounts, w.answers = config.Accounts.(*fakeAccounts), config.Answers.(*fakeAnswers)
	w.webhooks = config.Webhooks.(*fakeWebhooks)
	config.Now = w.clock.Now
	config.Logger = slog.New(slog.NewJSONHandler(w.logs, nil))
	if change != nil {
		change(&config)
	}
	var err error
	if w.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	if len(extra) > 0 {
		if err := w.server.mount(append(w.server.routes(), extra...)); err != nil {
			t.Fatal(err)
		}
	}
	listener := httptest.NewServer(w.server.Handler())
	t.Cleanup(listener.Close)
	w.client, w.url = listener.Client(), listener.URL
	return w
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request. A body is sent as application/json unless the headers, which are pairs of names and values, say
// otherwise.
func (w *site) do(t testing.TB, method, path, body string, headers ...string) *answer {
	t.Helper()
	a, err := w.try(t.Context(), method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// try is do for other goroutines than the test's.
func (w *site) try(ctx context.Context, method, path, body string, headers ...string) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Add(pair[0], pair[1])
		if strings.EqualFold(pair[0], "Content-Type") {
			request.Header.Set(pair[0], pair[1])
		}
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return &answer{response.StatusCode, response.Header, read}, err
}

// decode reads a JSON answer.
func (a *answer) decode(t testing.TB, dst any) {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Fatalf("Content-Type is %q: %s", got, a.body)
	}
	if err := json.Unmarshal(a.body, dst); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// problem checks that the answer is a well-formed problem of a code, with the status of that code, and returns it.
func (a *answer) problem(t testing.TB, code evently.Code) problem {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type is %q, want a problem %s: status %d, %s", got, code, a.status, a.body)
	}
	var p problem
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if p.Code != code || p.Status != problemKinds[code].status || p.Status != a.status ||
		p.Type != problemType(code) || p.Title == "" || p.Detail == "" {
		t.Fatalf("want a problem %s of status %d, got status %d: %s", code, problemKinds[code].status, a.status, a.body)
	}
	if id := a.header.Get("X-Request-Id"); p.RequestID != id || id == "" {
		t.Fatalf("problem is of request %q, X-Request-Id is %q", p.RequestID, id)
	}
	return p
}

// field checks that the problem names one field and returns what is wrong with it.
func (a *answer) field(t testing.TB, field string) (message string) {
	t.Helper()
	p := a.problem(t, evently.CodeInvalidRequest)
	if len(p.Errors) != 1 || p.Errors[0].Field != field || p.Errors[0].Message == "" {
		t.Fatalf("want one error of field %s, got %s", field, a.body)
	}
	return p.Errors[0].Message
}

// token signs somebody new in, without the work of it.
func (w *site) token(t testing.TB, role evently.Role) (bearer string, who evently.Principal) {
	t.Helper()
	user, session := w.random64(t), w.random64(t)
	who = evently.Principal{User: evently.UserID(user), Role: role, Session: evently.SessionID{15: byte(session), 0: byte(session >> 8), 1: 1}}
	now := w.clock.Now()
	w.accounts.users[who.User] = &evently.User{ID: who.User, Email: who.User.String() + "@example.com", Name: "N", Role: role, PasswordHash: decoyHash, CreatedAt: now}
	w.accounts.sessions[who.Session] = &fakeSession{Session: evently.Session{
		ID: who.Session, User: who.User, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(time.Hour),
	}}
	text, err := w.server.tokens.sign(who)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + text, who
}

func (w *site) random64(t testing.TB) uint64 {
	t.Helper()
	n, err := w.server.random64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fakeClock stands still unless it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2027, time.March, 1, 12, 0, 0, 0, time.UTC)}
}

func (k *fakeClock) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *fakeClock) add(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(d)
}

// logBuffer keeps what is logged, one JSON object a line.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

func (b *logBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(strings.Lines(b.text.String()))
}

// eventually polls for what another goroutine is about to bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}

// fakeAnswers is evently.Answers in memory.
type fakeAnswers struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when a key becomes free
	stored    map[evently.Key]fakeAnswer
	busy      map[evently.Key]bool
	waiting   int
	failStore error
}

type fakeAnswer struct {
	fingerprint [32]byte
	evently.Answer
}

var _ evently.Answers = (*fakeAnswers)(nil)

func newFakeAnswers() *fakeAnswers {
	return &fakeAnswers{
		changed: make(chan struct{}), stored: make(map[evently.Key]fakeAnswer), busy: make(map[evently.Key]bool),
	}
}

func (f *fakeAnswers) Claim(ctx context.Context, key evently.Key, fingerprint [32]byte) (*evently.Answer, evently.Claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.busy[key] {
		changed := f.changed
		f.waiting++
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		f.waiting--
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
	}
	if stored, found := f.stored[key]; found {
		if stored.fingerprint != fingerprint {
			return nil, nil, evently.ErrKeyReused
		}
		return &stored.Answer, nil, nil
	}
	f.busy[key] = true
	return nil, &fakeClaim{f, key, fingerprint}, nil
}

// all returns the stored answers.
func (f *fakeAnswers) all() []fakeAnswer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.stored))
}

type fakeClaim struct {
	answers     *fakeAnswers
	key         evently.Key
	fingerprint [32]byte
}

func (c *fakeClaim) Store(ctx context.Context, answer *evently.Answer) error {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.answers.failStore != nil {
		return c.answers.failStore
	}
	c.answers.stored[c.key] = fakeAnswer{c.fingerprint, *answer}
	return nil
}

func (c *fakeClaim) Release() {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	delete(c.answers.busy, c.key)
	close(c.answers.changed)
	c.answers.changed = make(chan struct{})
}
