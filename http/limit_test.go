package http

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]Limit{
		"off": {}, "10/1m": {10, time.Minute}, "1/1s": {1, time.Second}, "1000000/24h": {1_000_000, 24 * time.Hour},
		"5/90s": {5, 90 * time.Second},
	} {
		got, err := ParseLimit(text)
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
		if again, err := ParseLimit(got.String()); err != nil || again != got {
			t.Errorf("%q: %q reads as %v, %v", text, got.String(), again, err)
		}
	}
	for _, text := range []string{
		"", "10", "10/", "/1m", "0/1m", "-1/1m", "10/0s", "0/0s", "10/-1m", "10/1ms",
		"1000001/1m", "10/25h", "10/1m/1m", "x/1m", "10/1", "OFF", " off", "1.5/1m",
	} {
		if got, err := ParseLimit(text); err == nil {
			t.Errorf("%q: taken as %v", text, got)
		}
	}
}

func newTestLimiter(limit Limit) *limiter[int] {
	return newLimiter[int]("test", limit, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"limit"}))
}

// TestLimiter_IsATokenBucket compares with a bucket that is filled by the tick.
func TestLimiter_IsATokenBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		requests := rapid.IntRange(1, 20).Draw(t, "requests")
		interval := time.Duration(rapid.IntRange(1, 10).Draw(t, "interval_s")) * time.Second
		limiter := newTestLimiter(Limit{requests, interval * time.Duration(requests)})
		now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
		level, filled := requests, now // a token falls in at filled + interval, unless the bucket is full
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "pause_s")) * time.Second)
			for level < requests && !filled.Add(interval).After(now) {
				level, filled = level+1, filled.Add(interval)
			}
			if level == requests {
				filled = now
			}
			full, wait := limiter.take(1, now)
			if level == 0 {
				if want := filled.Add(interval).Sub(now); wait != want {
					t.Fatalf("%d per %v, empty: wait %v, want %v", requests, interval, wait, want)
				}
				continue
			}
			level--
			if wait > 0 {
				t.Fatalf("%d per %v, %d left: told to wait %v", requests, interval, level, wait)
			}
			if left := int((limiter.window - full) / interval); left != level {
				t.Fatalf("%d per %v: %d left, want %d", requests, interval, left, level)
			}
		}
	})
}

func TestLimiter_TableIsBounded(t *testing.T) {
	limiter := newTestLimiter(Limit{1, time.Minute})
	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for key := range limitKeysMax + 10_000 {
		limiter.take(key, now)
	}
	if n := limiter.buckets.len(); n != limitKeysMax {
		t.Errorf("%d keys, bound is %d", n, limitKeysMax)
	}
	if _, wait := limiter.take(limitKeysMax, now); wait != time.Minute {
		t.Errorf("a recent key was forgotten: wait %v", wait)
	}
	if _, wait := limiter.take(0, now); wait != 0 {
		t.Errorf("the oldest key was kept: wait %v", wait)
	}
}

func okHandler(c *gin.Context) error {
	writeNothing(c)
	return nil
}

func TestLimit_OfBookingsIsPerUserAndToldInHeaders(t *testing.T) {
	w := newSite(t, func(config *Config) { config.BookLimit = Limit{10, time.Minute} },
		route{method: "POST", path: "/limited", handle: okHandler, access: accountOwn, limit: limitBook})
	ada, _ := w.token(t, evently.RoleUser)
	bob, _ := w.token(t, evently.RoleUser)
	ask := func(token string, wantStatus int, wantLimit string) *answer {
		t.Helper()
		a := w.do(t, "POST", "/limited", "", "Authorization", token)
		if a.status != wantStatus || a.header.Get("RateLimit-Policy") != `"book";q=10;w=60` || a.header.Get("RateLimit") != wantLimit {
			t.Fatalf("got %d, %q, %q; want %d, %q", a.status, a.header.Get("RateLimit-Policy"), a.header.Get("RateLimit"), wantStatus, wantLimit)
		}
		return a
	}
	for i := range 10 {
		ask(ada, http.StatusNoContent, fmt.Sprintf(`"book";r=%d;t=%d`, 9-i, 6*(i+1)))
	}
	refused := ask(ada, http.StatusTooManyRequests, `"book";r=0;t=60`)
	refused.problem(t, evently.CodeRateLimited)
	if got := refused.header.Get("Retry-After"); got != "6" {
		t.Errorf("Retry-After is %q", got)
	}
	ask(bob, http.StatusNoContent, `"book";r=9;t=6`)
	w.clock.add(5 * time.Second)
	if got := ask(ada, http.StatusTooManyRequests, `"book";r=0;t=55`).header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q", got)
	}
	w.clock.add(time.Second)
	ask(ada, http.StatusNoContent, `"book";r=0;t=60`)
	w.clock.add(10 * time.Minute)
	ask(ada, http.StatusNoContent, `"book";r=9;t=6`)
	if got := testutil.ToFloat64(w.server.metrics.rateLimited.WithLabelValues("book")); got != 2 {
		t.Errorf("%v refusals counted", got)
	}
}

