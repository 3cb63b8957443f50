package http

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// chain makes what the router calls for a route. The steps are functions around functions, put together once, so that a
// request allocates nothing for them.
func (s *Server) chain(r *route) gin.HandlerFunc {
	workMax := cmp.Or(r.workMax, s.config.RequestTimeout)
	answer := s.keyed(r.key, workMax, acting(emptyBody(r.noBody, queried(r.query, r.handle))))
	answer = s.verifiedOnly(r.verified, answer)
	if !r.endless {
		answer = s.admitted(r.always, workMax, answer)
	}
	if r.path != unmatched {
		answer = s.awaited(r.endless, answer)
	}
	// What stands from here on refuses by the header alone and waits for nothing.
	answer = s.limited(r.limit, answer)
	answer = s.authenticated(r.access, r.endsSession, answer)
	answer = s.addressed(answer)
	answer = sized(answer)
	answer = s.crossOrigin(answer)
	answer = s.spared(r.always, answer)
	answer = s.recovered(answer)
	meter := s.metrics.meter(r.method, r.path)

	return func(c *gin.Context) {
		x := exchanges.Get().(*exchange)
		*x = exchange{
			ResponseWriter: c.Writer, begun: s.config.Now(), conn: connectionOf(c.Request), trace: traceOf(c.Request),
			body: x.body[:0], record: x.record[:0],
		}
		c.Writer = x
		defer func() {
			took := s.config.Now().Sub(x.begun)
			meter.count(x.Status(), took, r.endless)
			s.logAccess(c, x, took)
			c.Writer = x.ResponseWriter
			s.dropLarge(x)
			exchanges.Put(x)
		}()
		s.ids.give(x, c.Request)
		secure(x.Header())
		if c.Request.Body == http.NoBody {
			x.bodyState = bodyReceived
			x.conn.move(working)
		}
		if err := answer(c); err != nil {
			s.writeProblem(c, err)
		}
	}
}

// secure sets the headers of every answer. What is private must not be stored; a handler that knows better says so.
func secure(header http.Header) {
	header["X-Content-Type-Options"] = noSniff
	header["Content-Security-Policy"] = noContent
	header["Referrer-Policy"] = noReferrer
	header["Cache-Control"] = noStore
}

// logBytesMax bounds what the access log takes of a text that clients choose.
const logBytesMax = 512

func (s *Server) logAccess(c *gin.Context, x *exchange, took time.Duration) {
	oneOf := s.config.AccessLog
	//nolint:gosec // no secret
	if oneOf == 0 || x.Status() < http.StatusInternalServerError && oneOf > 1 && rand.N(oneOf) > 0 {
		return
	}
	ctx := c.Request.Context()
	if !s.config.Logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	user := ""
	if x.who.User != 0 {
		user = x.who.User.String()
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "request",
		slog.String("request_id", x.id), x.traceAttr(), slog.String("method", truncated(c.Request.Method, logBytesMax)),
		slog.String("path", truncated(c.Request.URL.Path, logBytesMax)),
		slog.Int("status", x.Status()), slog.Int("bytes", max(x.Size(), 0)), slog.Float64("seconds", took.Seconds()),
		slog.String("address", c.ClientIP()), slog.String("user", user))
}

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// recovered makes a panic an error, so that it ends one request and not the process.
func (s *Server) recovered(next handler) handler {
	return func(c *gin.Context) (err error) {
		defer func() {
			switch value := recover(); value {
			case nil:
			case http.ErrAbortHandler: // asks net/http to cut the connection
				panic(value)
			default:
				s.metrics.panics.Inc()
				err = &panicError{value, debug.Stack()}
			}
		}()
		return next(c)
	}
}

// spared refuses a request before anything is done for it while as many are in flight as may be: admitted would refuse it in the end.
func (s *Server) spared(always bool, next handler) handler {
	if always {
		return next
	}
	return func(c *gin.Context) error {
		if s.metrics.working.Load() >= int64(s.config.InFlightMax) {
			return evently.ErrOverloaded
		}
		return next(c)
	}
}

// admitted bounds the requests in flight and the time of each, which both begin when the body is there.
func (s *Server) admitted(always bool, workMax time.Duration, next handler) handler {
	return func(c *gin.Context) error {
		defer s.metrics.working.Add(-1)
		if s.metrics.working.Add(1) > int64(s.config.InFlightMax) && !always {
			return evently.ErrOverloaded
		}
		request := c.Request
		ctx := evently.Within(request.Context(), time.Now().Add(workMax))
		c.Request = request.WithContext(ctx)
		defer func() {
			ctx.End()
			c.Request = request // whose context tells whether the client is still there
		}()
		return next(c)
	}
}

