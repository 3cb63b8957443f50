package cluster

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the package's metrics.
type Metrics struct {
	members     prometheus.Gauge
	views       prometheus.Counter
	activations *prometheus.GaugeVec
	rejections  prometheus.Counter

	lookupsLocal, lookupsCached, lookupsRemote, lookupsFailed prometheus.Counter
}

// NewMetrics makes the metrics and registers them with r, unless r is nil. It panics when they are registered already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		members: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_cluster_members", Help: "Members in the view in force, this one included.",
		}),
		views: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_cluster_view_changes_total", Help: "Views of the members that came into force.",
		}),
		activations: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_cluster_activations", Help: "Actors active on this member.",
		}, []string{"kind"}),
		rejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evently_cluster_activation_rejections_total",
			Help: "Activations asked for by other members and refused: not owned by the own view, draining or failed.",
		}),
	}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "evently_cluster_lookups_total",
		Help: "Look-ups by result: local, cached (known remote PID), remote (asked the owner), failed.",
	}, []string{"result"})
	m.lookupsLocal = lookups.WithLabelValues("local")
	m.lookupsCached = lookups.WithLabelValues("cached")
	m.lookupsRemote = lookups.WithLabelValues("remote")
	m.lookupsFailed = lookups.WithLabelValues("failed")
	if r != nil {
		r.MustRegister(m.members, m.views, m.activations, m.rejections, lookups)
	}
	return m
}
