package http

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// rawClient is a client that sends what it likes.
type rawClient struct {
	*net.TCPConn
	answers *bufio.Reader
}

// dial connects to a site that is served by Serve until the test ends, and whose answers come within 10 s.
func (w *site) dial(t *testing.T) *rawClient {
	t.Helper()
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(in(10*time.Second)))
	return &rawClient{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *rawClient) send(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		t.Fatal(err)
	}
}

// read reads the next answer.
func (c *rawClient) read(t *testing.T) (a *answer, last bool) {
	t.Helper()
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{response.StatusCode, response.Header, body}, response.Close
}

// half sends a request without the end of its body, and returns when the server reads that.
func (w *site) half(t *testing.T, path, body string, missing int) *rawClient {
	t.Helper()
	c := w.dial(t)
	c.send(t, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		path, len(body)+missing)
	if a, _ := c.read(t); a.status != http.StatusContinue {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	c.send(t, "%s", body)
	return c
}

// serving has a site served for as long as the test.
func serving(t *testing.T, change func(*Config), extra ...route) *site {
	t.Helper()
	w := newSite(t, change, extra...)
	w.begins(t)
	return w
}

// begins has Serve begin, to end with the test.
func (w *site) begins(t *testing.T) {
	t.Helper()
	s := serve(t, w, w.server.Serve)
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		s.stop()
		must(t, <-s.ended)
	})
}

// Clients that do not send the body that they promise keep nobody else from being answered.
func TestBody_OnlyWhatHasArrivedIsInFlight(t *testing.T) {
	slow, reached, let := blocking("/slow")
	w := serving(t, func(c *Config) { c.InFlightMax = 4 }, slow)
	var waiting []*rawClient
	for range 16 {
		waiting = append(waiting, w.half(t, "/login", "[", 1))
	}
	if n := testutil.ToFloat64(w.server.metrics.inFlight); n != 0 {
		t.Errorf("%v requests are in flight, and none has arrived", n)
	}
	w.do(t, "POST", "/login", "[]").problem(t, evently.CodeInvalidRequest)
	var working []chan outcome
	for range 4 {
		working = append(working, w.begin(t, "POST", "/slow", "{}"))
		<-reached
	}
	if n := testutil.ToFloat64(w.server.metrics.inFlight); n != 4 {
		t.Errorf("%v requests are in flight, want 4", n)
	}
	// There is no place for what arrives now, nor for what has begun to arrive before.
	w.do(t, "POST", "/login", "[]").problem(t, evently.CodeOverloaded)
	waiting[0].send(t, "]")
	a, last := waiting[0].read(t)
	if a.problem(t, evently.CodeOverloaded); last {
		t.Error("it is the last answer on its connection")
	}
	close(let)
	for _, later := range working {
		if o := <-later; o.err != nil || o.answer.status != http.StatusOK {
			t.Errorf("%+v", o)
		}
	}
	for _, c := range waiting[1:] {
		c.send(t, "]")
		a, _ := c.read(t)
		a.problem(t, evently.CodeInvalidRequest)
	}
	eventually(t, "nothing is in flight", func() bool { return w.server.metrics.working.Load() == 0 })
}