// crossOrigin tells browsers which pages of other origins may use the API. Tokens travel in a header and never in a cookie, so
// a request from elsewhere does no harm by itself: it is answered, and its page cannot read the answer.
func (s *Server) crossOrigin(next handler) handler {
	origins := s.config.CORSOrigins
	if len(origins) == 0 {
		return next
	}
	methods := []string{"GET, HEAD, POST, PUT, DELETE"}
	asks := []string{"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Traceparent, X-Request-Id"}
	tells := []string{"ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"}
	age := []string{"600"}
	return func(c *gin.Context) error {
		origin := c.Request.Header["Origin"]
		if len(origin) != 1 {
			return next(c)
		}
		header := c.Writer.Header()
		header["Vary"] = append(header["Vary"], "Origin")
		if !slices.Contains(origins, "*") && !slices.Contains(origins, origin[0]) {
			return next(c)
		}
		header["Access-Control-Allow-Origin"] = origin
		if c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != "" {
			header["Access-Control-Allow-Methods"], header["Access-Control-Allow-Headers"] = methods, asks
			header["Access-Control-Max-Age"] = age
			s.forgo(c)
			writeNothing(c)
			return nil
		}
		header["Access-Control-Expose-Headers"] = tells
		return next(c)
	}
}

// sized refuses a body that says itself that it is too large, before anything is done for it.
func sized(next handler) handler {
	return func(c *gin.Context) error {
		if c.Request.ContentLength > bodyBytesMax {
			return errBodyTooLarge
		}
		return next(c)
	}
}

// authenticated finds who makes the request and whether their role has the route's permission. Where a route ends the session, that session is
// let pass as ended, for acting to stop: who lost the answer to a logout may ask for it again.
func (s *Server) authenticated(needs permission, endsSession bool, next handler) handler {
	if needs == public {
		return next
	}
	var allowed [evently.RoleAdmin + 1]bool
	for role := range allowed {
		allowed[role] = may(evently.Role(role), needs)
	}
	return func(c *gin.Context) error {
		token, found := bearer(c.Request.Header)
		if !found {
			return evently.ErrUnauthenticated
		}
		x := exchangeOf(c)
		who, err := s.tokens.verify(token, x.begun)
		ended := err == nil && s.revoked.has(who.Session)
		if err != nil || ended && !endsSession {
			return refuseToken(c)
		}
		if !allowed[who.Role] {
			return evently.ErrForbidden
		}
		x.who, x.ended = who, ended
		return next(c)
	}
}

// acting stops the requests of a session that has ended.
func acting(next handler) handler {
	return func(c *gin.Context) error {
		if exchangeOf(c).ended {
			return refuseToken(c)
		}
		return next(c)
	}
}

func refuseToken(c *gin.Context) error {
	c.Writer.Header()["Www-Authenticate"] = challengeInvalid
	return evently.ErrUnauthenticated
}

func bearer(header http.Header) (token string, found bool) {
	const scheme = "Bearer "
	values := header["Authorization"]
	if len(values) != 1 || len(values[0]) <= len(scheme) || !strings.EqualFold(values[0][:len(scheme)], scheme) {
		return "", false
	}
	return values[0][len(scheme):], true
}

// requestIDs makes ids for requests that bring none: unique, and no secret.
type requestIDs struct {
	prefix string // of this process
	last   *atomic.Uint64
}

const requestIDLenMax = 128

func newRequestIDs(random io.Reader) (requestIDs, error) {
	var prefix [9]byte
	if _, err := io.ReadFull(random, prefix[:]); err != nil {
		return requestIDs{}, fmt.Errorf("draw a random number: %w", err)
	}
	return requestIDs{base64.RawURLEncoding.EncodeToString(prefix[:]) + ".", new(atomic.Uint64)}, nil
}

// give gives an exchange the id that its request brings if it is fit to be logged and repeated, else a new one.
func (ids requestIDs) give(x *exchange, request *http.Request) {
	const name = "X-Request-Id"
	if sent := request.Header[name]; len(sent) == 1 && validRequestID(sent[0]) {
		x.setText(name, sent[0])
	} else {
		var buf [32]byte
		x.set(name, strconv.AppendUint(append(buf[:0], ids.prefix...), ids.last.Add(1), 36))
	}
	x.id = x.values[0]
}

func validRequestID(id string) bool {
	for i := range len(id) {
		b := id[i]
		if b-'0' > 9 && b|0x20-'a' > 25 && b != '.' && b != '_' && b != '-' {
			return false
		}
	}
	return 1 <= len(id) && len(id) <= requestIDLenMax
}

// Header values that never change are shared, which spares an allocation each.
var (
	jsonMediaType    = []string{"application/json"}
	problemMediaType = []string{"application/problem+json"}
	noStore          = []string{"no-store"}
	noSniff          = []string{"nosniff"}
	noReferrer       = []string{"no-referrer"}
	noContent        = []string{"default-src 'none'; frame-ancestors 'none'"}
	connectionClose  = []string{"close"}
	challengePlain   = []string{`Bearer realm="evently"`}
	challengeInvalid = []string{`Bearer realm="evently", error="invalid_token"`}
)
