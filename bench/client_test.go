package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/evently/evently"
)

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"http://127.0.0.1:8080":         {"", "127.0.0.1:8080", "127.0.0.1:8080", false},
		"http://example.com/":           {"", "example.com", "example.com:80", false},
		"https://example.com/api/v1/":   {"/api/v1", "example.com", "example.com:443", true},
		"https://[::1]:8443":            {"", "[::1]:8443", "[::1]:8443", true},
		"example.com:80":                {},
		"ftp://example.com":             {},
		"http://":                       {},
		"http://example.com/?a=b":       {},
		"http://example.com/%zz":        {},
		"/var/run/evently.sock":         {},
		"http://user@example.com:1/a#b": {},
		"http://user:key@example.com":   {},
	} {
		got, err := ParseEndpoint(text)
		if got != want || (err == nil) != (want != Endpoint{}) {
			t.Errorf("%s: %+v (%v), want %+v", text, got, err, want)
		}
	}
}

// raw answers every request on every connection with the next of some texts. After the last one it hangs up.
func raw(t *testing.T, answers ...string) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-over })
	go func() {
		defer close(over)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			for {
				if _, err := http.ReadRequest(in); err != nil {
					break
				}
				if len(answers) == 0 {
					break
				}
				for part := range strings.SplitSeq(answers[0], "|") { // sent apart
					if _, err := io.WriteString(conn, part); err != nil {
						break
					}
				}
				last := strings.Contains(answers[0], "close")
				answers = answers[1:]
				if last {
					break
				}
			}
			conn.Close()
		}
	}()
	client := newClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	})
	t.Cleanup(func() { client.Close() })
	return client
}

var get = []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")

func TestClient_ReadsAnswers(t *testing.T) {
	long := strings.Repeat("x", 3*answerBytesStart)
	client := raw(
		t,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 201 Created\r\nX: y\r\ncontent-length:  3 \r\nidempotency-replayed: true\r\n\r|\nab|c",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n|2;x=y\r\nde|\r\n0\r\nT: 1\r\n\r|\n",
		fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long),
		"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	)
	for i, want := range []Answer{
		{200, false, []byte("ok")},
		{201, true, []byte("abc")},
		{204, false, nil},
		{200, false, []byte("abcde")},
		{200, false, []byte(long)},
		{409, false, []byte("z")},
		{200, false, nil}, // on a new connection
	} {
		got, err := client.Do(t.Context(), get)
		if err != nil || got.Status != want.Status || got.Replayed != want.Replayed || string(got.Body) != string(want.Body) {
			t.Fatalf("answer %d: %+v (%v), want %+v", i, got, err, want)
		}
	}
	if _, err := client.Do(t.Context(), get); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the server has hung up: %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestClient_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, text := range []string{
		"SMTP ready\r\n\r\n",
		"HTTP/1.1 20\r\n\r\n",
		"HTTP/1.1 abc\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + strings.Repeat("x", 2_000_000),
	} {
		client := raw(t, text)
		if answer, err := client.Do(t.Context(), get); err == nil {
			t.Errorf("%.80q: %d %.80q", text, answer.Status, answer.Body)
		}
		if client.conn != nil {
			t.Errorf("%.80q: the connection is used again", text)
		}
	}
}

func TestClient_EndsWithItsContext(t *testing.T) {
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}))
	defer server.Close()
	e, err := ParseEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	client := e.Client()
	if _, err := client.Do(ctx, e.AppendRead(nil, 1, "")); err == nil {
		t.Error("no error")
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestClient_SpeaksTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that does not believe it complains
	server.StartTLS()
	defer server.Close()
	e, err := ParseEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Client().Do(t.Context(), e.AppendRead(nil, 1, "")); err == nil {
		t.Error("a certificate that nobody knows was believed")
	}
	config := server.Client().Transport.(*http.Transport).TLSClientConfig
	client := newClient(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", e.addr)
	})
	defer client.Close()
	answer, err := client.Do(t.Context(), e.AppendRead(nil, 1, ""))
	if err != nil || string(answer.Body) != "/events/"+evently.EventID(1).String() {
		t.Errorf("%+v (%v)", answer, err)
	}
}
