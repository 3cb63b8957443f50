package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Rates and quantiles of a node are those of the last vitalsPeriod * vitalsKept seconds, or since its start.
const (
	vitalsPeriod = 2 * time.Second
	vitalsKept   = 5
)

// vitals remembers a node's metrics of the last seconds, to tell rates.
type vitals struct {
	gatherer prometheus.Gatherer
	log      *slog.Logger

	mu   sync.Mutex
	past []reading // oldest first
}

// run takes a reading now and again until ctx ends.
func (v *vitals) run(ctx context.Context) error {
	ticker := time.NewTicker(vitalsPeriod)
	defer ticker.Stop()
	for {
		v.remember()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (v *vitals) remember() {
	r, err := read(v.gatherer)
	if err != nil {
		v.log.Warn("the node's status will be out of date", "error", err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.past = append(v.past, r)
	v.past = v.past[max(0, len(v.past)-vitalsKept):]
}

// since returns a reading of this moment and the oldest one that is remembered.
func (v *vitals) since() (before, now reading, err error) {
	if now, err = read(v.gatherer); err != nil {
		return reading{}, reading{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.past) == 0 {
		return now, now, nil
	}
	return v.past[0], now, nil
}

// reading is the metrics of a process at a moment.
type reading struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

func read(gatherer prometheus.Gatherer) (reading, error) {
	families, err := gatherer.Gather()
	if err != nil {
		return reading{}, fmt.Errorf("gather metrics: %w", err)
	}
	r := reading{time.Now(), make(map[string]*dto.MetricFamily, len(families))}
	for _, family := range families {
		r.families[family.GetName()] = family
	}
	return r, nil
}

// sum is the value of a counter or a gauge, summed over all its labels but those asked for, given as name and value.
func (r reading) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, metric := range r.families[name].GetMetric() {
		if hasLabels(metric, labels) {
			total += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return total
}

func hasLabels(metric *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, pair := range metric.GetLabel() {
			found = found || pair.GetName() == labels[i] && pair.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// histogram returns the upper bounds of a histogram's buckets and the observations up to each, of one without labels.
func (r reading) histogram(name string) (bounds, counts []float64) {
	metrics := r.families[name].GetMetric()
	if len(metrics) == 0 {
		return nil, nil
	}
	for _, bucket := range metrics[0].GetHistogram().GetBucket() {
		bounds = append(bounds, bucket.GetUpperBound())
		counts = append(counts, float64(bucket.GetCumulativeCount()))
	}
	return append(bounds, math.Inf(1)), append(counts, float64(metrics[0].GetHistogram().GetSampleCount()))
}

// rate is how much a counter has grown each second since before.
func (r reading) rate(before reading, name string, labels ...string) float64 {
	took := r.at.Sub(before.at).Seconds()
	if took <= 0 {
		return 0
	}
	return (r.sum(name, labels...) - before.sum(name, labels...)) / took
}

// observed returns the quantiles of what a histogram has observed since before, by linear interpolation in its buckets as
// Prometheus does it, and how many observations a second there were. Without any the quantiles are 0.
func (r reading) observed(before reading, name string, quantiles ...float64) (values []float64, perSecond float64) {
	values = make([]float64, len(quantiles))
	bounds, counts := r.histogram(name)
	if _, earlier := before.histogram(name); len(earlier) == len(counts) {
		for i := range counts {
			counts[i] -= earlier[i]
		}
	}
	if len(counts) == 0 || counts[len(counts)-1] <= 0 {
		return values, 0
	}
	total := counts[len(counts)-1]
	for i, quantile := range quantiles {
		values[i] = interpolate(bounds, counts, quantile*total)
	}
	if took := r.at.Sub(before.at).Seconds(); took > 0 {
		perSecond = total / took
	}
	return values, perSecond
}

// interpolate returns the value below which rank observations lie. The last bound is infinite: there it is the one before.
func interpolate(bounds, counts []float64, rank float64) float64 {
	i := sort.SearchFloat64s(counts, rank)
	if i >= len(bounds)-1 {
		return bounds[max(0, len(bounds)-2)]
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = bounds[i-1], counts[i-1]
	}
	if counts[i] == below {
		return bounds[i]
	}
	return low + (bounds[i]-low)*(rank-below)/(counts[i]-below)
}
