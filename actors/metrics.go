package actors

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the event actors of a process do.
type Metrics struct {
	active      prometheus.Gauge
	activations *prometheus.CounterVec // by result
	activation  prometheus.Histogram
	backoffs    prometheus.Counter
	retirements *prometheus.CounterVec // by reason
	overloaded  prometheus.Counter
	waiting     prometheus.Gauge
	depth       prometheus.Histogram
	abandoned   prometheus.Counter
	attempts    *prometheus.CounterVec // by result
	redirects   *prometheus.CounterVec // by reason
	hops        *prometheus.CounterVec // by result
	repriced    *prometheus.CounterVec // by result

	answered, hopped prometheus.Counter // of attempts and of hops: what happens most
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
		backoffs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_activation_backoffs_total", Help: "Activations that waited because another owner had taken their event from this node.",
		}),
		retirements: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_retirements_total", Help: "Event actors that stopped serving by reason.",
		}, []string{"reason"}),
		overloaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_mailbox_overloaded_total", Help: "Requests refused because the mailbox or the waiting room of an event was full.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_waiting_requests", Help: "Requests that wait for an event to be loaded or for a commit.",
		}),
		depth: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_mailbox_depth", Help: "Requests that a request finds before it in the mailbox of its event.",
			Buckets: append([]float64{0}, prometheus.ExponentialBuckets(1, 4, 7)...),
		}),
		abandoned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_abandoned_requests_total", Help: "Requests not decided because their callers had given up.",
		}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_engine_attempts_total", Help: "Attempts that the owner of an event answered by result: ok or the refusal's code.",
		}, []string{"result"}),
		redirects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_engine_redirects_total",
			Help: "Attempts that no owner of an event answered by reason: moved, unresolved, owner_left, timeout, not_located.",
		}, []string{"reason"}),
		hops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_engine_hops_total", Help: "Requests sent to event actors of other nodes by result: answered, unanswered, garbled.",
		}, []string{"result"}),
		repriced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_repriced_events_total", Help: "Events that runs of the pricing rules came to by result: changed, unchanged, failed.",
		}, []string{"result"}),
	}
	for _, result := range []string{"changed", "unchanged", "failed"} {
		m.repriced.WithLabelValues(result)
	}
	for _, reason := range []string{"moved", "unresolved", "owner_left", "timeout", "not_located"} {
		m.redirects.WithLabelValues(reason)
	}
	m.answered, m.hopped = m.attempts.WithLabelValues("ok"), m.hops.WithLabelValues("answered")
	registerer.MustRegister(m.active, m.activations, m.activation, m.backoffs, m.retirements, m.overloaded, m.waiting, m.depth, m.abandoned,
		m.attempts, m.redirects, m.hops, m.repriced)
	return m
}
