package http

import (
	"fmt"
	"net/netip"
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
// cell rate algorithm): a request is allowed if that moment, one interval later, is not more than a window ahead.
type limiter[K comparable] struct {
	window   time.Duration
	interval time.Duration // in which one request is earned
	name     string
	policy   string
	refused  prometheus.Counter

	mu     sync.Mutex
	fullAt *lru[K, time.Time]
}

// newLimiter returns nil, which limits nothing, when there is no limit.
func newLimiter[K comparable](name string, limit Limit, refused *prometheus.CounterVec) *limiter[K] {
	if limit == (Limit{}) {
		return nil
	}
	return &limiter[K]{
		window: limit.Window, interval: limit.Window / time.Duration(limit.Requests), name: strconv.Quote(name),
		policy:  fmt.Sprintf("%q;q=%d;w=%d", name, limit.Requests, ceilSeconds(limit.Window)),
		refused: refused.WithLabelValues(name), fullAt: newLRU[K, time.Time](limitKeysMax),
	}
}

// take takes a request from the bucket of a key. It returns how long the bucket takes to be full again and, when the
// request is not allowed, how long to wait for it.
func (l *limiter[K]) take(key K, now time.Time) (full, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fullAt := l.fullAt.get(key)
	if fullAt == nil {
		fullAt = l.fullAt.put(key, now)
	}
	if fullAt.Before(now) {
		*fullAt = now
	}
	full = fullAt.Sub(now)
	if wait = full + l.interval - l.window; wait > 0 {
		return full, wait
	}
	*fullAt = fullAt.Add(l.interval)
	return full + l.interval, 0
}

// allow takes a request, tells the client how it stands, and refuses with CodeRateLimited.
func (l *limiter[K]) allow(c *gin.Context, key K, now time.Time) error {
	full, wait := l.take(key, now)
	header := c.Writer.Header()
	header["Ratelimit-Policy"] = append(header["Ratelimit-Policy"], l.policy)
	var buf [64]byte
	text := append(append(buf[:0], l.name...), ";r="...)
	text = strconv.AppendInt(text, int64((l.window-full)/l.interval), 10)
	text = strconv.AppendInt(append(text, ";t="...), ceilSeconds(full), 10)
	header["Ratelimit"] = append(header["Ratelimit"], string(text))
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
			if err := s.bookLimiter.allow(c, principal(c).User, s.config.Now()); err != nil {
				return err
			}
			return next(c)
		}
	case kind == limitAuth:
		return perAddress(s.authLimiter, s.config.Now, next)
	}
	return next
}

// addressed applies the limit of all requests of an address.
func (s *Server) addressed(next handler) handler {
	return perAddress(s.addressLimiter, s.config.Now, next)
}

func perAddress(limiter *limiter[netip.Addr], now func() time.Time, next handler) handler {
	if limiter == nil {
		return next
	}
	return func(c *gin.Context) error {
		if err := limiter.allow(c, addressOf(c), now()); err != nil {
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
