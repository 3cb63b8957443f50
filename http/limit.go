package http

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// Limit allows a number of requests at once, and after that as many in each window, evenly. Zero: no limit.
type Limit struct {
	Requests int
	Window   time.Duration
}

// The bounds of a Limit.
const (
	limitRequestsMax = 1_000_000
	limitWindowMax   = 24 * time.Hour
)

// ParseLimit reads a limit such as 10/1m, or off.
func ParseLimit(text string) (Limit, error) {
	if text == "off" {
		return Limit{}, nil
	}
	requests, window, _ := strings.Cut(text, "/")
	limit := Limit{}
	var countErr, windowErr error
	limit.Requests, countErr = strconv.Atoi(requests)
	limit.Window, windowErr = time.ParseDuration(window)
	if countErr != nil || windowErr != nil || limit.validate() != nil || limit == (Limit{}) {
		return Limit{}, fmt.Errorf("parse limit %.40q: not off, and not of the form 10/1m with 1 to %d requests in %s to %s",
			text, limitRequestsMax, time.Second, limitWindowMax)
	}
	return limit, nil
}

// String is the inverse of ParseLimit.
func (l Limit) String() string {
	if l == (Limit{}) {
		return "off"
	}
	return fmt.Sprintf("%d/%s", l.Requests, l.Window)
}

func (l Limit) validate() error {
	if l != (Limit{}) && (l.Requests < 1 || l.Requests > limitRequestsMax || l.Window < time.Second || l.Window > limitWindowMax) {
		return fmt.Errorf("limit %s is out of bounds", l)
	}
	return nil
}

// limitKeysMax bounds the keys that a limiter remembers. The one used least recently is forgotten first.
const limitKeysMax = 100_000

// limiter is a token bucket for each key. All it keeps of a bucket is the moment from which it is full again (the generic
// cell rate algorithm): a request is allowed if that moment, one interval later, is not more than a window ahead. Requests
// allowed elsewhere put it off too, and further ahead than a window: then the bucket owes some (sharing.go).
type limiter[K comparable] struct {
	window   time.Duration
	interval time.Duration // in which one request is earned
	name     string
	policies []string // shared by all answers: one, and never modified
	refused  prometheus.Counter
	lost     prometheus.Counter // requests allowed here that others are never told of; nil: they are told of none

	mu      sync.Mutex
	buckets *lru[K, bucket]
	untold  []K // keys with requests that others are to be told of, at most limitKeysMax
}

// bucket is what a limiter knows of a key.
type bucket struct {
	fullAt time.Time
	untold uint32 // requests allowed here that others were not told of yet
}

// allowance is a number of requests that were allowed.
type allowance[K comparable] struct {
	key   K
	count uint32
}

// newLimiter returns nil, which limits nothing, when there is no limit.
func newLimiter[K comparable](name string, limit Limit, refused *prometheus.CounterVec) *limiter[K] {
	if limit == (Limit{}) {
		return nil
	}
	return &limiter[K]{
		window: limit.Window, interval: limit.Window / time.Duration(limit.Requests), name: strconv.Quote(name),
		policies: []string{fmt.Sprintf("%q;q=%d;w=%d", name, limit.Requests, ceilSeconds(limit.Window))},
		refused:  refused.WithLabelValues(name), buckets: newLRU[K, bucket](limitKeysMax),
	}
}

// take takes a request from the bucket of a key. It returns how long the bucket takes to be full again and, when the
// request is not allowed, how long to wait for it.
func (l *limiter[K]) take(key K, now time.Time) (full, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key, now)
	full = b.fullAt.Sub(now)
	if wait = full + l.interval - l.window; wait > 0 {
		return full, wait
	}
	b.fullAt = b.fullAt.Add(l.interval)
	if l.lost != nil {
		l.note(key, b)
	}
	return full + l.interval, 0
}

// note remembers to tell others of a request.
func (l *limiter[K]) note(key K, b *bucket) {
	switch {
	case b.untold > 0:
	case len(l.untold) == limitKeysMax:
		l.lost.Inc()
		return
	default:
		l.untold = append(l.untold, key)
	}
	b.untold++
}

