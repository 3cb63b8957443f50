package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"pgregory.net/rapid"
)

// pipe is a connection of the server and its client's end of it.
func pipe(t *testing.T) (*connection, net.Conn) {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conns := &connections{open: make(map[*connection]struct{})}
	accepted, err := connectionListener{listener, conns}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		accepted.Close()
	})
	return accepted.(*connection), client
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

// must checks errors of what cannot fail.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// later does something in a while.
func later(t *testing.T, wait time.Duration, do func() error) {
	time.AfterFunc(wait, func() {
		if err := do(); err != nil {
			t.Error(err)
		}
	})
}

// A timer never runs out later than the deadline that was set last, nor does it end anything earlier.
func TestDeadline_TheTimerIsNeverLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var timer time.Time
		timers := 0
		d := &deadline{arm: func(at time.Time) error {
			timer, timers = at, timers+1
			return nil
		}}
		set := 0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			var at time.Time // none
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				at = time.Unix(1, 0) // interrupts
			case 1, 2:
				at = in(time.Duration(rapid.IntRange(1, 100).Draw(t, "minutes")) * time.Minute)
			}
			if err := d.set(at); err != nil {
				t.Fatal(err)
			}
			set++
			interrupts := !at.IsZero() && at.Before(bygone)
			if interrupts && d.busy {
				if !timer.Equal(at) || d.early(os.ErrDeadlineExceeded) {
					t.Fatalf("what is under way is not interrupted: the timer is set to %s", timer)
				}
				d.end()
			}
			if rapid.Bool().Draw(t, "ends") {
				d.end()
			}
			if rapid.Bool().Draw(t, "begins") {
				if err := d.begin(); errors.Is(err, os.ErrDeadlineExceeded) != interrupts {
					t.Fatalf("begin with the deadline %s: %v", at, err)
				}
			}
			if d.busy && !interrupts && !timer.IsZero() && timer.Before(bygone) {
				t.Fatal("the timer interrupts what is to go on")
			}
			if d.busy && !at.IsZero() && (timer.IsZero() || timer.After(at)) {
				t.Fatalf("the timer is set to %s, and the deadline is %s", timer, at)
			}
		}
		if timers > 2*set {
			t.Fatalf("the timer was set %d times for %d deadlines", timers, set)
		}
	})
}

func TestConnection_ALaterDeadlineHolds(t *testing.T) {
	conn, client := pipe(t)
	begun := time.Now()
	must(t, conn.SetReadDeadline(in(20*time.Millisecond)), conn.SetReadDeadline(in(100*time.Millisecond)))
	buf := make([]byte, 10)
	if n, err := conn.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("%d, %v after %s", n, err, time.Since(begun))
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	// None: the timer of an earlier one ends nothing.
	must(t, conn.SetReadDeadline(in(20*time.Millisecond)), conn.SetReadDeadline(time.Time{}))
	later(t, 60*time.Millisecond, func() error {
		_, err := client.Write([]byte("late"))
		return err
	})
	if n, err := conn.Read(buf); string(buf[:n]) != "late" || err != nil {
		t.Errorf("%q, %v", buf[:n], err)
	}
	// An earlier one, set while something is under way.
	must(t, conn.SetReadDeadline(in(time.Hour)))
	later(t, 20*time.Millisecond, func() error { return conn.SetReadDeadline(in(20 * time.Millisecond)) })
	if n, err := conn.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestConnection_IsInterruptedAtOnce(t *testing.T) {
	conn, client := pipe(t)
	buf := make([]byte, 10)
	for range 3 {
		must(t, conn.SetReadDeadline(in(time.Hour)))
		later(t, 20*time.Millisecond, func() error { return conn.SetReadDeadline(time.Unix(1, 0)) })
		for range 2 {
			if n, err := conn.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d, %v", n, err)
			}
		}
		must(t, conn.SetReadDeadline(in(time.Hour)))
		if _, err := client.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); string(buf[:n]) != "more" || err != nil {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
}

// A timer that interrupts a write before its time loses no byte and doubles none.
func TestConnection_WritesGoOn(t *testing.T) {
	conn, client := pipe(t)
	sent := make([]byte, 32<<20)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	must(t, conn.SetWriteDeadline(in(30*time.Millisecond)), conn.SetWriteDeadline(in(time.Hour)))
	type result struct {
		n   int
		err error
	}
	wrote := make(chan result, 1)
	go func() {
		n, err := conn.Write(sent)
		wrote <- result{n, err}
	}()
	<-time.After(100 * time.Millisecond)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("what came is not what was sent: %v", err)
	}
	if r := <-wrote; r.n != len(sent) || r.err != nil {
		t.Errorf("%+v", r)
	}
	// A client that takes nothing is given up in time.
	begun := time.Now()
	must(t, conn.SetWriteDeadline(in(20*time.Millisecond)), conn.SetWriteDeadline(in(60*time.Millisecond)))
	if n, err := conn.Write(sent); n == len(sent) || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < 60*time.Millisecond {
		t.Errorf("%d, %v after %s", n, err, time.Since(begun))
	}
}

