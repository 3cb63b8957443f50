package bench

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// asked is what a request asks for.
type asked uint8

const (
	askedBook asked = iota
	askedConfirm
	askedCancel
	askedRead
	askedKinds
)

func (a asked) String() string { return [...]string{"book", "confirm", "cancel", "read"}[a] }

// outcome is what came back.
type outcome uint8

const (
	booked outcome = iota
	replayed
	refused
	confirmed
	cancelled
	read
	failed
	outcomeKinds
)

func (o outcome) String() string {
	return [...]string{"booked", "replayed", "refused", "confirmed", "cancelled", "read", "failed"}[o]
}

const (
	// Latencies are recorded in microseconds, with a relative error of at most 0.1 %.
	latencyMax     = 2 * requestTimeout
	latencyDigits  = 3
	latencyUnit    = time.Microsecond
	slotTime       = 20 * time.Millisecond // of the timeline, before it is cut into slices
	lateness       = time.Millisecond      // beyond which a request was sent late
	timelineSlices = 10                    // of a round that is shorter than so many seconds
)

// recorder counts what one connection sees. Moments are times since the beginning of the load.
//
// The figures are those of a window. What is done counts when its answer falls into it. Latencies, requests and outcomes are
// those of requests that were due in it: in an open loop the slowest are answered behind its end and must not be left out. In a
// closed loop a request is due when the one before was answered, so that it makes no difference but at the edges.
type recorder struct {
	counts   [outcomeKinds]bool // what is done
	from, to time.Duration

	latency  *hdrhistogram.Histogram
	requests [askedKinds]int
	outcomes [outcomeKinds]int
	done     int
	slots    []uint32 // done in each slotTime since from
	due      int      // of requests that were scheduled
	late     int
	left     int    // of those, not sent
	failure  string // an example
}

// newRecorder records what a workload counts as done: see the Counts constants.
func newRecorder(counts string, from, to time.Duration) *recorder {
	r := &recorder{from: from, to: to, latency: hdrhistogram.New(1, int64(latencyMax/latencyUnit), latencyDigits)}
	for came := range outcomeKinds {
		r.counts[came] = came.String() == counts || counts == CountsAnswered && came != failed
	}
	return r
}

// answered records a request.
func (r *recorder) answered(what asked, came outcome, due, at time.Duration) {
	if r.from <= due && due < r.to {
		r.requests[what]++
		r.outcomes[came]++
		if came != failed {
			// It cannot be out of the range.
			_ = r.latency.RecordValue(int64(min(max(at-due, latencyUnit), latencyMax) / latencyUnit))
		}
	}
	if r.from <= at && at < r.to && r.counts[came] {
		r.done++
		slot := int((at - r.from) / slotTime)
		for len(r.slots) <= slot {
			r.slots = append(r.slots, 0)
		}
		r.slots[slot]++
	}
}

// scheduled records when a request of an open loop was sent.
func (r *recorder) scheduled(due, sent time.Duration) {
	if r.from <= due && due < r.to {
		r.due++
		if sent-due > lateness {
			r.late++
		}
	}
}

// unfinished records a request of an open loop that will not be sent. It has waited in vain, which counts as a latency: it would
// have been that at least.
func (r *recorder) unfinished(due, now time.Duration) {
	if r.from <= due && due < r.to {
		r.left++
		_ = r.latency.RecordValue(int64(min(now-due, latencyMax) / latencyUnit)) // as in answered
	}
}

// merge adds what another connection saw in the same window.
func (r *recorder) merge(other *recorder) {
	r.latency.Merge(other.latency) // of the same range: nothing is dropped
	for i, n := range other.requests {
		r.requests[i] += n
	}
	for i, n := range other.outcomes {
		r.outcomes[i] += n
	}
	for len(r.slots) < len(other.slots) {
		r.slots = append(r.slots, 0)
	}
	for i, n := range other.slots {
		r.slots[i] += n
	}
	r.done += other.done
	r.due += other.due
	r.late += other.late
	r.left += other.left
	if r.failure == "" {
		r.failure = other.failure
	}
}

// figures fills in what a round shows of a window, which is over.
func (r *recorder) figures(round *Round) {
	round.Seconds = (r.to - r.from).Seconds()
	round.Requests, round.Outcomes = make(map[string]int), make(map[string]int)
	for what, n := range r.requests {
		if n > 0 {
			round.Requests[asked(what).String()] = n
		}
	}
	for came, n := range r.outcomes {
		if n > 0 {
			round.Outcomes[outcome(came).String()] = n
		}
	}
	round.Failure = r.failure
	if round.Seconds > 0 {
		round.Done = float64(r.done) / round.Seconds
		round.Timeline = timeline(r.slots, r.to-r.from)
	}
	if r.due > 0 {
		round.SentLate = float64(r.late) / float64(r.due)
	}
	round.Unfinished = r.left
	if r.latency.TotalCount() == 0 {
		return
	}
	round.Latency = Latency{Mean: r.latency.Mean() * milliseconds(1), Max: milliseconds(r.latency.Max())}
	at := func(share float64) float64 { return milliseconds(r.latency.ValueAtPercentile(100 * share)) }
	round.Latency.P50, round.Latency.P90, round.Latency.P99, round.Latency.P999 = at(0.5), at(0.9), at(0.99), at(0.999)
	for _, share := range shares() {
		round.Quantiles = append(round.Quantiles, LatencyAt{share, at(share)})
	}
	round.Quantiles = append(round.Quantiles, LatencyAt{1, round.Latency.Max})
}

// milliseconds turns what the histogram holds into what is shown.
func milliseconds(units int64) float64 {
	return float64(units) * float64(latencyUnit) / float64(time.Millisecond)
}

// Each decade of requests that take longer has as many points of a distribution: 0, ..., 90 %, ..., 99 %, ..., 99.99 %.
const (
	decades         = 4
	pointsPerDecade = 20
)

func shares() []float64 {
	list := make([]float64, 0, decades*pointsPerDecade+1)
	for i := range decades*pointsPerDecade + 1 {
		list = append(list, 1-math.Pow(10, -float64(i)/pointsPerDecade))
	}
	return list
}

// timeline turns the counts of slots into rates: of every second, or of every tenth when there are fewer than ten seconds. A part
// of a second at the end is left out.
func timeline(slots []uint32, length time.Duration) []float64 {
	slice, slices := time.Second, int(length/time.Second)
	if slices < timelineSlices {
		slice, slices = length/timelineSlices, timelineSlices
	}
	rates := make([]float64, slices)
	for i, n := range slots {
		// What was done in a slot goes to the slices that it covers, in proportion.
		begin, end := time.Duration(i)*slotTime, min(time.Duration(i+1)*slotTime, length)
		for at := begin; at < end; {
			next := min((at/slice+1)*slice, end)
			if k := int(at / slice); k < slices {
				rates[k] += float64(n) * float64(next-at) / float64(end-begin) / slice.Seconds()
			}
			at = next
		}
	}
	return rates
}
