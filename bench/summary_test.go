package bench

import (
	"fmt"
	"math"
	"reflect"
	"testing"
)

func TestSummaries(t *testing.T) {
	round := func(design, workload string, number, connections int, rate, done float64) Round {
		return Round{
			Design: design, Workload: workload, Round: number, Connections: connections, Rate: rate, Done: done, Commits: done / 10,
			Latency: Latency{Mean: done, P50: done + 1, P90: done + 2, P99: done + 3, P999: done + 4, Max: done + 5},
			CPU:     CPU{Server: done, Postgres: done + 1, Redis: done + 2, Load: done + 3, Used: done + 4},
		}
	}
	rounds := []Round{
		round("evently", "hot", 1, 256, 0, 60), round("slow", "hot", 1, 256, 0, 4), round(CeilingName, "hot", 1, 256, 0, 100),
		round("evently", "hot", 1, 64, 0, 50), round("evently", "read", 1, 64, 0, 70),
		round("slow", "hot", 2, 256, 0, 6), round(CeilingName, "hot", 2, 256, 0, 50), round("evently", "hot", 2, 256, 0, 40),
		round("evently", "hot", 3, 256, 0, 80), round(CeilingName, "hot", 3, 256, 0, 400),
		round(CeilingName, "hot", 1, 256, 200, 200), round("evently", "hot", 1, 256, 30, 29),
	}
	rounds[5].Audit.Oversold = 1
	var got []string
	for _, s := range Summaries(rounds) {
		got = append(got, fmt.Sprintf("%s %s %d @%v: %d rounds, %v: %v (%v to %v), %.3f of the ceiling",
			s.Workload, s.Design, s.Connections, s.Rate, s.Rounds, s.Passed, s.Done, s.DoneMin, s.DoneMax, s.OfCeiling))
	}
	want := []string{
		"hot evently 64 @0: 1 rounds, true: 50 (50 to 50), 0.000 of the ceiling",
		"hot evently 256 @0: 3 rounds, true: 60 (40 to 80), 0.600 of the ceiling", // of 0.6, 0.8 and 0.2
		"hot slow 256 @0: 2 rounds, false: 5 (4 to 6), 0.080 of the ceiling",
		"hot noop 256 @0: 3 rounds, true: 100 (50 to 400), 1.000 of the ceiling",
		"hot evently 256 @30: 1 rounds, true: 29 (29 to 29), 0.000 of the ceiling",
		"hot noop 256 @200: 1 rounds, true: 200 (200 to 200), 0.000 of the ceiling",
		"read evently 64 @0: 1 rounds, true: 70 (70 to 70), 0.000 of the ceiling",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	s := Summaries(rounds)[1]
	if s.Latency != rounds[0].Latency || s.CPU != rounds[0].CPU || s.Commits != 6 {
		t.Errorf("%+v, want the figures of the round in the middle", s)
	}
	if Summaries(nil) != nil {
		t.Error("summaries of nothing")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 9, 1, 2}, 3}} {
		before := append([]float64(nil), c.values...)
		if got := median(c.values); math.Abs(got-c.want) > 1e-12 || !reflect.DeepEqual(before, append([]float64(nil), c.values...)) {
			t.Errorf("median of %v: %v, want %v", before, got, c.want)
		}
	}
}
