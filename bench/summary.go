package bench

import (
	"cmp"
	"slices"
)

// CeilingName is the design that others are measured against: the layers around a booking, and nothing in them.
const CeilingName = "noop"

// Summaries sums rounds up. They are ordered by workload, connections, closed before open, and design, each as it came first.
func Summaries(rounds []Round) []Summary {
	type of struct {
		design, workload string
		connections      int
		rate             float64
	}
	ofRound := func(r *Round) of { return of{r.Design, r.Workload, r.Connections, r.Rate} }
	groups := make(map[of][]*Round)
	var order []of
	for i := range rounds {
		r := &rounds[i]
		at := ofRound(r)
		if groups[at] == nil {
			order = append(order, at)
		}
		groups[at] = append(groups[at], r)
	}
	first := make(map[string]int) // of a name of a workload or a design
	for i, at := range order {
		for _, name := range []string{"workload " + at.workload, "design " + at.design} {
			if _, known := first[name]; !known {
				first[name] = i
			}
		}
	}
	slices.SortStableFunc(order, func(a, b of) int {
		open := func(o of) int {
			if o.rate > 0 {
				return 1
			}
			return 0
		}
		return cmp.Or(
			first["workload "+a.workload]-first["workload "+b.workload], a.connections-b.connections, open(a)-open(b),
			first["design "+a.design]-first["design "+b.design],
		)
	})
	var list []Summary
	for _, at := range order {
		ceiling := at
		ceiling.design = CeilingName
		list = append(list, summarize(groups[at], doneByRound(groups[ceiling])))
	}
	return list
}

// doneByRound is what was done in each round; nil if one of them is no result.
func doneByRound(rounds []*Round) map[int]float64 {
	done := make(map[int]float64, len(rounds))
	for _, r := range rounds {
		if !r.Audit.Passed() {
			return nil
		}
		done[r.Round] = r.Done
	}
	return done
}

// summarize sums up the rounds of one design; ceiling is what was done in each round by the ceiling.
func summarize(rounds []*Round, ceiling map[int]float64) Summary {
	of := rounds[0]
	s := Summary{Design: of.Design, Workload: of.Workload, Connections: of.Connections, Rate: of.Rate, Rounds: len(rounds), Passed: true}
	all := func(figure func(*Round) float64) (values []float64) {
		for _, r := range rounds {
			values = append(values, figure(r))
		}
		return values
	}
	mid := func(figure func(*Round) float64) float64 { return median(all(figure)) }
	done := all(func(r *Round) float64 { return r.Done })
	s.Done, s.DoneMin, s.DoneMax = median(done), slices.Min(done), slices.Max(done)
	var ratios []float64
	for _, r := range rounds {
		s.Passed = s.Passed && r.Audit.Passed()
		if most := ceiling[r.Round]; most > 0 && r.Rate == 0 {
			ratios = append(ratios, r.Done/most)
		}
	}
	s.OfCeiling = median(ratios)
	s.Latency = Latency{
		Mean: mid(func(r *Round) float64 { return r.Latency.Mean }), P50: mid(func(r *Round) float64 { return r.Latency.P50 }),
		P90: mid(func(r *Round) float64 { return r.Latency.P90 }), P99: mid(func(r *Round) float64 { return r.Latency.P99 }),
		P999: mid(func(r *Round) float64 { return r.Latency.P999 }), Max: mid(func(r *Round) float64 { return r.Latency.Max }),
	}
	s.CPU = CPU{
		Server: mid(func(r *Round) float64 { return r.CPU.Server }), Postgres: mid(func(r *Round) float64 { return r.CPU.Postgres }),
		Redis: mid(func(r *Round) float64 { return r.CPU.Redis }), Load: mid(func(r *Round) float64 { return r.CPU.Load }),
		Used: mid(func(r *Round) float64 { return r.CPU.Used }),
	}
	s.Commits = mid(func(r *Round) float64 { return r.Commits })
	return s
}

// median of no values is 0; of an even number of them it is the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