// bucket returns the bucket of a key as it is now.
func (l *limiter[K]) bucket(key K, now time.Time) *bucket {
	b := l.buckets.get(key)
	if b == nil {
		b = l.buckets.put(key, bucket{fullAt: now})
	}
	if b.fullAt.Before(now) {
		b.fullAt = now
	}
	return b
}

// tell returns what was allowed here and not told yet, of at most keysMax keys. What is left is told the next time.
func (l *limiter[K]) tell(keysMax int) []allowance[K] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.untold) == 0 {
		return nil
	}
	keys := l.untold[:min(len(l.untold), keysMax)]
	allowed := make([]allowance[K], 0, len(keys))
	for _, key := range keys {
		switch b := l.buckets.get(key); {
		case b == nil: // forgotten since
			l.lost.Inc()
		case b.untold > 0: // else forgotten and back again: it stands here twice
			allowed = append(allowed, allowance[K]{key, b.untold})
			b.untold = 0
		}
	}
	l.untold = slices.Delete(l.untold, 0, len(keys))
	return allowed
}

// hear takes requests from the bucket of a key that were allowed elsewhere. The bucket may so come to owe requests, but
// hearing of some never puts off the time at which it is full beyond owedMax from now.
func (l *limiter[K]) hear(allowed allowance[K], now time.Time, owedMax time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(allowed.key, now)
	if room := owedMax - b.fullAt.Sub(now); room > 0 {
		count := min(time.Duration(allowed.count), room/l.interval+1) // so that the product cannot overflow
		b.fullAt = b.fullAt.Add(min(count*l.interval, room))
	}
}

// allow takes a request, tells the client how it stands, and refuses with CodeRateLimited.
func (l *limiter[K]) allow(c *gin.Context, key K) error {
	x := exchangeOf(c)
	full, wait := l.take(key, x.begun)
	header := x.Header()
	var buf [64]byte
	text := append(append(buf[:0], l.name...), ";r="...)
	text = strconv.AppendInt(text, int64(max(l.window-full, 0)/l.interval), 10)
	text = strconv.AppendInt(append(text, ";t="...), ceilSeconds(full), 10)
	if before := header["Ratelimit"]; before == nil {
		header["Ratelimit-Policy"] = l.policies
		x.set("Ratelimit", text)
	} else {
		header["Ratelimit-Policy"] = append(header["Ratelimit-Policy"], l.policies...)
		header["Ratelimit"] = append(before, string(text))
	}
	if wait <= 0 {
		return nil
	}
	l.refused.Inc()
	return &evently.Error{Code: evently.CodeRateLimited, Detail: "Too many requests; try again later.", RetryAfter: wait}
}

// limited applies the limit of a route.
func (s *Server) limited(kind limitKind, next handler) handler {
	switch {
	case kind == limitBook && s.bookLimiter != nil:
		return func(c *gin.Context) error {
			if err := s.bookLimiter.allow(c, principal(c).User); err != nil {
				return err
			}
			return next(c)
		}
	case kind == limitAuth:
		return perAddress(s.authLimiter, next)
	}
	return next
}

// addressed applies the limit of all requests of an address.
func (s *Server) addressed(next handler) handler {
	return perAddress(s.addressLimiter, next)
}

func perAddress(limiter *limiter[netip.Addr], next handler) handler {
	if limiter == nil {
		return next
	}
	return func(c *gin.Context) error {
		if err := limiter.allow(c, addressOf(c)); err != nil {
			return err
		}
		return next(c)
	}
}

// ipv6SiteBits is the part of an IPv6 address that a client cannot choose: one site has all addresses of a /64.
const ipv6SiteBits = 64

// addressOf is the address a limit counts for. Requests without one, as over a Unix socket, share the zero address.
func addressOf(c *gin.Context) netip.Addr {
	address, err := netip.ParseAddr(c.ClientIP())
	if err != nil || address.Unmap().Is4() {
		return address.Unmap()
	}
	site, err := address.WithZone("").Prefix(ipv6SiteBits)
	if err != nil {
		panic("http: a prefix of 64 bits of " + address.String() + ": " + err.Error())
	}
	return site.Addr()
}