// slowServer serves with the deadlines of net/http, made short.
func slowServer(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	listener := listen(t)
	conns := &connections{open: make(map[*connection]struct{})}
	server := &http.Server{
		Handler: handler, ConnContext: withConnection, ConnState: track, ReadHeaderTimeout: 150 * time.Millisecond,
		ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond, IdleTimeout: 600 * time.Millisecond,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(connectionListener{listener, conns}) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// Clients that are slow are given up by the deadlines of net/http, on a connection's first request and on later ones.
func TestConnection_SlowClientsAreGivenUp(t *testing.T) {
	address := slowServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			if n, err := w.Write(make([]byte, 64<<20)); err == nil {
				t.Errorf("%d bytes were taken", n)
			}
			return
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	const whole = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, c := range map[string]struct {
		sent  string
		after time.Duration
	}{
		"idle":   {"", 600 * time.Millisecond},
		"header": {"GET / HT", 150 * time.Millisecond},
		"body":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", 300 * time.Millisecond},
		"large":  {"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 300 * time.Millisecond},
	} {
		for before := range 3 {
			t.Run(fmt.Sprintf("%s after %d", name, before), func(t *testing.T) {
				t.Parallel()
				client, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				must(t, client.SetDeadline(in(10*time.Second)))
				answer := make([]byte, 4<<10)
				for range before {
					if _, err := client.Write([]byte(whole)); err != nil {
						t.Fatal(err)
					}
					if n, err := client.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200") {
						t.Fatalf("%q, %v", answer[:n], err)
					}
				}
				begun := time.Now()
				if _, err := client.Write([]byte(c.sent)); err != nil {
					t.Fatal(err)
				}
				if name == "large" {
					<-time.After(c.after + 200*time.Millisecond)
				}
				n, err := io.Copy(io.Discard, client)
				if took := time.Since(begun); took < c.after-100*time.Millisecond && !(name == "idle" && before == 0) || took > c.after+3*time.Second {
					t.Errorf("given up after %s, want %s: %v", took, c.after, err)
				}
				if n >= 64<<20 {
					t.Error("the answer came")
				}
			})
		}
	}
}

// A client that hangs up ends the work on its request, on whatever request of a connection and however long it took.
func TestConnection_TheWorkEndsWhenTheClientHangsUp(t *testing.T) {
	working, ended := make(chan struct{}), make(chan error)
	w := newSite(t, nil, route{method: "POST", path: "/working", handle: func(c *gin.Context) error {
		working <- struct{}{}
		<-c.Request.Context().Done()
		ended <- c.Request.Context().Err()
		return c.Request.Context().Err()
	}})
	s := serve(t, w, w.server.Serve)
	for _, wait := range []time.Duration{0, 3 * watchMin} {
		for before := range 3 {
			client, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 4<<10)
			for range before {
				if _, err := client.Write([]byte("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
					t.Fatal(err)
				}
				if _, err := client.Read(answer); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := client.Write([]byte("POST /working HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
				t.Fatal(err)
			}
			<-working
			<-time.After(wait)
			begun := time.Now()
			must(t, client.Close())
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("ended by %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the work goes on")
			}
			if took := time.Since(begun); took > 2*watchMin+time.Second {
				t.Errorf("noticed after %s", took)
			}
		}
	}
	s.stop()
	must(t, <-s.ended)
}

// A request that takes longer than a client is left unwatched is answered, and so are others behind it on the connection.
func TestConnection_IsGoodAfterItWasWatched(t *testing.T) {
	address := slowServer(t, func(w http.ResponseWriter, r *http.Request) {
		if took, err := time.ParseDuration(r.URL.Query().Get("took")); err == nil {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
				t.Error(err)
			}
			<-time.After(took)
		}
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	})
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	must(t, client.SetDeadline(in(30*time.Second)))
	answer := make([]byte, 4<<10)
	for i, took := range []string{"", "700ms", "", "10ms", "250ms", "450ms", ""} {
		if _, err := fmt.Fprintf(client, "POST /?took=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nbody %d", took, i); err != nil {
			t.Fatal(err)
		}
		n, err := client.Read(answer)
		if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200") || !strings.HasSuffix(string(answer[:n]), fmt.Sprint("\r\n\r\nbody ", i)) {
			t.Fatalf("%d, %s: %q, %v", i, took, answer[:n], err)
		}
	}
}

func TestConnection_CloseEndsTheWaitForAHangUp(t *testing.T) {
	conn, _ := pipe(t)
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	eventually(t, "it waits", func() bool {
		conn.reading.mu.Lock()
		defer conn.reading.mu.Unlock()
		return conn.reading.waiting
	})
	must(t, conn.Close())
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
