package http

import "github.com/prometheus/client_golang/prometheus"

// streamMetrics are those of streams.
type streamMetrics struct {
	clients   prometheus.Gauge
	events    prometheus.Counter
	coalesced *prometheus.CounterVec // why: "rate" for states that came too fast, "client" for frames that a client was too slow for
	ends      *prometheus.CounterVec // why: "left", "slow", "drained" or "cancelled"
}

func newStreamMetrics(registerer prometheus.Registerer) *streamMetrics {
	m := &streamMetrics{
		clients: prometheus.NewGauge(prometheus.GaugeOpts{Name: "evently_http_stream_clients", Help: "Streams of availability that are open."}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_http_stream_events_total", Help: "States that clients of streams were sent.",
		}),
		coalesced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_http_stream_coalesced_total",
			Help: "States of events that gave way to newer ones (rate), and states that a slow client was not sent (client).",
		}, []string{"reason"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_http_stream_ends_total", Help: "Streams that ended, by why they did.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"rate", "client"} {
		m.coalesced.WithLabelValues(reason)
	}
	for _, reason := range []string{streamLeft, streamSlow, streamDrained, streamCancelled} {
		m.ends.WithLabelValues(reason)
	}
	registerer.MustRegister(m.clients, m.events, m.coalesced, m.ends)
	return m
}
