package messages

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/evently/evently"
)

// verified checks a request as a receiver does that knows Standard Webhooks and nothing of this package: it returns the webhook-id
// when one of the signatures is that of a secret in its text form.
func verified(header http.Header, body []byte, secret string, now time.Time) (id string, err error) {
	id = header.Get("webhook-id")
	seconds, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || id == "" || strings.Contains(id, ".") {
		return "", fmt.Errorf("webhook-id %q, webhook-timestamp %q", id, header.Get("webhook-timestamp"))
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > 5*time.Minute || age < -5*time.Minute {
		return "", fmt.Errorf("sent %s ago", age)
	}
	encoded, found := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !found || len(key) < 24 || len(key) > 64 {
		return "", fmt.Errorf("secret %q", secret)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, seconds, body)
	want := mac.Sum(nil)
	for signature := range strings.SplitSeq(header.Get("webhook-signature"), " ") {
		version, text, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			return id, nil
		}
	}
	return "", fmt.Errorf("no signature in %q is right", header.Get("webhook-signature"))
}

func secretText(secret []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(secret) }

var (
	oldSecret = []byte("an old secret of 32 bytes length")
	newSecret = []byte("the new secret of 32 bytes, too!")
)

// The vector of the libraries of Standard Webhooks.
func TestSign_KnownVector(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(`msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}`))
	if got := base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Fatalf("got %s", got)
	}
	header := http.Header{}
	id := evently.NewDeliveryID(1, 2, 3)
	sign(header, id, time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`), [][]byte{secret})
	if got, err := verified(header, []byte(`{"test": 2432232314}`), secretText(secret), time.Unix(1614265331, 0)); err != nil || got != id.String() {
		t.Errorf("%v: %q, want %s", err, got, id)
	}
}

// newTestClient is one that may call this machine, and whose bounds are short.
func newTestClient(t *testing.T, targets *Targets, roots *x509.CertPool) *webhookClient {
	t.Helper()
	c := newWebhookClient(targets, roots, time.Now)
	c.attemptMax, c.responseWaitMax = 2*time.Second, 50*time.Millisecond
	t.Cleanup(c.transport.CloseIdleConnections)
	return c
}

func testDelivery() *evently.Delivery {
	return &evently.Delivery{
		ID: evently.NewDeliveryID(7, 8, 9), Webhook: 7, Type: evently.WebhookBookingConfirmed, Event: 8, Seq: 9,
		Payload: []byte(`{"type":"booking.confirmed"}`),
	}
}

func TestSend_SignsWithBothSecretsOfARotation(t *testing.T) {
	type request struct {
		header http.Header
		body   []byte
		method string
	}
	requests := make(chan request, 1)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- request{r.Header, body, r.Method}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	c := newTestClient(t, &Targets{AllowPrivate: true}, roots)
	delivery := testDelivery()
	lane := &evently.WebhookLane{Webhook: 7, URL: receiver.URL + "/hook?x=1", Secrets: [][]byte{newSecret, oldSecret}}
	if o := c.send(t.Context(), lane, delivery); o.Fault != "" || o.HTTPCode != http.StatusNoContent {
		t.Fatalf("%+v", o)
	}
	got := <-requests
	if got.method != http.MethodPost || string(got.body) != string(delivery.Payload) || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%+v", got)
	}
	for _, secret := range lane.Secrets {
		if id, err := verified(got.header, got.body, secretText(secret), time.Now()); err != nil || id != delivery.ID.String() {
			t.Errorf("%s: %q, %v", secret, id, err)
		}
	}
	if _, err := verified(got.header, append(got.body, ' '), secretText(newSecret), time.Now()); err == nil {
		t.Error("a changed body is verified")
	}
	if _, err := verified(got.header, got.body, secretText([]byte("some other secret of 32 bytes ..")), time.Now()); err == nil {
		t.Error("another secret verifies")
	}
	if strings.Contains(fmt.Sprint(got.header), string(newSecret)) || strings.Contains(fmt.Sprint(got.header), secretText(newSecret)[6:]) {
		t.Errorf("the header has a secret: %v", got.header)
	}
}

// flush sends what was written so far.
func flush(w http.ResponseWriter) {
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(err)
	}
}

// raw is a receiver that is no HTTP server.
func raw(t *testing.T, answer func(conn net.Conn)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				answer(conn)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return "http://" + listener.Addr().String()
}

func TestSend_WhatReceiversDo(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	wait := func(r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer elsewhere.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	type handle = func(w http.ResponseWriter, r *http.Request)
	status := func(code int, header ...string) handle {
		return func(w http.ResponseWriter, _ *http.Request) {
			for pair := range slices.Chunk(header, 2) {
				w.Header().Set(pair[0], pair[1])
			}
			w.WriteHeader(code)
			fmt.Fprint(w, "said so")
		}
	}
	for name, test := range map[string]struct {
		handle handle
		url    string // instead
		want   outcome
	}{
		"ok":             {status(200), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 200, Excerpt: "said so"}}},
		"accepted":       {status(299), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 299, Excerpt: "said so"}}},
		"moved":          {status(301, "Location", elsewhere.URL), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 301, Fault: faultRedirect, Excerpt: "said so"}}},
		"moved, same":    {status(307, "Location", elsewhere.URL), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 307, Fault: faultRedirect, Excerpt: "said so"}}},
		"bad":            {status(400), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 400, Fault: faultStatus, Excerpt: "said so"}}},
		"gone":           {status(410), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 410, Fault: faultGone, Excerpt: "said so"}}},
		"too many":       {status(429, "Retry-After", "120"), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 429, Fault: faultStatus, Excerpt: "said so"}, retryAfter: 2 * time.Minute}},
		"unavailable":    {status(503, "Retry-After", "-5"), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 503, Fault: faultStatus, Excerpt: "said so"}}},
		"nonsense retry": {status(503, "Retry-After", "99999999999999999999"), "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 503, Fault: faultStatus, Excerpt: "said so"}}},
		"hangs":          {func(_ http.ResponseWriter, r *http.Request) { wait(r) }, "", outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultTimeout}}},
		"hangs in the body": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "par")
			flush(w)
			wait(r)
		}, "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 200, Excerpt: "par"}}},
		"fails and hangs": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			flush(w)
			wait(r)
		}, "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 500, Fault: faultStatus}}},
		"nobody listens":   {nil, closed.URL, outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultConnection}}},
		"hangs up":         {nil, raw(t, func(net.Conn) {}), outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultConnection}}},
		"speaks otherwise": {nil, raw(t, func(conn net.Conn) { fmt.Fprint(conn, "220 mail.example.com ESMTP\r\n") }), outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultProtocol}}},
		"huge header":      {nil, raw(t, func(conn net.Conn) { fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX: %s\r\n\r\n", long(1<<20)) }), outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultProtocol}}},
		"no TLS":           {nil, strings.Replace(elsewhere.URL, "http:", "https:", 1), outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultTLS}}},
		"no such name":     {nil, "http://nobody.example.com", outcome{DeliveryAttempt: evently.DeliveryAttempt{Fault: faultName}}},
		"early hints":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(201) }, "", outcome{DeliveryAttempt: evently.DeliveryAttempt{HTTPCode: 201}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, &Targets{AllowPrivate: true, Resolver: new(names).resolver()}, nil)
			if test.url == "" {
				receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(io.Discard, r.Body); err != nil { // only then the server sees that the client goes
						t.Error(err)
					}
					test.handle(w, r)
				}))
				defer receiver.Close()
				test.url = receiver.URL
			}
			began := time.Now()
			got := c.send(t.Context(), &evently.WebhookLane{URL: test.url, Secrets: [][]byte{newSecret}}, testDelivery())
			if took := time.Since(began); took > c.attemptMax+time.Second {
				t.Errorf("took %s", took)
			}
			if got.At.Before(began) || got.LatencyMS < 0 {
				t.Errorf("made at %s, %d ms", got.At, got.LatencyMS)
			}
			got.At, got.LatencyMS = time.Time{}, 0
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestSend_UntrustedCertificate(t *testing.T) {
	var reached atomic.Bool
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	receiver.Config.ErrorLog = nil
	receiver.StartTLS()
	defer receiver.Close()
	c := newTestClient(t, &Targets{AllowPrivate: true}, x509.NewCertPool())
	got := c.send(t.Context(), &evently.WebhookLane{URL: receiver.URL, Secrets: [][]byte{newSecret}}, testDelivery())
	if got.Fault != faultTLS || reached.Load() {
		t.Errorf("%+v, reached: %v", got, reached.Load())
	}
}

func TestSend_NothingUnsigned(t *testing.T) {
	var reached atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer receiver.Close()
	c := newTestClient(t, &Targets{AllowPrivate: true}, nil)
	if got := c.send(t.Context(), &evently.WebhookLane{URL: receiver.URL}, testDelivery()); got.Fault != faultUnsigned || reached.Load() {
		t.Errorf("%+v, reached: %v", got, reached.Load())
	}
}

// The URL was right when it was registered; what its name means has changed since.
func TestSend_AddressIsCheckedWhenItIsDialled(t *testing.T) {
	var reached atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer receiver.Close()
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTP_PROXY", receiver.URL)
	t.Setenv("HTTPS_PROXY", receiver.URL)
	for _, addresses := range [][]string{
		{"127.0.0.1"}, {"::1"}, {"::ffff:127.0.0.1"}, {"127.0.0.1", "::1"}, {"169.254.169.254"}, {"10.1.2.3"}, {"64:ff9b::7f00:1"}, {"0.0.0.0"},
	} {
		var known names
		targets := &Targets{Resolver: known.resolver()}
		known.set("hooks.example.com", "93.184.216.34")
		url := "https://hooks.example.com:" + port + "/"
		if err := targets.Check(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		known.set("hooks.example.com", addresses...)
		c := newTestClient(t, targets, nil)
		for _, url := range []string{url, strings.Replace(url, "https", "http", 1)} { // http: stored when it was allowed
			got := c.send(t.Context(), &evently.WebhookLane{URL: url, Secrets: [][]byte{newSecret}}, testDelivery())
			if got.Fault != faultAddress || reached.Load() {
				t.Errorf("%v, %s: %+v, reached: %v; want it refused", addresses, url, got, reached.Load())
			}
		}
		if known.asked < 2 {
			t.Errorf("%v: the resolver was asked %d times", addresses, known.asked)
		}
	}
	// Without a name too.
	c := newTestClient(t, new(Targets), nil)
	for _, host := range []string{"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		lane := &evently.WebhookLane{URL: "http://" + net.JoinHostPort(strings.Trim(host, "[]"), port), Secrets: [][]byte{newSecret}}
		if got := c.send(t.Context(), lane, testDelivery()); got.Fault != faultAddress || reached.Load() {
			t.Errorf("%s: %+v, reached: %v; want it refused", host, got, reached.Load())
		}
	}
}

func TestSend_AbandonedIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		cancel()
		<-r.Context().Done()
	}))
	defer receiver.Close()
	c := newTestClient(t, &Targets{AllowPrivate: true}, nil)
	if got := c.send(ctx, &evently.WebhookLane{URL: receiver.URL, Secrets: [][]byte{newSecret}}, testDelivery()); !got.abandoned {
		t.Errorf("%+v", got)
	}
}

func TestExcerpt_BoundedReadableAndWithoutSecrets(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString(newSecret)
	for body, want := range map[string]string{
		"":                                   "",
		"ok\r\n":                             "ok \n",
		"a\x00b\x1bc\x7f":                    "a b c ",
		"\xff\xfe":                           "\uFFFD",
		"key whsec_" + encoded + " is known": "key whsec_[secret] is known",
		encoded:                              "[secret]",
		long(1000):                           long(512),
		long(511) + "ä":                      long(511),
	} {
		got := excerpt([]byte(body), [][]byte{oldSecret, newSecret})
		if got != want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q, want %q", body, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "x": 0, "0": 0, "-1": 0, "1.5": 0, "90": 90 * time.Second, "Mon, 01 Mar 2027 12:02:00 GMT": 2 * time.Minute,
		"Mon, 01 Mar 2027 11:00:00 GMT": 0, "Monday, 01-Mar-27 12:00:30 GMT": 30 * time.Second,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
