package actors

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the event actors of a process do.
type Metrics struct {
	active      prometheus.Gauge
	activations *prometheus.CounterVec // by result
	activation  prometheus.Histogram
	retirements *prometheus.CounterVec // by reason
	overloaded  prometheus.Counter
	waiting     prometheus.Gauge
	attempts    *prometheus.CounterVec // by result
}

// NewMetrics registers the metrics of this package.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_event_actors", Help: "Event actors that serve.",
		}),
		activations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_activations_total", Help: "Activations of event actors by result.",
		}, []string{"result"}),
		activation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_activation_seconds", Help: "Time to acquire and load an event.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		retirements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_retirements_total", Help: "Event actors that stopped serving by reason.",
		}, []string{"reason"}),
		overloaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_mailbox_overloaded_total", Help: "Requests refused because the mailbox or the waiting room of an event was full.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_waiting_requests", Help: "Requests queued at event actors or waiting for a commit.",
		}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_engine_attempts_total", Help: "Attempts to reach an event actor by result.",
		}, []string{"result"}),
	}
	registerer.MustRegister(m.active, m.activations, m.activation, m.retirements, m.overloaded, m.waiting, m.attempts)
	return m
}