func TestLimit_OfAuthIsPerAddressAndBeforeTheWork(t *testing.T) {
	w := newSite(t, func(config *Config) {
		config.AuthLimit = Limit{2, time.Minute}
		config.TrustedProxies = []string{"127.0.0.1"}
	})
	ask := func(address string, status int) {
		t.Helper()
		a := w.do(t, "POST", "/login", `{}`, "X-Forwarded-For", address)
		if a.status != status || a.header.Get("RateLimit-Policy") != `"auth";q=2;w=60` {
			t.Fatalf("from %s: got %d, %q; want %d", address, a.status, a.header.Get("RateLimit-Policy"), status)
		}
	}
	for _, address := range []string{"198.51.100.1", "2001:db8:0:1::1"} {
		ask(address, http.StatusUnauthorized)
		ask(address, http.StatusUnauthorized)
		ask(address, http.StatusTooManyRequests)
	}
	ask("198.51.100.2", http.StatusUnauthorized)
	ask("2001:db8:0:1:ffff::2", http.StatusTooManyRequests) // the same site
	ask("2001:db8:0:2::1", http.StatusUnauthorized)
	ask("::ffff:198.51.100.1", http.StatusTooManyRequests) // the same address, written otherwise
	if got := testutil.ToFloat64(w.server.metrics.passwords); got != 6 {
		t.Errorf("%v passwords were checked, want 6", got)
	}
}

func TestLimit_ProxiesAreNotTrustedUnlessConfigured(t *testing.T) {
	w := newSite(t, func(config *Config) { config.AuthLimit = Limit{1, time.Minute} })
	if a := w.do(t, "POST", "/login", `{`, "X-Forwarded-For", "198.51.100.1"); a.status != http.StatusBadRequest {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.do(t, "POST", "/login", `{`, "X-Forwarded-For", "198.51.100.2").problem(t, evently.CodeRateLimited)
}

func TestLimit_OfAnAddressCoversAllRoutes(t *testing.T) {
	w := newSite(t, func(config *Config) {
		config.AddressLimit, config.AuthLimit = Limit{3, time.Second}, Limit{10, time.Minute}
	})
	for i, ask := range []func() *answer{
		func() *answer { return w.do(t, "POST", "/login", `{`) },
		func() *answer { return w.do(t, "GET", "/nowhere", "") },
		func() *answer { return w.do(t, "GET", "/me", "") },
	} {
		if a := ask(); a.status == http.StatusTooManyRequests || a.header.Get("RateLimit") != `"address";r=`+strconv.Itoa(2-i)+`;t=1` {
			t.Errorf("request %d: %d %q", i, a.status, a.header.Get("RateLimit"))
		}
	}
	w.do(t, "GET", "/me", "").problem(t, evently.CodeRateLimited)
}

func TestLimit_OffTellsNothing(t *testing.T) {
	w := newSite(t, nil)
	if a := w.do(t, "POST", "/login", `{`); a.header.Get("RateLimit") != "" || a.header.Get("RateLimit-Policy") != "" {
		t.Errorf("headers of no limit: %v", a.header)
	}
}
