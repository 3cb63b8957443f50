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

// FeedMetrics counts what the consumers of a Feed do. The gauges are of all nodes together, whichever runs a consumer.
type FeedMetrics struct {
	lagEntries *prometheus.GaugeVec
	lagSeconds *prometheus.GaugeVec
	parked     *prometheus.GaugeVec

	entries  *prometheus.CounterVec
	failures *prometheus.CounterVec
	steps    *prometheus.HistogramVec
	finds    *prometheus.HistogramVec
}

// Why a step failed.
const (
	failedTransient = "transient" // tried again after a pause
	failedPermanent = "permanent" // tried again with fewer entries, or parked
)

// NewFeedMetrics registers the metrics of feeds.
func NewFeedMetrics(registerer prometheus.Registerer) *FeedMetrics {
	consumer := []string{"consumer"}
	m := &FeedMetrics{
		lagEntries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_feed_lag_entries", Help: "Entries of the journal that the last look or step left to be consumed.",
		}, consumer),
		lagSeconds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_feed_lag_seconds", Help: "Age of the moment up to which all that was committed is consumed.",
		}, consumer),
		parked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_feed_parked_entries", Help: "Entries that could not be consumed and wait for somebody to look at them.",
		}, consumer),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_feed_entries_total", Help: "Entries consumed by this node.",
		}, consumer),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_feed_failures_total", Help: "Steps that failed, by whether another try can get over it.",
		}, []string{"consumer", "kind"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "evently_feed_step_seconds", Help: "Time of one transaction that consumes entries.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, consumer),
		finds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "evently_feed_find_seconds", Help: "Time of one look for new entries.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, consumer),
	}
	registerer.MustRegister(m.lagEntries, m.lagSeconds, m.parked, m.entries, m.failures, m.steps, m.finds)
	return m
}

// JobMetrics counts what is done about jobs.
type JobMetrics struct {
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	pending  *prometheus.GaugeVec
}

// NewJobMetrics registers the metrics of jobs.
func NewJobMetrics(registerer prometheus.Registerer) *JobMetrics {
	m := &JobMetrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_job_attempts_total",
			Help: "Attempts at jobs by kind and outcome: done, retried, snoozed (to be tried later, no failure), cancelled or discarded " +
				"(failed for good).",
		}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "evently_job_seconds", Help: "Time of one attempt at a job, by kind.", Buckets: prometheus.ExponentialBuckets(0.002, 4, 10),
		}, []string{"kind"}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_jobs_pending", Help: "Jobs still to do in the whole cluster, by queue; renewed every 15 s.",
		}, []string{"queue"}),
	}
	registerer.MustRegister(m.attempts, m.seconds, m.pending)
	return m
}
