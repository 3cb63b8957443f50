package proctest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// scripted is a node that gives some answers and then 201 for ever.
func scripted(t *testing.T, answers ...func(w http.ResponseWriter)) *Server {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"id":"rsv_1"}`)
			return
		}
		next := answers[0]
		answers = answers[1:]
		next(w)
	}))
	t.Cleanup(server.Close)
	return &Server{API: server.URL}
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
}

func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func TestCrowd_CountsWhatAClientWithOneRetrySees(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []func(http.ResponseWriter)
		want    Count
	}{
		{"answered", nil, Count{Requests: 1, Acknowledged: 1}},
		{"retried", []func(http.ResponseWriter){unavailable}, Count{Requests: 1, FirstErrors: 1, Unavailable: 1, Acknowledged: 1}},
		{"hung up", []func(http.ResponseWriter){hangUp}, Count{Requests: 1, FirstErrors: 1, Unreached: 1, Acknowledged: 1}},
		{
			"failed twice",
			[]func(http.ResponseWriter){unavailable, hangUp},
			Count{Requests: 1, FirstErrors: 1, Errors: 1, Unavailable: 1, Unreached: 1, Acknowledged: 1},
		},
		{
			"failed often",
			[]func(http.ResponseWriter){hangUp, unavailable, unavailable, hangUp},
			Count{Requests: 1, FirstErrors: 1, Errors: 1, Unavailable: 2, Unreached: 2, Acknowledged: 1},
		},
		{
			"sold out",
			[]func(http.ResponseWriter){func(w http.ResponseWriter) {
				w.WriteHeader(http.StatusConflict)
				_, _ = io.WriteString(w, `{"code":"sold_out"}`)
			}},
			Count{Requests: 1, SoldOut: 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// With a new connection each time: on an old one the transport itself repeats requests that have a key.
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			crowd := &Crowd{t: t, load: client, Events: []string{"/events/1"}, scarce: 1}
			crowd.Balancer.Set(scripted(t, c.answers...))
			p, err := crowd.book(&Client{HTTP: crowd.load}, 0, "key", 1, customer)
			if err != nil || (p != nil) != (c.want.Acknowledged == 1) {
				t.Errorf("promise %+v (%v)", p, err)
			}
			if got := crowd.Count(); got != c.want {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestBalancer_FollowsReadiness(t *testing.T) {
	var status atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL)
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	var b Balancer
	b.Follow(t, &Server{API: server.URL}, &Server{API: "http://127.0.0.1:1"})
	for _, now := range []int{200, 503, 200} {
		status.Store(int64(now))
		want := 0
		if now == 200 {
			want = 1
		}
		Eventually(t, UpMax, func() error {
			if got := b.Ready(); got != want {
				return fmt.Errorf("%d nodes at status %d, want %d", got, now, want)
			}
			return nil
		})
		if node := b.pick(); (node != nil) != (want == 1) || node != nil && node.API != server.URL {
			t.Errorf("picked %v at status %d", node, now)
		}
	}
}

func TestRelay_CutsStallsAndHeals(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // its end is that of the connection
			})
		}
	})
	t.Cleanup(func() {
		echo.Close()
		served.Wait()
	})
	relay := NewRelay(t, "127.0.0.1:0", "postgres://"+echo.Addr().String()+"/db?sslmode=disable")
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", relay.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	say := func(conn net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(conn net.Conn, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Errorf("heard %q (%v), want %q", got, err, want)
		}
	}
	old := dial()
	say(old, "one")
	hear(old, "one")

	relay.Stall()
	young := dial()
	say(old, "two")
	say(young, "three")
	heard := make(chan string, 1)
	go func() {
		got := make([]byte, 3)
		_, _ = io.ReadFull(old, got)
		heard <- string(got)
	}()
	select {
	case got := <-heard:
		t.Errorf("heard %q through a stall", got)
	default: // nothing can tell that nothing will come; that it comes after Heal is what the next lines are for
	}
	relay.Heal()
	if got := <-heard; got != "two" {
		t.Errorf("heard %q after the stall", got)
	}
	hear(young, "three")

	relay.Cut()
	for _, conn := range []net.Conn{old, young, dial()} {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("a cut connection gave %d bytes (%v)", n, err)
		}
	}
	relay.Heal()
	again := dial()
	say(again, "four")
	hear(again, "four")
}
