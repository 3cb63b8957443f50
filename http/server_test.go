package http

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func TestConfig_IsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no engine":      func(c *Config) { c.Engine = nil },
		"no catalogue":   func(c *Config) { c.Catalogue = nil },
		"no history":     func(c *Config) { c.History = nil },
		"no accounts":    func(c *Config) { c.Accounts = nil },
		"no answers":     func(c *Config) { c.Answers = nil },
		"no registerer":  func(c *Config) { c.Registerer = nil },
		"no gatherer":    func(c *Config) { c.Gatherer = nil },
		"limit":          func(c *Config) { c.BookLimit = Limit{Requests: 1} },
		"proxies":        func(c *Config) { c.TrustedProxies = []string{"proxy.example"} },
		"no randomness":  func(c *Config) { c.Rand = strings.NewReader("") },
		"negative bound": func(c *Config) { c.InFlightMax = -1 },
		"access log":     func(c *Config) { c.AccessLog = -1 },
		"hold too long":  func(c *Config) { c.HoldTTL = evently.HoldTTLMax + time.Second },
		"half a second":  func(c *Config) { c.HoldTTL = 1500 * time.Millisecond },
		"access TTL":     func(c *Config) { c.Tokens.AccessTTL = -time.Minute },
		"refresh TTL":    func(c *Config) { c.Tokens.RefreshTTL = time.Minute },
		"negative time":  func(c *Config) { c.RequestTimeout = -time.Second },
	} {
		config := newConfig()
		change(&config)
		if _, err := New(config); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// served is a server whose Serve runs until stop.
type served struct {
	url   string
	stop  context.CancelFunc
	ended chan error
}

func serve(t *testing.T, w *site, run func(ctx context.Context, listener net.Listener) error) *served {
	t.Helper()
	listener := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{"http://" + listener.Addr().String(), cancel, make(chan error, 1)}
	go func() { s.ended <- run(ctx, listener) }()
	w.url = s.url
	return s
}

// blocking is a route that tells when it is reached and waits to be let go.
func blocking(path string) (r route, reached, let chan struct{}) {
	reached, let = make(chan struct{}), make(chan struct{})
	return route{method: "POST", path: path, key: keyOptional, handle: func(c *gin.Context) error {
		reached <- struct{}{}
		select {
		case <-let:
		case <-c.Request.Context().Done():
			return c.Request.Context().Err()
		}
		writeJSON(c, http.StatusOK, statusJSON{"done"})
		return nil
	}}, reached, let
}

type outcome struct {
	answer *answer
	err    error
}

// begin makes a request whose outcome comes later.
func (w *site) begin(t testing.TB, method, path, body string, headers ...string) chan outcome {
	t.Helper()
	ctx := t.Context()
	later := make(chan outcome, 1)
	go func() {
		a, err := w.try(ctx, method, path, body, headers...)
		later <- outcome{a, err}
	}()
	return later
}

func TestServe_DrainsRequestsInFlight(t *testing.T) {
	slow, reached, let := blocking("/slow")
	w := newSite(t, func(c *Config) { c.DrainDelay = 200 * time.Millisecond }, slow)
	s := serve(t, w, w.server.Serve)
	defer w.client.CloseIdleConnections()

	if a := w.do(t, "GET", "/readyz", ""); a.status != http.StatusOK {
		t.Fatalf("readiness: %d", a.status)
	}
	inFlight := w.begin(t, "POST", "/slow", "{}")
	<-reached
	s.stop()
	// First it is no longer ready, and still answers.
	eventually(t, "readiness is off", func() bool {
		return w.do(t, "GET", "/readyz", "").status == http.StatusServiceUnavailable
	})
	if a := w.do(t, "GET", "/livez", ""); a.status != http.StatusOK {
		t.Errorf("liveness while draining: %d", a.status)
	}
	// Then it takes no more connections, and still works on what it has.
	eventually(t, "connections are refused", func() bool {
		connection, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return true
		}
		if err := connection.Close(); err != nil {
			t.Error(err)
		}
		return false
	})
	select {
	case err := <-s.ended:
		t.Fatalf("Serve returned %v with a request in flight", err)
	default:
	}
	close(let)
	if o := <-inFlight; o.err != nil || o.answer.status != http.StatusOK {
		t.Errorf("the request in flight: %+v", o)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServe_DoesNotDelayTheEndOfANodeThatIsUnfit(t *testing.T) {
	unfit := make(chan struct{})
	w := newSite(t, func(c *Config) { c.DrainDelay, c.Unfit = time.Hour, unfit })
	s := serve(t, w, w.server.Serve)
	defer w.client.CloseIdleConnections()
	w.do(t, "GET", "/readyz", "")
	s.stop()
	eventually(t, "readiness is off", func() bool {
		return w.do(t, "GET", "/readyz", "").status == http.StatusServiceUnavailable
	})
	close(unfit)
	if err := <-s.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServe_CutsOffWhatDoesNotEnd(t *testing.T) {
	slow, reached, _ := blocking("/slow")
	w := newSite(t, func(c *Config) { c.DrainTimeout = 10 * time.Millisecond }, slow)
	s := serve(t, w, w.server.Serve)
	inFlight := w.begin(t, "POST", "/slow", "{}")
	<-reached
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if logged := strings.Join(w.logs.lines(), ""); !strings.Contains(logged, `"connections":1`) {
		t.Errorf("logged %s", logged)
	}
	if o := <-inFlight; o.err == nil {
		t.Errorf("the request in flight was answered: %+v", o.answer)
	}
}

// Clients that are slow to send or to take anything do not hold up the end; who waits for an answer gets it.
func TestServe_DoesNotWaitForSlowClients(t *testing.T) {
	slow, reached, let := blocking("/slow")
	large := bytes.Repeat([]byte("x"), 64<<20)
	w := newSite(t, nil, slow, route{method: "GET", path: "/large", handle: func(c *gin.Context) error {
		writeBody(c, http.StatusOK, large)
		return nil
	}})
	s := serve(t, w, w.server.Serve)
	for _, sent := range []string{
		"", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: x\r\n", "GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		connection, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if _, err := connection.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
	}
	w.half(t, "/slow", "{", 8)
	eventually(t, "the server works on one of them", func() bool { return testutil.ToFloat64(w.server.metrics.inFlight) == 1 })
	inFlight := w.begin(t, "POST", "/slow", "{}")
	<-reached
	begun := time.Now()
	s.stop()
	<-time.After(drainSlowMax + time.Second)
	close(let)
	if o := <-inFlight; o.err != nil || o.answer.status != http.StatusOK {
		t.Errorf("the request in flight: %+v", o)
	}
	if err := <-s.ended; err != nil || time.Since(begun) > drainSlowMax+3*time.Second {
		t.Errorf("Serve: %v after %s", err, time.Since(begun))
	}
	if logged := strings.Join(w.logs.lines(), ""); strings.Contains(logged, "cut off") {
		t.Errorf("logged %s", logged)
	}
}

func TestServe_ReportsAFailedListener(t *testing.T) {
	w := newSite(t, nil)
	listener := listen(t)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestServe_BoundsTheHeader(t *testing.T) {
	w := newSite(t, nil)
	s := serve(t, w, w.server.Serve)
	a := w.do(t, "GET", "/livez", "", "X-Large", strings.Repeat("x", 2*headerBytesMax))
	if a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", a.status)
	}
	s.stop()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

func TestServeAdmin(t *testing.T) {
	w := newSite(t, nil)
	w.do(t, "GET", "/livez", "")
	s := serve(t, w, w.server.ServeAdmin)
	for path, want := range map[string]string{
		"/metrics":                       `evently_http_requests_total{method="GET",route="/livez",status="2xx"} 1`,
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "TestServeAdmin",
		"/debug/pprof/cmdline":           "http.test",
	} {
		if a := w.do(t, "GET", path, ""); a.status != http.StatusOK || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d, no %q in %.2000s", path, a.status, want, a.body)
		}
	}
	s.stop()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}
