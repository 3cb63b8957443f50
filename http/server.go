// Package http is the public face of Evently: the REST API that openapi.json describes, and the listener of the operators.
//
// One table of routes (route.go) makes the router. Every request passes the same chain (middleware.go): request id, recovery,
// metrics and access log, secure headers, CORS, size of the body, access, rate limit, the body itself, a place among the requests in
// flight, Idempotency-Key, handler. A handler returns an error, and one table (problem.go) makes the problem a client is told out of
// it. The package holds no truth: what it remembers between requests - caches, rate limits, verified tokens, revoked sessions - is
// bounded and may be lost.
package http

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// Config is what a Server needs.
type Config struct {
	// The ports that the routes use. All are needed.
	Engine    evently.Engine
	Catalogue evently.Catalogue
	History   evently.History
	Waitlists evently.Waitlists
	Exports   evently.Exports
	Pricer    evently.Pricer
	Webhooks  evently.Webhooks
	Accounts  evently.Accounts
	Answers   evently.Answers
	Streams   evently.Streams
	Audit     evently.Audit
	Analytics evently.Analytics

	// WebhookTarget returns an *evently.Error when messages must not be sent to a URL. It is needed.
	WebhookTarget func(ctx context.Context, url string) error

	// Mailbox is shown to operators, at GET /dev/mailbox. Default: there is none, because mails go to a server.
	Mailbox evently.Mailbox

	// Health are the checks of GET /health. Each is made at most once a second.
	Health []HealthCheck
	// Info is what GET /info tells.
	Info Info

	// Tokens says how access tokens are signed and how long they live.
	Tokens TokenConfig

	// BookLimit is for each user's bookings and joinings of waitlists, at all nodes together that Share connects. A node hears a moment late of what
	// others allowed, some 100 ms: a user who asks N nodes within that time may be allowed up to N-1 limits more at once. They are
	// owed, and all nodes refuse until they are made up for, so that the rate over a longer time is that of one limit. What
	// does not reach a node is not owed there; at the worst, with no word between nodes, the limit is of each node. Default: no limit.
	BookLimit Limit
	// AuthLimit is for each address' requests to register, sign in and refresh, and those about codes and passwords. Default: no limit.
	AuthLimit Limit
	// AddressLimit is for each address' requests of all kinds. Many users may share an address. Default: no limit.
	AddressLimit Limit

	// Share tells all other nodes what this one allowed of BookLimit, for their TakenElsewhere. Serve calls it about every
	// 100 ms if there is anything to tell, with a new body of at most 768 KiB. It must not block. Losing a message errs in favour
	// of users. Default: this node is alone.
	Share func(body []byte)
	// Membership tells how this node sees the cluster, for GET /info and BookLimit. It must not block. Default: GET /info tells
	// of no cluster.
	Membership func() Membership
	// System asks all nodes how they are, for GET /admin/analytics/system, and which one an event is placed on unless it is 0. It
	// returns nodes that do not answer too, with NodeStatus.Error. Default: the route answers 503 unavailable.
	System func(ctx context.Context, event evently.EventID) (*System, error)

	// RequireVerifiedEmail has those whose address is not verified neither book nor wait for seats. Default: they may.
	RequireVerifiedEmail bool

	// InFlightMax bounds the requests answered at a time; more are refused with 503 overloaded. Probes are always
	// answered. A request counts from when its body is there. Raising it costs some 20 KiB of memory a request and
	// lengthens queues. Default: 4096.
	InFlightMax int
	// StreamClientsMax bounds the streams of availability that are open at a time; more are refused with 503 overloaded. They
	// count as requests in flight until they have begun, and no longer. Each costs some 30 KiB of memory and a connection. Default: 10,000.
	StreamClientsMax int
	// StreamClientsPerAddress bounds those of one address, where many users may be; more are refused with 429 rate_limited.
	// Default: 500.
	StreamClientsPerAddress int
	// PasswordHashesMax bounds the passwords hashed at a time. Each takes a core for some 30 ms and 19 MiB of memory.
	// Default: the number of cores.
	PasswordHashesMax int
	// RequestTimeout bounds the work on a request, from when its body is there; what is not answered by then is 503
	// unavailable. Default: 10 s.
	RequestTimeout time.Duration
	// DrainDelay is how long Serve, told to end, goes on serving with readiness off, for load balancers to notice. Default: 0.
	DrainDelay time.Duration
	// Unfit is closed when the node can serve no more and comes back as another: then there is no DrainDelay. Default: never.
	Unfit <-chan struct{}
	// DrainTimeout bounds the wait for the requests in flight when Serve ends. Default: 20 s.
	DrainTimeout time.Duration

	// TrustedProxies are the addresses or CIDR blocks whose X-Forwarded-For is believed. Default: none.
	TrustedProxies []string
	// CORSOrigins are the origins whose pages may use the API, such as https://tickets.example; "*" is any. Default: none.
	CORSOrigins []string

	// HoldTTL is the time a hold lives for events that do not say. Default: evently.HoldTTLDefault.
	HoldTTL time.Duration

	// Logger is told failures and, with AccessLog, requests at level info. Default: nothing is logged.
	Logger *slog.Logger
	// AccessLog has one request of so many logged, chosen by chance, and each that is answered with a status of 500 or more; 1: all of
	// them, which costs some 3 µs a request. Default: none.
	AccessLog int

	// Registerer gets the package's metrics; Gatherer is what /metrics shows. Both are needed.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer

	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Rand makes ids and tokens; it is safe for concurrent use. Default: crypto/rand.Reader.
	Rand io.Reader
}

