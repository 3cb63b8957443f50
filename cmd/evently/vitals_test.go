package main

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestReading_TellsRatesAndQuantilesSinceAnEarlierOne(t *testing.T) {
	registry := prometheus.NewRegistry()
	booked := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "booked"}, []string{"outcome"})
	waiting := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waiting"})
	commits := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "commits", Buckets: []float64{1, 2, 4}})
	registry.MustRegister(booked, waiting, commits)
	take := func(at int64) reading {
		t.Helper()
		r, err := read(registry)
		if err != nil {
			t.Fatal(err)
		}
		r.at = time.Unix(at, 0)
		return r
	}
	booked.WithLabelValues("held").Add(5)
	commits.Observe(0.5)
	before := take(100)
	booked.WithLabelValues("held").Add(20)
	booked.WithLabelValues("sold_out").Add(7)
	waiting.Set(3)
	for range 10 {
		commits.Observe(1.5)
		commits.Observe(3)
	}
	after := take(110)

	quantiles, perSecond := after.observed(before, "commits", 0.25, 0.5, 0.75, 1)
	for what, pair := range map[string][2]float64{
		"sum":             {after.sum("booked"), 32},
		"sum of one":      {after.sum("booked", "outcome", "held"), 25},
		"gauge":           {after.sum("waiting"), 3},
		"no such metric":  {after.sum("nothing"), 0},
		"rate":            {after.rate(before, "booked"), 2.7},
		"rate of one":     {after.rate(before, "booked", "outcome", "held"), 2},
		"rate of no time": {after.rate(after, "booked"), 0},
		"observations/s":  {perSecond, 2},
		"quarter":         {quantiles[0], 1.5},
		"half":            {quantiles[1], 2},
		"three quarters":  {quantiles[2], 3},
		"all":             {quantiles[3], 4},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-9 {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	commits.Observe(100) // beyond the last bound
	if quantiles, _ := take(120).observed(after, "commits", 0.5); quantiles[0] != 4 {
		t.Errorf("beyond the last bound: %v, want that bound", quantiles[0])
	}
	if quantiles, perSecond := after.observed(after, "commits", 0.5); quantiles[0] != 0 || perSecond != 0 {
		t.Errorf("without observations: %v, %v a second", quantiles, perSecond)
	}
}
