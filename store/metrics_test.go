package store

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

func TestMetrics_TellWhatBatchesBecame(t *testing.T) {
	b := newBench(t, JournalConfig{})
	old := b.acquire(b.event(10))
	b.acquire(old.Ledger.Event().ID).MustFlush()
	old.book(evently.Item{Quantity: 1})
	if err := old.Flush(); err == nil {
		t.Fatal("a superseded owner wrote")
	}
	metrics := b.journal.config.Metrics
	for outcome, want := range map[string]float64{"ok": 1, "fenced": 1} {
		if got := testutil.ToFloat64(metrics.outcomes.WithLabelValues(outcome)); got != want {
			t.Errorf("%v batches %s, want %v", got, outcome, want)
		}
	}
}

// The owner of an event says whose it is: nobody's, of this journal, or of another.
func TestMetrics_TellWhoseTenureAnAcquireEnded(t *testing.T) {
	url := pgtest.Database(t)
	one, other := benchOn(t, openPool(t, url, 4), JournalConfig{}), benchOn(t, openPool(t, url, 4), JournalConfig{})
	event := one.event(10)
	for _, b := range []*bench{one, one, one, other, one} {
		b.acquire(event)
	}
	for previous, want := range map[string]float64{"none": 1, "self": 2, "other": 1} {
		if got := testutil.ToFloat64(one.journal.config.Metrics.acquisitions.WithLabelValues(previous)); got != want {
			t.Errorf("%v acquisitions after %s, want %v", got, previous, want)
		}
	}
}

func TestRegisterPool_ShowsConnectionsInUse(t *testing.T) {
	b := newBench(t, JournalConfig{})
	registry := prometheus.NewPedanticRegistry()
	RegisterPool(registry, b.pool)
	conn, err := b.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	families, err := registry.Gather()
	if err != nil || len(families) != 5 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	for _, family := range families {
		if value := family.GetMetric()[0].GetGauge().GetValue(); family.GetName() == "evently_pool_connections_in_use" && value != 1 {
			t.Errorf("%v connections in use, want 1", value)
		}
	}
}
