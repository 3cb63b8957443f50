package messages

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/evently/evently"
)

// WebhookMetrics counts what a Dispatcher does.
type WebhookMetrics struct {
	attempts *prometheus.CounterVec
	latency  prometheus.Histogram
	disabled *prometheus.CounterVec
	inFlight prometheus.Gauge
	breakers prometheus.Gauge
	pending  prometheus.Gauge
	backlogs prometheus.Gauge
	webhooks *prometheus.GaugeVec
}

// Values of the label outcome besides the faults.
const delivered = "delivered"

// NewWebhookMetrics registers the metrics of webhooks.
func NewWebhookMetrics(registerer prometheus.Registerer) *WebhookMetrics {
	m := &WebhookMetrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_webhook_attempts_total", Help: "Attempts to send a message to a webhook, by what came of them.",
		}, []string{"outcome"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_webhook_attempt_seconds", Help: "Time of an attempt.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 13),
		}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_webhook_disabled_total",
			Help: "Webhooks that this node disabled, because the receiver answered 410 or failed for days.",
		}, []string{"reason"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_webhook_workers", Help: "Workers of this node that send, bounded at 128.",
		}),
		breakers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_webhook_breakers_open", Help: "Webhooks that this node does not send to for a while, because the last attempts failed.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_webhook_pending", Help: "Deliveries of all webhooks that wait, 1000 for each at the most.",
		}),
		backlogs: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_webhook_backlogs", Help: "Ranges of journal entries that wait for room among the pending deliveries of a webhook.",
		}),
		webhooks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evently_webhooks", Help: "Webhooks by whether they are active.",
		}, []string{"state"}),
	}
	for _, outcome := range []string{
		delivered, faultTimeout, faultName, faultAddress, faultConnection, faultTLS, faultProtocol, faultRedirect, faultGone, faultStatus,
		faultUnsigned,
	} {
		m.attempts.WithLabelValues(outcome)
	}
	for _, reason := range []evently.WebhookEnd{evently.WebhookGone, evently.WebhookDisabled} {
		m.disabled.WithLabelValues(reason.String())
	}
	registerer.MustRegister(m.attempts, m.latency, m.disabled, m.inFlight, m.breakers, m.pending, m.backlogs, m.webhooks)
	return m
}

func (m *WebhookMetrics) load(load evently.WebhookLoad) {
	m.pending.Set(float64(load.Pending))
	m.backlogs.Set(float64(load.Backlogs))
	m.webhooks.WithLabelValues("active").Set(float64(load.Active))
	m.webhooks.WithLabelValues("ended").Set(float64(load.Ended))
}

// MailMetrics counts what becomes of mails at the mail server.
type MailMetrics struct {
	mails   *prometheus.CounterVec
	seconds prometheus.Histogram
	breaker prometheus.Gauge
}

// NewMailMetrics registers the metrics of mails.
func NewMailMetrics(registerer prometheus.Registerer) *MailMetrics {
	m := &MailMetrics{
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evently_mails_total",
			Help: "Attempts to hand a mail to the mail server, by kind of mail and outcome: sent, failed (tried again), refused (for good) " +
				"or paused (not tried, because the circuit is open).",
		}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "evently_mail_seconds", Help: "Time of one attempt to hand a mail to the mail server.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 13),
		}),
		breaker: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "evently_mail_circuit_open", Help: "1 while the last mails have failed and none is tried, 0.5 while one is, else 0.",
		}),
	}
	registerer.MustRegister(m.mails, m.seconds, m.breaker)
	return m
}

func (m *MailMetrics) observe(kind evently.MailKind, err error, took time.Duration) {
	outcome := "failed"
	switch {
	case err == nil:
		outcome = "sent"
	case errors.Is(err, evently.ErrMailRefused):
		outcome = "refused"
	case errors.Is(err, evently.ErrMailPaused):
		outcome = "paused"
	}
	m.mails.WithLabelValues(kind.String(), outcome).Inc()
	if outcome != "paused" {
		m.seconds.Observe(took.Seconds())
	}
}

func (m *MailMetrics) setBreaker(state gobreaker.State) {
	switch state {
	case gobreaker.StateClosed:
		m.breaker.Set(0)
	case gobreaker.StateHalfOpen:
		m.breaker.Set(0.5)
	case gobreaker.StateOpen:
		m.breaker.Set(1)
	}
}
