package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestArrivals_AreAPoissonProcess(t *testing.T) {
	const perSecond, count = 1000, 200_000
	process := newArrivals(rand.New(rand.NewPCG(7, 11)), perSecond)
	gaps := make([]float64, count) // in mean gaps
	var counts []float64           // in each tenth of a second
	last := time.Duration(0)
	for i := range gaps {
		at := process.next()
		gaps[i] = (at - last).Seconds() * perSecond
		last = at
		for tenth := int(at / (100 * time.Millisecond)); len(counts) <= tenth; {
			counts = append(counts, 0)
		}
		counts[len(counts)-1]++
	}
	mean, variance := moments(gaps)
	if math.Abs(mean-1) > 0.01 || math.Abs(variance-1) > 0.03 {
		t.Errorf("gaps have the mean %.4f and the variance %.4f, want 1 and 1 as of an exponential distribution", mean, variance)
	}
	product := 0.0
	for i := 1; i < count; i++ {
		product += (gaps[i-1] - mean) * (gaps[i] - mean)
	}
	if correlation := product / variance / count; math.Abs(correlation) > 5/math.Sqrt(count) {
		t.Errorf("a gap and the next one correlate by %.4f, want 0", correlation)
	}
	if mean, variance := moments(counts[:len(counts)-1]); math.Abs(variance/mean-1) > 0.2 {
		t.Errorf("arrivals in 0.1 s: variance %.1f, mean %.1f, want them equal", variance, mean)
	}
	slices.Sort(gaps) // Kolmogorov and Smirnov, at 0.1 %
	for i, gap := range gaps {
		if d := math.Abs(1 - math.Exp(-gap) - float64(i)/count); d > 1.95/math.Sqrt(count) {
			t.Fatalf("%.4f of the gaps are up to %.4f, which an exponential distribution misses by %.4f", float64(i)/count, gap, d)
		}
	}
}

func moments(values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		variance += (v - mean) * (v - mean) / float64(len(values))
	}
	return mean, variance
}

func TestZipf_DrawsByRank(t *testing.T) {
	const draws = 300_000
	for _, c := range []struct {
		ranks    int
		exponent float64
	}{{1, 1}, {2, 1}, {1000, 1}, {1000, 0.5}, {100_000, 1}, {10, 0}} {
		popularity, random := newZipf(c.ranks, c.exponent), rand.New(rand.NewPCG(3, uint64(c.ranks)))
		got := make([]int, c.ranks)
		for range draws {
			got[popularity.draw(random)]++
		}
		sum := 0.0
		for k := range c.ranks {
			sum += 1 / math.Pow(float64(k+1), c.exponent)
		}
		for k := range got {
			share := 1 / math.Pow(float64(k+1), c.exponent) / sum
			want, deviation := draws*share, math.Sqrt(draws*share*(1-share))
			// Of 100,000 ranks some are far out: 5.5 standard deviations are one in 26 million; rare ranks are not normal.
			if math.Abs(float64(got[k])-want) > 5.5*deviation+6 {
				t.Errorf("%d ranks, exponent %v: rank %d was drawn %d times, want %.0f +- %.0f", c.ranks, c.exponent, k+1, got[k], want, deviation)
			}
		}
	}
}