// The time for the work on a request begins when there is something to work on.
func TestBody_IsNotPartOfTheRequestTimeout(t *testing.T) {
	const bound = 300 * time.Millisecond
	w := serving(t, func(c *Config) { c.RequestTimeout = bound }, route{method: "POST", path: "/timed", handle: func(c *gin.Context) error {
		if err := c.Request.Context().Err(); err != nil {
			return err
		}
		writeNothing(c)
		return nil
	}})
	c := w.half(t, "/timed", "{", 1)
	<-time.After(2 * bound)
	c.send(t, "}")
	if a, _ := c.read(t); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// early are requests that are refused without their body, and the code of the refusal. They are sent without it, but for its first byte.
func early(bearer string) map[string]string {
	return map[string]string{
		"POST /me/password HTTP/1.1\r\nContent-Length: 100\r\n":                                                                        string(evently.CodeUnauthenticated),
		"POST /me/password HTTP/1.1\r\nContent-Length: 100\r\nAuthorization: Bearer x\r\n":                                             string(evently.CodeUnauthenticated),
		"POST /admin/events HTTP/1.1\r\nContent-Length: 100\r\nAuthorization: " + bearer + "\r\n":                                      string(evently.CodeForbidden),
		"POST /login HTTP/1.1\r\nContent-Length: 100000\r\n":                                                                           string(codeBodyTooLarge),
		"POST /login HTTP/1.1\r\nContent-Length: 1000000\r\n":                                                                          string(codeBodyTooLarge),
		"POST /nowhere HTTP/1.1\r\nContent-Length: 100\r\n":                                                                            string(evently.CodeNotFound),
		"PATCH /login HTTP/1.1\r\nContent-Length: 100\r\n":                                                                             string(codeMethodNotAllowed),
		"POST /nowhere HTTP/1.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n":                                                    string(evently.CodeNotFound),
		"GET /me HTTP/1.1\r\nContent-Length: 100\r\n":                                                                                  string(evently.CodeUnauthenticated),
		"POST /password/forgot HTTP/1.1\r\nContent-Length: 100\r\nX-Forwarded-For: 10.0.0.1\r\n":                                       string(evently.CodeRateLimited),
		"OPTIONS /login HTTP/1.1\r\nContent-Length: 100\r\nOrigin: https://tickets.example\r\nAccess-Control-Request-Method: POST\r\n": "",
	}
}

// refusing is a site that refuses all that early sends. It waits for bodies as long as given.
func refusing(t *testing.T, grace time.Duration) (w *site, bearer string) {
	w = newSite(t, func(c *Config) {
		c.AuthLimit, c.TrustedProxies, c.CORSOrigins = Limit{1, time.Hour}, []string{"127.0.0.1"}, []string{"*"}
	}, route{method: "POST", path: "/there", handle: func(c *gin.Context) error {
		if err := c.Request.Context().Err(); err != nil {
			return err
		}
		writeNothing(c)
		return nil
	}})
	w.server.bodyGrace = grace
	bearer, _ = w.token(t, evently.RoleUser)
	w.begins(t)
	w.do(t, "POST", "/password/forgot", "{}", "X-Forwarded-For", "10.0.0.1").problem(t, evently.CodeInvalidRequest)
	return w, bearer
}

func (a *answer) wasEarly(t *testing.T, request, code string) {
	t.Helper()
	if code != "" {
		a.problem(t, evently.Code(code))
	} else if a.status != http.StatusNoContent {
		t.Errorf("%q: %d %s", request, a.status, a.body)
	}
}

// Who is refused without the body hears of it before it is sent, and is not waited for.
func TestBody_ARefusalDoesNotWaitForIt(t *testing.T) {
	w, bearer := refusing(t, bodyGrace)
	for request, code := range early(bearer) {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			c := w.dial(t)
			begun := time.Now()
			c.send(t, "%sHost: x\r\n\r\n{", request)
			a, last := c.read(t)
			if a.wasEarly(t, request, code); !last {
				t.Errorf("%q: the connection is to go on", request)
			}
			if took := time.Since(begun); took > readTimeout/2 {
				t.Errorf("%q: answered after %s", request, took)
			}
			if n, err := c.answers.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Errorf("%q: %d bytes more, %v", request, n, err)
			}
			if took := time.Since(begun); took > readTimeout/2 {
				t.Errorf("%q: the connection ended after %s", request, took)
			}
		})
	}
}

// A refusal does not cost the connection of a client that sends the whole body, be it behind the header or a moment later.
func TestBody_ARefusalKeepsTheConnection(t *testing.T) {
	w, bearer := refusing(t, time.Minute)
	for request, code := range early(bearer) {
		if code == string(codeBodyTooLarge) || strings.Contains(request, "Expect") {
			continue
		}
		for _, apart := range []bool{false, true} {
			c := w.dial(t)
			for range 3 {
				text, body := request+"Host: x\r\n\r\n", strings.Repeat(" ", 100)
				if apart {
					c.send(t, "%s", text)
					<-time.After(bodyGrace / 10)
					text = ""
				}
				c.send(t, "%s%s", text, body)
				a, last := c.read(t)
				if a.wasEarly(t, request, code); last {
					t.Errorf("%q: the connection ends, the body apart: %v", request, apart)
				}
			}
			// The client is not taken for gone by what follows on the connection.
			c.send(t, "POST /there HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			if a, _ := c.read(t); a.status != http.StatusNoContent {
				t.Errorf("%q: then %d %s", request, a.status, a.body)
			}
		}
	}
}

