package store

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what the journal and the listener do.
type Metrics struct {
	commits   prometheus.Histogram
	entries   prometheus.Histogram
	events    prometheus.Histogram
	outcomes  *prometheus.CounterVec
	queueFull prometheus.Counter
	queued    prometheus.Gauge

	acquisitions *prometheus.CounterVec
	evictions    prometheus.Counter

	signals   *prometheus.CounterVec
	reachable prometheus.Gauge
}

// NewMetrics registers the metrics of this package.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_commit_seconds", Help: "Time of one transaction that appends entries.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		entries: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_commit_entries", Help: "Entries in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 14),
		}),
		events: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_commit_events", Help: "Events in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_batches_total", Help: "Batches of one event by outcome.",
		}, []string{"outcome"}),
		queueFull: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_append_queue_full_total", Help: "Batches refused because the queue to the writers was full.",
		}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_append_queue", Help: "Batches of one event that wait for a writer.",
		}),
		acquisitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_acquisitions_total",
			Help: "Acquisitions of events by whose tenure they ended: of nobody, of this process, or of another one.",
		}, []string{"previous"}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_evictions_total", Help: "Sessions ended because they kept a lock and waited for their client.",
		}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_signals_total", Help: "Signals of changes received from the database, by kind.",
		}, []string{"kind"}),
		reachable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_postgres_reachable", Help: "1 while Postgres answers to the listener, else 0.",
		}),
	}
	for _, outcome := range []string{outcomeOK, outcomeNotWritten, outcomeUnknown, outcomeFenced} {
		m.outcomes.WithLabelValues(outcome)
	}
	for _, previous := range []string{previousNone, previousSelf, previousOther} {
		m.acquisitions.WithLabelValues(previous)
	}
	registerer.MustRegister(m.commits, m.entries, m.events, m.outcomes, m.queueFull, m.queued, m.acquisitions, m.evictions,
		m.signals, m.reachable)
	return m
}

// RegisterPool registers the state of a pool.
func RegisterPool(registerer prometheus.Registerer, pool *pgxpool.Pool) {
	gauge := func(name, help string, value func(*pgxpool.Stat) float64) {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			return value(pool.Stat())
		}))
	}
	counter := func(name, help string, value func(*pgxpool.Stat) float64) {
		registerer.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
			return value(pool.Stat())
		}))
	}
	gauge("evently_pool_connections_max", "The most connections that the pool may have.",
		func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) })
	gauge("evently_pool_connections", "Connections of the pool.", func(s *pgxpool.Stat) float64 { return float64(s.TotalConns()) })
	gauge("evently_pool_connections_in_use", "Connections of the pool that are in use.",
		func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) })
	counter("evently_pool_waits_total", "Acquisitions that waited because every connection was in use.",
		func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) })
	counter("evently_pool_acquire_seconds_total", "Time spent acquiring connections.",
		func(s *pgxpool.Stat) float64 { return s.AcquireDuration().Seconds() })
}
