package bench

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/evently/evently"
)

// A key that is answered otherwise than before, or as if it were new, is found.
func TestAPI_ReplayFindsDoubledKeys(t *testing.T) {
	t.Parallel()
	first := evently.ReservationID{Event: 7, Token: 1}
	for _, c := range []struct {
		name     string
		again    evently.ReservationID
		replayed bool
		want     int
	}{
		{"the same", first, true, 0},
		{"another", evently.ReservationID{Event: 7, Token: 2}, true, 1},
		{"not as a repetition", first, false, 1},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Idempotency-Key") != (Key{1, 2}).Text() || r.URL.Path != "/events/"+first.Event.String()+"/book" {
				t.Errorf("%s %v", r.URL, r.Header)
			}
			w.Header().Set("Idempotency-Replayed", fmt.Sprint(c.replayed))
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"id":%q}`, c.again)
		}))
		var audit Audit
		err := (&API{URL: server.URL}).replay(t.Context(), []keySample{{Key{1, 2}, first, &User{Token: "x"}, 0}}, &audit)
		server.Close()
		if err != nil || audit.Keys != 1 || audit.DoubledKeys != c.want || audit.Passed() != (c.want == 0) {
			t.Errorf("%s: %+v (%v), want %d doubled", c.name, audit, err, c.want)
		}
	}
}

// limited is an API that tells of limits, and refuses what a function says.
func limited(t *testing.T, policies string, refuse func(r *http.Request) int) string {
	t.Helper()
	var last atomic.Uint64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if policies != "" {
			w.Header().Set("RateLimit-Policy", policies)
		}
		status, body := http.StatusCreated, fmt.Sprintf(`{"id":%q}`, evently.EventID(last.Add(1)))
		if strings.HasSuffix(r.URL.Path, ".csv") {
			status, body = http.StatusOK, "id,user_id,status,quantity\n"
		}
		if refused := refuse(r); refused != 0 {
			status = refused
		}
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestAPI_ProbeSaysWhatWouldFailLate(t *testing.T) {
	t.Parallel()
	defer apiHTTP.CloseIdleConnections()
	forbidden := func(part string) func(*http.Request) int {
		return func(r *http.Request) int {
			if part != "" && strings.Contains(r.URL.Path, part) {
				return http.StatusForbidden
			}
			return 0
		}
	}
	for _, c := range []struct {
		policies, forbidden string
		rate                float64
		workload            string // empty: hot
		want                string // empty: nothing
	}{
		{},
		{forbidden: "/admin/events", want: "to be able to publish events"},
		{forbidden: "bookings.csv", want: "to be able to export bookings"},
		{forbidden: "/book", want: "403 Forbidden"},
		{policies: `"book";q=10;w=60`, want: "set rate_limit_book to off at its nodes for as long as they are measured (EVENTLY_RATE_LIMIT_BOOK=off)"},
		{policies: `"book";q=10;w=60`, workload: "mix", want: "rate_limit_book"},
		{policies: `"book";q=10;w=60`, workload: "read"},
		{policies: `"address";q=10;w=60`, workload: "read", want: "rate_limit_address"},
		{policies: `"book";q=10;w=60`, rate: 0.1, workload: "sold-out", want: "rate_limit_book"},
		{policies: `"address";q=1000;w=1`, rate: 0.1, workload: "sold-out", want: "rate_limit_address"},
		{policies: `"auth";q=1;w=60, "address";q=100;w=1`, want: "set rate_limit_address to off"},
		{policies: `"book";q=10;w=60`, rate: 0.5, want: "set rate_limit_book to off"}, // two users: 15 a minute each
		{policies: `"book";q=10;w=60, "address";q=1000;w=1`, rate: 0.1},
		{policies: `nonsense`},
	} {
		api := &API{URL: limited(t, c.policies, forbidden(c.forbidden)), Admin: "admin", Users: []User{{Token: "a"}, {Token: "b"}}}
		if c.forbidden == "/book" {
			api.URL = limited(t, c.policies, func(r *http.Request) int {
				if strings.HasSuffix(r.URL.Path, "/book") && r.Header.Get("Authorization") == "Bearer b" {
					return http.StatusForbidden
				}
				return 0
			})
			c.want = "user 2: "
		}
		workload, _ := WorkloadNamed(cmp.Or(c.workload, "hot"))
		err := api.Probe(t.Context(), c.rate, []Workload{workload})
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRegisterUsers_DoesNotWaitForALimit(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	url := limited(t, `"auth";q=20;w=60`, func(*http.Request) int { asked.Add(1); return 0 })
	_, err := RegisterUsers(t.Context(), url, 10) // and an administrator
	var limit *LimitedError
	if !errors.As(err, &limit) || *limit != (LimitedError{"auth", 20, 60}) || asked.Load() != 1 {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
	apiHTTP.CloseIdleConnections()
}