// A client that goes on sending after it was refused reads the answer.
func TestBody_ASlowSenderReadsTheRefusal(t *testing.T) {
	w := serving(t, nil)
	c := w.dial(t)
	c.send(t, "POST /me/password HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
	eventually(t, "it is refused", func() bool { return testutil.ToFloat64(w.server.metrics.refusals.of("unauthenticated")) == 1 })
	for range 2 {
		<-time.After(bodyGrace)
		c.send(t, "%s", strings.Repeat(" ", 30000))
	}
	a, last := c.read(t)
	if a.problem(t, evently.CodeUnauthenticated); !last {
		t.Error("the connection is to go on")
	}
}

// Streams know when their client goes even if it sent a body, and do not begin before that is there.
func TestStream_ReceivesABodyFirst(t *testing.T) {
	w, database := newTheatre(t, nil)
	database.add(shown(theatre, 5, 10))
	w.begins(t)
	clients := func() float64 { return testutil.ToFloat64(w.server.metrics.streams.clients) }

	c := w.dial(t)
	c.send(t, "GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{", streamPath(theatre))
	must(t, c.CloseWrite())
	a, _ := c.read(t)
	if a.field(t, "body"); clients() != 0 {
		t.Errorf("%v clients", clients())
	}

	c = w.dial(t)
	c.send(t, "GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", streamPath(theatre), bodyBytesMax, strings.Repeat(" ", bodyBytesMax))
	if line, err := c.answers.ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	eventually(t, "it has begun", func() bool { return clients() == 1 })
	if taken := w.server.largeBodies.Load(); taken != 0 {
		t.Errorf("its body takes %d bytes", taken)
	}
	must(t, c.Close())
	eventually(t, "it has ended", func() bool { return clients() == 0 })
}

// Bodies that are large and slow have a bound of their own, and small ones are received whatever others do.
func TestBody_LargeOnesAreBounded(t *testing.T) {
	w := serving(t, nil, route{method: "POST", path: "/length", handle: func(c *gin.Context) error {
		writeJSON(c, http.StatusOK, len(bodyOf(c)))
		return nil
	}})
	for _, length := range []int{0, 1, bodyBytesMin, bodyBytesMin + 1, bodySmallBytes, bodySmallBytes + 1, bodyBytesMax} {
		if a := w.do(t, "POST", "/length", strings.Repeat("x", length)); string(a.body) != fmt.Sprint(length) {
			t.Errorf("%d bytes: %d %s", length, a.status, a.body)
		}
	}
	slow := w.half(t, "/length", strings.Repeat("x", 60000), 1)
	eventually(t, "it is counted", func() bool { return w.server.largeBodies.Load() >= 60000 })
	if taken := w.server.largeBodies.Load(); taken > 2*60000 {
		t.Errorf("60,000 bytes take %d", taken)
	}
	others := largeBodiesMax - w.server.largeBodies.Load()
	w.server.largeBodies.Add(others)
	w.do(t, "POST", "/length", strings.Repeat("x", 2*bodySmallBytes)).problem(t, evently.CodeOverloaded)
	if a := w.do(t, "POST", "/length", strings.Repeat("x", bodySmallBytes)); a.status != http.StatusOK {
		t.Errorf("a small one: %d %s", a.status, a.body)
	}
	w.server.largeBodies.Add(-others)
	slow.send(t, "x")
	if a, _ := slow.read(t); string(a.body) != "60001" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.do(t, "POST", "/length", strings.Repeat("x", bodyBytesMax+1)).problem(t, codeBodyTooLarge)
	for _, length := range []int{bodyBytesMax + 1, 2 * bodyBytesMax} {
		c := w.dial(t)
		c.send(t, "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			length, strings.Repeat("x", length))
		a, last := c.read(t)
		if a.problem(t, codeBodyTooLarge); !last {
			t.Errorf("%d bytes: the connection is to go on", length)
		}
	}
	eventually(t, "nothing is taken in the end", func() bool { return w.server.largeBodies.Load() == 0 })
}

// Nothing can follow a body that was not received to its end: what comes late may be a part of it.
func TestBody_ThatFailsEndsTheConnection(t *testing.T) {
	w := serving(t, nil)
	c := w.half(t, "/login", "{", 1)
	must(t, c.CloseWrite())
	a, last := c.read(t)
	if a.field(t, "body"); !last {
		t.Error("the connection is to go on")
	}
}
