package http

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/evently/evently"
)

func (s *Server) operationRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/health", handle: s.getHealth, always: true},
		{method: http.MethodGet, path: "/livez", handle: live, always: true},
		{method: http.MethodGet, path: "/readyz", handle: s.ready, always: true},
		{method: http.MethodGet, path: "/info", handle: s.info},
	}
}

// Info describes a node.
type Info struct {
	Version      string   `json:"version"`
	Commit       string   `json:"commit"`
	Node         string   `json:"node"` // its id in the cluster
	Capabilities []string `json:"capabilities"`
}

type infoJSON struct {
	Info
	Cluster *Membership `json:"cluster"`
}

func (s *Server) info(c *gin.Context) error {
	told := infoJSON{Info: s.config.Info}
	if s.config.Membership != nil {
		membership := s.config.Membership()
		told.Cluster = &membership
	}
	writeJSON(c, http.StatusOK, &told)
	return nil
}

type statusJSON struct {
	Status string `json:"status"`
}

func live(c *gin.Context) error {
	writeJSON(c, http.StatusOK, statusJSON{"ok"})
	return nil
}

var (
	errDraining = &evently.Error{Code: evently.CodeUnavailable, Detail: "The node is shutting down.", RetryAfter: time.Second}
	errNotReady = &evently.Error{
		Code: evently.CodeUnavailable, Detail: "Something that the node needs is down; GET /health tells what.", RetryAfter: time.Second,
	}
)

func (s *Server) ready(c *gin.Context) error {
	if s.draining.Load() {
		return errDraining
	}
	if s.health.get(context.WithoutCancel(c.Request.Context())).Status == healthDown {
		return errNotReady
	}
	writeJSON(c, http.StatusOK, statusJSON{"ok"})
	return nil
}

// HealthCheck asks after something that the node depends on.
type HealthCheck struct {
	Name   string
	Needed bool                            // without it the node is of no use
	Check  func(ctx context.Context) error // has healthTimeout; safe for concurrent use
}

const (
	healthTimeout = 2 * time.Second
	// healthTTL is how long a result is good, from the end of the checks: anyone may ask, and the dependencies are not to feel it.
	// Counted from their beginning, a result of checks that wait for something that hangs would be too old for those who have waited
	// for it, and each of them would make the checks again, one after the other.
	healthTTL = time.Second
)

// The states of a dependency and of the node: degraded means that something is down that is not needed.
const (
	healthOK       = "ok"
	healthDegraded = "degraded"
	healthDown     = "down"
)

type healthJSON struct {
	Status string            `json:"status"`
	Checks []healthCheckJSON `json:"checks"`
}

type healthCheckJSON struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Needed bool   `json:"needed"`
}

// health makes the checks and remembers what they found.
type health struct {
	checks []HealthCheck
	now    func() time.Time
	logger *slog.Logger

	mu     sync.Mutex // held while the checks run, so that they run once for all who ask
	at     time.Time  // of the result
	result healthJSON
}

func (s *Server) getHealth(c *gin.Context) error {
	result := s.health.get(context.WithoutCancel(c.Request.Context()))
	status := http.StatusOK
	if result.Status == healthDown {
		status = http.StatusServiceUnavailable
		c.Header("Retry-After", "1")
	}
	writeJSON(c, status, result)
	return nil
}

func (h *health) get(ctx context.Context) healthJSON {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.result.Checks == nil || h.now().Sub(h.at) >= healthTTL {
		h.result = h.check(ctx)
		h.at = h.now()
	}
	return h.result
}

func (h *health) check(ctx context.Context) healthJSON {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	result := healthJSON{healthOK, make([]healthCheckJSON, len(h.checks))}
	var running sync.WaitGroup
	for i, check := range h.checks {
		running.Go(func() {
			result.Checks[i] = healthCheckJSON{check.Name, healthOK, check.Needed}
			if err := check.Check(ctx); err != nil {
				result.Checks[i].Status = healthDown
				h.logger.Warn("health check failed", "check", check.Name, "error", err)
			}
		})
	}
	running.Wait()
	for _, check := range result.Checks {
		switch {
		case check.Status == healthDown && check.Needed:
			result.Status = healthDown
		case check.Status == healthDown && result.Status == healthOK:
			result.Status = healthDegraded
		}
	}
	return result
}

// AdminHandler serves operators: /metrics, /debug/pprof/ and, with a Mailbox, /dev/mailbox. It has no access control of its own:
// listen where only they can reach it.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if s.config.Mailbox != nil {
		mux.HandleFunc("GET /dev/mailbox", s.devMailbox)
	}
	return mux
}
