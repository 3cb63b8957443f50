package http

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// metrics are those of this package.
type metrics struct {
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	working       atomic.Int64
	inFlight      prometheus.GaugeFunc // is working
	panics        prometheus.Counter
	refusals      *outcomes // label code
	rateLimited   *prometheus.CounterVec
	shares        *prometheus.CounterVec // result: "told", "heard", "garbled" or "later_version"
	sharesLost    prometheus.Counter
	bookings      *outcomes // label outcome: "held", "replayed" or the code of the refusal
	caches        *prometheus.CounterVec
	replays       prometheus.Counter
	passwords     prometheus.Counter
	passwordQueue prometheus.Gauge
	revokedRead   prometheus.Gauge
	revokedErrors prometheus.Counter
	streams       *streamMetrics
}

// newMetrics makes the metrics and registers them. It panics when they are registered already, as a process does only
// by mistake.
func newMetrics(registerer prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests: counters("evently_http_requests_total", "Requests answered.", "route", "method", "status"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "evently_http_request_seconds", Help: "Time from a request's header to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
		panics:      counter("evently_http_panics_total", "Requests that ended in a panic."),
		refusals:    &outcomes{vec: counters("evently_http_refusals_total", "Requests answered with a problem, by its code.", "code")},
		rateLimited: counters("evently_http_rate_limited_total", "Requests refused by a rate limit.", "limit"),
		shares:      counters("evently_http_limit_messages_total", "Messages between nodes about the booking limit.", "result"),
		sharesLost:  counter("evently_http_limit_lost_bookings_total", "Bookings that other nodes were not told of for want of room."),
		bookings: &outcomes{vec: counters(
			"evently_http_bookings_total", "Requests to book, by held, replayed or the code of the refusal.", "outcome")},
		caches:        counters("evently_http_cache_total", "Look-ups in a cache.", "cache", "result"),
		replays:       counter("evently_http_replays_total", "Stored answers given again for an Idempotency-Key."),
		passwords:     counter("evently_http_password_hashes_total", "Passwords hashed, to store or to check them."),
		passwordQueue: gauge("evently_http_password_queue_requests", "Requests that wait to hash a password."),
		revokedRead:   gauge("evently_http_revoked_sessions_read_timestamp_seconds", "When the revoked sessions were last read."),
		revokedErrors: counter("evently_http_revoked_sessions_errors_total", "Failed reads of the revoked sessions."),
	}
	m.inFlight = prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "evently_http_in_flight_requests", Help: "Requests being answered."},
		func() float64 { return float64(m.working.Load()) })
	m.streams = newStreamMetrics(registerer)
	for _, code := range []evently.Code{evently.CodeOverloaded, evently.CodeUnavailable} {
		m.refusals.of(string(code))
	}
	registerer.MustRegister(m.requests, m.seconds, m.inFlight, m.panics, m.refusals.vec, m.rateLimited, m.shares, m.sharesLost,
		m.bookings.vec, m.caches, m.replays, m.passwords, m.passwordQueue, m.revokedRead, m.revokedErrors)
	return m
}

// outcomes are counters by the only label of a vector, found without its lock. The label's values are few: codes.
type outcomes struct {
	vec   *prometheus.CounterVec
	known sync.Map // of prometheus.Counter by value
}

func (o *outcomes) of(value string) prometheus.Counter {
	if known, found := o.known.Load(value); found {
		return known.(prometheus.Counter)
	}
	counter := o.vec.WithLabelValues(value)
	o.known.Store(value, counter)
	return counter
}

// meter counts the requests of one route without looking up labels.
type meter struct {
	statuses [6]prometheus.Counter // by the first digit of the status
	seconds  prometheus.Observer
}

func (m *metrics) meter(method, path string) *meter {
	t := &meter{seconds: m.seconds.WithLabelValues(path, method)}
	for class := 1; class < len(t.statuses); class++ {
		t.statuses[class] = m.requests.WithLabelValues(path, method, fmt.Sprintf("%dxx", class))
	}
	return t
}

func (t *meter) count(status int, took time.Duration, endless bool) {
	t.statuses[status/100].Inc() // net/http refuses a status outside 100 to 999, and the package uses none above 503
	if !endless {
		t.seconds.Observe(took.Seconds())
	}
}
