package http

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// handler answers a request. An *evently.Error, wrapped or not, becomes a problem; any other error is logged and
// becomes 500 internal. A handler that has begun its answer returns nil.
type handler func(c *gin.Context) error

// route is a line of the route table. A route for GET answers HEAD too.
type route struct {
	method, path string
	handle       handler
	access       permission
	limit        limitKind
	query        []string // the query parameters it knows
	key          keyRule
	noBody       bool          // a request body must be absent or {}
	always       bool          // answered under overload too: probes
	workMax      time.Duration // bounds the work on it, where Config.RequestTimeout is too short
	verified     bool          // needs a verified e-mail address, if Config.RequireVerifiedEmail says so
	endless      bool          // answers for as long as the client likes: not bounded as requests are, see hub
	endsSession  bool          // its stored answer is given again to the session that it ended
}

// limitKind is the rate limit of a route, besides the one for each address.
type limitKind uint8

const (
	limitNone limitKind = iota
	limitBook           // Config.BookLimit for each user
	limitAuth           // Config.AuthLimit for each address; failed sign-ins are limited for each account too
)

// keyRule is what an Idempotency-Key means to a route.
type keyRule uint8

const (
	keyNone     keyRule = iota // ignored: the method is idempotent by itself
	keyOptional                // the first answer is stored in Config.Answers and repeated
	keyBook                    // required; the event's ledger remembers it
)

// routes is the whole API: the one table that the router, the metrics and the API description are made from.
func (s *Server) routes() []route {
	var table []route
	for _, part := range [][]route{
		s.operationRoutes(), s.accountRoutes(), s.userRoutes(), s.eventRoutes(), s.reservationRoutes(), s.adminRoutes(), s.docRoutes(),
		s.webhookRoutes(), s.waitlistRoutes(), s.pricingRoutes(), s.streamRoutes(), s.auditRoutes(), s.analyticsRoutes(),
	} {
		table = append(table, part...)
	}
	return table
}

// mount makes the router of the table.
func (s *Server) mount(table []route) error {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.HandleMethodNotAllowed = true
	router.RedirectTrailingSlash = false // an object has one URL
	router.UseRawPath = true             // an escaped slash is part of a name
	if err := router.SetTrustedProxies(s.config.TrustedProxies); err != nil {
		return err
	}
	for i := range table {
		route := &table[i]
		serve := s.chain(route)
		router.Handle(route.method, route.path, serve)
		if route.method == http.MethodGet {
			router.HEAD(route.path, serve)
		}
	}
	router.NoRoute(s.chain(&route{method: "any", path: unmatched, handle: notFound}))
	router.NoMethod(s.chain(&route{method: "any", path: unmatched, handle: methodNotAllowed}))
	s.router = router
	return nil
}

// unmatched stands for the path of requests that no route answers.
const unmatched = "unmatched"