// The defaults of Config.
const (
	inFlightMaxDefault    = 4096
	streamClientsDefault  = 10_000
	streamClientsPerAddr  = 500
	requestTimeoutDefault = 10 * time.Second
	drainTimeoutDefault   = 20 * time.Second
)

func (c *Config) complete() error {
	if c.Engine == nil || c.Catalogue == nil || c.History == nil || c.Waitlists == nil || c.Exports == nil || c.Pricer == nil ||
		c.Accounts == nil || c.Answers == nil ||
		c.Streams == nil || c.Audit == nil || c.Analytics == nil {
		return errors.New("a port is missing")
	}
	if c.Webhooks == nil || c.WebhookTarget == nil {
		return errors.New("the webhooks are missing")
	}
	if c.Registerer == nil || c.Gatherer == nil {
		return errors.New("the metrics' Registerer or Gatherer is missing")
	}
	if c.InFlightMax < 0 || c.StreamClientsMax < 0 || c.StreamClientsPerAddress < 0 ||
		c.PasswordHashesMax < 0 || c.AccessLog < 0 || c.RequestTimeout < 0 || c.DrainDelay < 0 || c.DrainTimeout < 0 {
		return errors.New("a bound is negative")
	}
	for _, limit := range []Limit{c.BookLimit, c.AuthLimit, c.AddressLimit} {
		if err := limit.validate(); err != nil {
			return err
		}
	}
	setDefault(&c.InFlightMax, inFlightMaxDefault)
	setDefault(&c.StreamClientsMax, streamClientsDefault)
	setDefault(&c.StreamClientsPerAddress, streamClientsPerAddr)
	setDefault(&c.RequestTimeout, requestTimeoutDefault)
	setDefault(&c.DrainTimeout, drainTimeoutDefault)
	setDefault(&c.HoldTTL, evently.HoldTTLDefault)
	if c.HoldTTL < evently.HoldTTLMin || c.HoldTTL > evently.HoldTTLMax || c.HoldTTL%time.Second != 0 {
		return fmt.Errorf("time of a hold is %s, not whole seconds from %s to %s", c.HoldTTL, evently.HoldTTLMin, evently.HoldTTLMax)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Info.Capabilities == nil {
		c.Info.Capabilities = []string{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return c.Tokens.complete()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Server answers HTTP requests.
type Server struct {
	config    Config
	metrics   *metrics
	router    *gin.Engine
	ids       requestIDs
	tokens    *tokens
	seals     []seal        // by token secret
	keys      []accountKeys // by token secret
	revoked   *revocations
	verified  *verifiedUsers
	passwords *passwords
	health    *health
	caches    *caches

	bookLimiter    *limiter[evently.UserID]
	authLimiter    *limiter[netip.Addr]
	addressLimiter *limiter[netip.Addr]

	streams  *hub
	exports  *slots // exports under way
	pricings *slots // pricing runs under way
	draining atomic.Bool

	largeBodies atomic.Int64  // the memory of all bodies but the small ones
	bodyGrace   time.Duration // bodyGrace, but in tests of clients that are slow for want of a processor
}

// New makes a Server. It returns an error when the configuration is wrong.
func New(config Config) (*Server, error) {
	s := &Server{config: config, bodyGrace: bodyGrace}
	if err := s.build(); err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	return s, nil
}

func (s *Server) build() (err error) {
	if err := s.config.complete(); err != nil {
		return err
	}
	if s.ids, err = newRequestIDs(s.config.Rand); err != nil {
		return err
	}
	if s.seals, err = newSeals(s.config.Tokens.Secrets); err != nil {
		return err
	}
	if s.keys, err = newAccountKeys(s.config.Tokens.Secrets); err != nil {
		return err
	}
	s.verified = newVerifiedUsers(&s.config)
	s.metrics = newMetrics(s.config.Registerer)
	s.tokens = newTokens(s.config.Tokens, s.config.Now, s.metrics)
	s.revoked = newRevocations(&s.config, s.metrics)
	s.passwords = newPasswords(s.config.PasswordHashesMax, s.metrics)
	s.health = &health{checks: s.config.Health, now: s.config.Now, logger: s.config.Logger}
	s.caches = newCaches(&s.config, s.metrics)
	s.streams = newHub(&s.config, s.metrics.streams)
	s.streams.heard = func(state *evently.State, at time.Time) { s.caches.states.put(state.Event.ID, state, at) }
	s.exports, s.pricings = newSlots(exportsMax), newSlots(pricingRunsMax)
	s.bookLimiter = newLimiter[evently.UserID]("book", s.config.BookLimit, s.metrics.rateLimited)
	if s.bookLimiter != nil && s.config.Share != nil {
		s.bookLimiter.lost = s.metrics.sharesLost
	}
	s.authLimiter = newLimiter[netip.Addr]("auth", s.config.AuthLimit, s.metrics.rateLimited)
	s.addressLimiter = newLimiter[netip.Addr]("address", s.config.AddressLimit, s.metrics.rateLimited)
	return s.mount(s.routes())
}

// random64 returns a random number other than zero, for an id.
func (s *Server) random64() (uint64, error) {
	var raw [8]byte
	for {
		if _, err := io.ReadFull(s.config.Rand, raw[:]); err != nil {
			return 0, fmt.Errorf("draw a random number: %w", err)
		}
		if n := binary.BigEndian.Uint64(raw[:]); n != 0 {
			return n, nil
		}
	}
}

// Handler is the public API.
func (s *Server) Handler() http.Handler { return s.router }

// The bounds of a connection. Config.RequestTimeout bounds the work on an answer, writeTimeout a client that does not take it.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second // header and body
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	headerBytesMax    = 16 << 10
)

// Serve answers the public API on a listener, which it closes, until ctx ends. Then it turns readiness off, goes on for
// Config.DrainDelay, takes no more connections and returns when the requests in flight are answered. Clients that are slow to send
// a request or to take an answer have drainSlowMax for it then, and what is left at Config.DrainTimeout is cut off and logged. It
// returns nil, or an error when the listener failed or the revoked sessions could not be read at the start. A Server serves once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	switch err := s.revoked.start(ctx); {
	case err != nil && ctx.Err() != nil:
		return listener.Close() // asked to stop before it served anybody
	case err != nil:
		return errors.Join(err, listener.Close())
	}
	defer s.revoked.stop()
	defer s.startSharing()()
	defer s.streams.start()()
	server := &http.Server{Handler: s.router, ReadTimeout: readTimeout, WriteTimeout: writeTimeout}
	server.RegisterOnShutdown(s.streams.end) // by when clients that come again find another node
	return s.serve(ctx, server, listener, func() {
		s.draining.Store(true)
		delay := time.NewTimer(s.config.DrainDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-s.config.Unfit:
		}
	})
}

// ServeAdmin answers AdminHandler on a listener, which it closes, until ctx ends.
func (s *Server) ServeAdmin(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, &http.Server{Handler: s.AdminHandler()}, listener, func() {})
}

