// Package soak tells whether a node that works for long goes on taking more memory.
//
// A node under load is sampled (see the tests of this package). What it has to remember grows with reason: reservations that have ended
// are kept, with their keys, for evently.KeyRetention, and rows in Postgres for ever. So each sample says how many reservations were made
// up to it, each may cost RememberedBytes, and what grows beyond that is a leak.
//
// The rule: of the second half of the samples (a node that has just begun fills its pools and caches) a line is fitted by least
// squares. What it rises over that time, less what is remembered, must be below a part of the mean.
package soak

import (
	"fmt"
	"math"
	"time"
)

// RememberedBytes is what a reservation that has ended may cost while its ledger remembers it: a record of 64, two places of up to 11 in
// hash tables that are filled by three eighths at least, and up to 48 in the ring of endings.
const RememberedBytes = 160

// residentPerHeap is how much a process may take from the system for each byte that it has in use: by default the garbage collector lets
// the heap double.
const residentPerHeap = 2

// Sample is what a node had at a moment.
type Sample struct {
	At           time.Duration // since the load began
	Heap         float64       // bytes that the last garbage collection left
	Resident     float64       // bytes of the process
	Goroutines   float64
	Reservations float64 // made since the load began
}

// Limits say how much may grow in the second half of the samples, as a part of the mean.
type Limits struct{ Heap, Resident, Goroutines float64 }

// SamplesMin is how many samples a verdict needs.
const SamplesMin = 8

// Verdict returns an error when something has grown beyond the limits, or when there are too few samples to tell.
func Verdict(samples []Sample, limits Limits) error {
	if len(samples) < SamplesMin {
		return fmt.Errorf("%d samples are too few to tell, %d are needed", len(samples), SamplesMin)
	}
	half := samples[len(samples)/2:]
	made := rise(half, func(s *Sample) float64 { return s.Reservations })
	for _, quantity := range []struct {
		name     string
		of       func(*Sample) float64
		allowed  float64 // beyond the limit
		limit    float64
		decimals int
	}{
		{"heap (MB)", func(s *Sample) float64 { return s.Heap / 1e6 }, made * RememberedBytes / 1e6, limits.Heap, 1},
		{"resident (MB)", func(s *Sample) float64 { return s.Resident / 1e6 }, made * RememberedBytes * residentPerHeap / 1e6, limits.Resident, 1},
		{"goroutines", func(s *Sample) float64 { return s.Goroutines }, 0, limits.Goroutines, 0},
	} {
		grown, mean := rise(half, quantity.of), meanOf(half, quantity.of)
		if allowed := quantity.allowed + quantity.limit*mean; grown > allowed {
			return fmt.Errorf("%s grew by %.*f in %v, from a mean of %.*f: %.*f is allowed", quantity.name, quantity.decimals, grown,
				(half[len(half)-1].At - half[0].At).Round(time.Second), quantity.decimals, mean, quantity.decimals, math.Max(allowed, 0))
		}
	}
	return nil
}

// rise is how much the line through the samples rises from the first to the last of them.
func rise(samples []Sample, of func(*Sample) float64) float64 {
	at := func(s *Sample) float64 { return s.At.Seconds() }
	meanAt, mean := meanOf(samples, at), meanOf(samples, of)
	var together, squares float64
	for i := range samples {
		s := &samples[i]
		together += (at(s) - meanAt) * (of(s) - mean)
		squares += (at(s) - meanAt) * (at(s) - meanAt)
	}
	if squares == 0 {
		return 0
	}
	return together / squares * (samples[len(samples)-1].At - samples[0].At).Seconds()
}

func meanOf(samples []Sample, of func(*Sample) float64) (mean float64) {
	for i := range samples {
		mean += of(&samples[i]) / float64(len(samples))
	}
	return mean
}
