package cluster

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the package's metrics.
type Metrics struct {
	members     prometheus.Gauge
	views       prometheus.Counter
	activations *prometheus.GaugeVec
	rejections  prometheus.Counter

	quorum, quorate, serving         prometheus.Gauge
	alive, blocked, gone             prometheus.Gauge
	evictionsSent, evictionsReceived prometheus.Counter
	strange                          prometheus.Counter

	lookupsLocal, lookupsCached, lookupsRemote, lookupsFailed prometheus.Counter

	noticesSent, noticesLost, noticesDropped            prometheus.Counter
	noticesReceived, noticesUnknown, noticesOverflowing prometheus.Counter
	queriesAnswered, queriesFailed                      prometheus.Counter
}

// NewMetrics makes the metrics and registers them with r, unless r is nil. It panics when they are registered already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	var all []prometheus.Collector
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		all = append(all, g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		all = append(all, c)
		return c
	}
	counters := func(name, label, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		all = append(all, v)
		return v
	}
	gauges := func(name, label, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
		all = append(all, v)
		return v
	}
	states := gauges("evently_cluster_members_by_state", "state",
		"Members by state: alive (in the view in force), blocked (alive, but must restart), gone (of the last 32).")
	evictions := counters("evently_cluster_evictions_total", "direction",
		"Words that a member was taken for dead and must restart: sent to others, received by this one.")
	lookups := counters("evently_cluster_lookups_total", "result",
		"Look-ups by result: local, cached (known remote PID), remote (asked the owner), failed.")
	out := counters("evently_cluster_notices_sent_total", "outcome",
		"Notices for another member by outcome: arrived, lost (not confirmed in time), dropped (too many waited).")
	in := counters("evently_cluster_notices_received_total", "outcome",
		"Notices from other members by outcome: delivered, unknown (of no known topic), dropped (too many waited).")
	queries := counters("evently_cluster_queries_total", "outcome",
		"Queries of this member to another by outcome: answered, failed.")
	m := &Metrics{
		members:     gauge("evently_cluster_members", "Members in the view in force, this one included."),
		views:       counter("evently_cluster_view_changes_total", "Views of the members that came into force."),
		activations: gauges("evently_cluster_activations", "kind", "Actors active on this member."),
		rejections: counter("evently_cluster_activation_rejections_total",
			"Activations asked for by other members and refused: not owned by the own view, draining or failed."),
		quorum:  gauge("evently_cluster_quorum", "Members needed before this one serves; 0: none."),
		quorate: gauge("evently_cluster_quorate", "1 if this member sees a quorum and has not ended, else 0."),
		serving: gauge("evently_cluster_serving",
			"1 if this member activates what it owns, else 0: no quorum, withdrawn, draining, ended, or without kinds."),
		strange: counter("evently_cluster_messages_ignored_total",
			"Messages from other members that were ignored: of a type of another version, or garbled."),

		alive: states.WithLabelValues("alive"), blocked: states.WithLabelValues("blocked"), gone: states.WithLabelValues("gone"),
		evictionsSent: evictions.WithLabelValues("sent"), evictionsReceived: evictions.WithLabelValues("received"),

		lookupsLocal: lookups.WithLabelValues("local"), lookupsCached: lookups.WithLabelValues("cached"),
		lookupsRemote: lookups.WithLabelValues("remote"), lookupsFailed: lookups.WithLabelValues("failed"),

		noticesSent: out.WithLabelValues("arrived"), noticesLost: out.WithLabelValues("lost"), noticesDropped: out.WithLabelValues("dropped"),
		noticesReceived: in.WithLabelValues("delivered"), noticesUnknown: in.WithLabelValues("unknown"),
		noticesOverflowing: in.WithLabelValues("dropped"),
		queriesAnswered:    queries.WithLabelValues("answered"), queriesFailed: queries.WithLabelValues("failed"),
	}
	if r != nil {
		r.MustRegister(all...)
	}
	return m
}

// memberStates shows how many members are in which state.
func (m *Metrics) memberStates(alive, blocked, gone int) {
	m.alive.Set(float64(alive))
	m.blocked.Set(float64(blocked))
	m.gone.Set(float64(gone))
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