func (s *Server) serve(ctx context.Context, server *http.Server, listener net.Listener, beforeShutdown func()) error {
	server.ReadHeaderTimeout, server.IdleTimeout, server.MaxHeaderBytes = readHeaderTimeout, idleTimeout, headerBytesMax
	server.ErrorLog = slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelWarn)
	// Requests outlive ctx, which tells them to be answered and no more to come, but not the server.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	server.BaseContext = func(net.Listener) context.Context { return work }
	failed := make(chan error, 1)
	conns := &connections{open: make(map[*connection]struct{})}
	server.ConnContext, server.ConnState = withConnection, track
	go func() { failed <- server.Serve(connectionListener{listener, conns}) }()
	select {
	case err := <-failed:
		return fmt.Errorf("http: serve %s: %w", listener.Addr(), errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	beforeShutdown()
	drain, cancel := context.WithTimeout(work, s.config.DrainTimeout)
	defer cancel()
	var hurrying sync.WaitGroup
	hurrying.Go(func() { conns.hurry(drain) })
	err := server.Shutdown(drain)
	cancel()
	hurrying.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		s.config.Logger.Warn("connections are cut off that did not end in the time to drain", "address", listener.Addr().String(),
			"connections", conns.remaining(), "drain_timeout", s.config.DrainTimeout.String())
		err = server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("http: drain %s: %w", listener.Addr(), err)
	}
	return nil
}
