package store

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the journal does.
type Metrics struct {
	commits   prometheus.Histogram
	entries   prometheus.Histogram
	events    prometheus.Histogram
	outcomes  *prometheus.CounterVec
	queueFull prometheus.Counter
	queued    prometheus.Gauge
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
			Name: "evently_append_queue", Help: "Batches taken by writers in their last transaction and those behind them.",
		}),
	}
	registerer.MustRegister(m.commits, m.entries, m.events, m.outcomes, m.queueFull, m.queued)
	return m
}
