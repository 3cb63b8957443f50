package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// What connections saw apart is, merged, what one connection would have seen that had all their requests.
func TestRecorder_MergesConnections(t *testing.T) {
	const from, to = time.Second, 4 * time.Second
	random := rand.New(rand.NewPCG(1, 2))
	whole := newRecorder(CountsAnswered, from, to)
	merged := newRecorder(CountsAnswered, from, to)
	for range 5 {
		part := newRecorder(CountsAnswered, from, to)
		for range 2000 {
			due := time.Duration(random.Int64N(int64(5 * time.Second)))
			sent := due + time.Duration(random.Int64N(int64(2*time.Millisecond)))
			at := sent + time.Duration(random.ExpFloat64()*float64(20*time.Millisecond))
			what, came := asked(random.IntN(int(askedKinds))), outcome(random.IntN(int(outcomeKinds)))
			for _, r := range []*recorder{whole, part} {
				r.scheduled(due, sent)
				r.answered(what, came, due, at)
			}
		}
		for _, r := range []*recorder{whole, part} {
			r.unfinished(2*time.Second, 5*time.Second)
			r.failure = "500"
		}
		merged.merge(part)
	}
	var got, want Round
	merged.figures(&got)
	whole.figures(&want)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("merged: %+v\nwhole:  %+v", got, want)
	}
	if want.Unfinished != 5 || want.SentLate < 0.45 || want.SentLate > 0.55 || want.Failure != "500" || len(want.Outcomes) != int(outcomeKinds) {
		t.Errorf("%+v", want)
	}
}

func TestRecorder_FiguresAreOfTheWindow(t *testing.T) {
	r := newRecorder(CountsBooked, time.Second, 2*time.Second)
	const ms = time.Millisecond
	r.answered(askedBook, booked, 900*ms, 999*ms)    // before
	r.answered(askedBook, booked, 990*ms, 1010*ms)   // due before, done within
	r.answered(askedBook, booked, 1100*ms, 1150*ms)  // within
	r.answered(askedBook, refused, 1200*ms, 1201*ms) // is not what the workload counts
	r.answered(askedBook, failed, 1300*ms, 1900*ms)  // has no latency
	r.answered(askedBook, booked, 1990*ms, 2300*ms)  // due within, done behind it
	r.answered(askedBook, booked, 2000*ms, 2001*ms)  // behind
	var round Round
	r.figures(&round)
	if want := map[string]int{"booked": 2, "refused": 1, "failed": 1}; round.Done != 2 || !reflect.DeepEqual(round.Outcomes, want) {
		t.Errorf("%v done, %v, want 2 and %v", round.Done, round.Outcomes, want)
	}
	if round.Latency.Max < 309 || round.Latency.Max > 311 || round.Latency.P50 < 49 || round.Latency.P50 > 51 {
		t.Errorf("%+v, want at most 310 ms, and 50 in the middle", round.Latency)
	}
	if round.Seconds != 1 || len(round.Timeline) != 10 || math.Abs(sumOf(round.Timeline)/10-2) > 1e-9 {
		t.Errorf("%v s, timeline %v, want 10 slices with 2/s on average", round.Seconds, round.Timeline)
	}
}

func sumOf(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum
}

func TestRecorder_QuantilesAreThoseOfTheLatencies(t *testing.T) {
	r := newRecorder(CountsBooked, 0, time.Hour)
	const count = 100_000
	latencies := make([]time.Duration, count)
	random := rand.New(rand.NewPCG(5, 6))
	for i := range latencies {
		latencies[i] = 200*time.Microsecond + time.Duration(random.ExpFloat64()*float64(5*time.Millisecond))
		r.answered(askedBook, booked, 0, latencies[i])
	}
	slices.Sort(latencies)
	var round Round
	r.figures(&round)
	check := func(name string, share, got float64) {
		rank := int(math.Ceil(share * count))
		// Three digits and whole microseconds; and half a request up or down, for there are shares between two.
		low, high := latencies[max(0, rank-2)].Seconds()*1000, latencies[min(rank, count-1)].Seconds()*1000
		if got < low*0.998-0.002 || got > high*1.002+0.002 {
			t.Errorf("%s: %.4f ms, want %.4f to %.4f", name, got, low, high)
		}
	}
	check("p50", 0.5, round.Latency.P50)
	check("p90", 0.9, round.Latency.P90)
	check("p99", 0.99, round.Latency.P99)
	check("p99.9", 0.999, round.Latency.P999)
	check("max", 1, round.Latency.Max)
	last := LatencyAt{-1, 0}
	for _, q := range round.Quantiles {
		check(fmt.Sprint(q.Share), q.Share, q.Milliseconds)
		if q.Share <= last.Share || q.Milliseconds < last.Milliseconds {
			t.Errorf("%+v follows %+v", q, last)
		}
		last = q
	}
	shares := round.Quantiles[:len(round.Quantiles)-1]
	if first, far := shares[0].Share, shares[len(shares)-1].Share; first != 0 || math.Abs(far-0.9999) > 1e-9 || last.Share != 1 || len(shares) != 81 {
		t.Errorf("%d points from %v to %v and %v, want 81 from 0 to 0.9999 and 1", len(shares), first, far, last.Share)
	}
}

func TestTimeline_IsRatesOfSecondsOrOfTenths(t *testing.T) {
	for _, c := range []struct {
		length time.Duration
		slices int
	}{{12 * time.Second, 12}, {10 * time.Second, 10}, {5 * time.Second, 10}, {130 * time.Millisecond, 10}, {7 * time.Millisecond, 10}} {
		slots := make([]uint32, (c.length+slotTime-1)/slotTime)
		for i := range slots { // 1000 a second, evenly
			slots[i] = uint32(min(slotTime, c.length-time.Duration(i)*slotTime) / time.Millisecond)
		}
		got := timeline(slots, c.length)
		if len(got) != c.slices {
			t.Errorf("%s: %d slices, want %d", c.length, len(got), c.slices)
		}
		for i, rate := range got {
			if math.Abs(rate-1000) > 1e-6 {
				t.Errorf("%s: slice %d has %v/s, want 1000", c.length, i, rate)
			}
		}
	}
}
