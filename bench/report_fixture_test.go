package bench

import (
	"math"
	"time"
)

// sampleReport is a comparison as it might turn out: every kind of line is in it.
func sampleReport() *Report {
	r := &Report{
		Version: "v0.9.0", Commit: "0123456789abcdef0123456789abcdef01234567",
		Began: time.Date(2026, 11, 22, 14, 5, 0, 0, time.UTC), Seconds: 712.4,
		Command: "evently bench --compare --html report.html --json report.json",
		Machine: Machine{
			CPU: "Intel(R) Xeon(R) Processor @ 2.90GHz", Cores: 2, MemoryMB: 7951, OS: "Linux 6.1.0", Go: "go1.26.0",
			Postgres: "15.18, fsync on, full_page_writes on, synchronous_commit on",
		},
		Method: "Each measurement is 1s of warm-up and a window of 5s.",
		Designs: []Design{
			{
				Name: "evently", Title: "Evently", About: "One actor for each event decides in memory; many decisions share a commit.", Durable: true,
				Conns: 16,
			},
			{Name: "noop", Title: "No-op handler", About: "The same HTTP server around a handler that does nothing.", Ceiling: true},
			{Name: "gin", Title: "Bare Gin", About: "Gin and a constant answer, without any middleware.", Ceiling: true},
			{Name: "for-update", Title: "SELECT ... FOR UPDATE", About: "Locks the event's row for a transaction.", Durable: true},
			{Name: "conditional-update", Title: "Conditional UPDATE", About: "Counts down in one statement if enough is left.", Durable: true},
			{Name: "optimistic", Title: "Optimistic version", About: "Reads, then writes if the version is the same, else again.", Durable: true},
			{Name: "skip-locked", Title: "SKIP LOCKED tickets", About: "Takes ticket rows that nobody else holds.", Durable: true},
			{Name: "advisory-lock", Title: "Advisory lock", About: "Locks the event's number and sums its rows up.", Durable: true},
			{
				Name: "redis-postgres", Title: "Redis + Postgres", About: "A Lua script decides, Postgres keeps.", Durable: true,
				Absent: "redis-server is not installed (Debian: apt-get install redis-server)",
			},
			{Name: "redis", Title: "Redis alone", About: "A Lua script decides and keeps."},
		},
		Workload: []Workload{
			{Name: "hot", Title: "Hot event", About: "One event of 1,000,000 seats, bookings of one seat.", Events: 1, Capacity: 1_000_000, Counts: "booked"},
			{Name: "flash", Title: "Flash sale", About: "10,000 seats and 20 times as many requests.", Events: 1, Capacity: 10_000, Demand: 20, Counts: "answered"},
			{Name: "tail-1k", Title: "Long tail of 1,000", About: "1,000 events whose popularity follows Zipf.", Events: 1000, Capacity: 10_000, Zipf: 1.1, Counts: "booked"},
			{Name: "tail-100k", Title: "Long tail of 100,000", About: "100,000 events whose popularity follows Zipf.", Events: 100_000, Capacity: 1000, Zipf: 1.1, Counts: "booked"},
			{Name: "sold-out", Title: "Sold out", About: "Refusals.", Events: 1, Capacity: 100, SoldOut: true, Counts: "refused"},
			{Name: "read", Title: "Reads", About: "GET /events/{id}.", Events: 1, Capacity: 100, Mix: Mix{Reads: 1}, Counts: "read"},
		},
	}
	type speed struct{ done, server, postgres, redis, p50 float64 }
	speeds := map[string]speed{
		"evently": {14_210, 68, 22, 0, 15.8}, "noop": {21_950, 51, 0, 0, 10.9}, "gin": {31_204, 33, 0, 0, 7.6},
		"for-update": {712, 190, 840, 0, 350}, "conditional-update": {1_104, 140, 610, 0, 228}, "optimistic": {258, 900, 2_950, 0, 890},
		"skip-locked": {2_320, 150, 520, 0, 105}, "advisory-lock": {640, 200, 1_050, 0, 390}, "redis": {9_870, 92, 0, 31, 25},
	}
	for _, w := range r.Workload {
		for _, connections := range []int{64, 256} {
			if w.Name != "hot" && connections == 64 {
				continue
			}
			for _, design := range r.Designs {
				s, ran := speeds[design.Name]
				if !ran || (w.Name == "tail-100k" && design.Name != ReferenceName) {
					continue
				}
				for round := 1; round <= 3; round++ {
					factor := 1 + 0.02*float64(round-2)
					if connections == 64 {
						factor *= 0.85
					}
					r.Rounds = append(r.Rounds, sampleRound(design, w, round, connections, 0, s.done*factor, s.p50/factor*float64(connections)/256,
						CPU{Server: s.server, Postgres: s.postgres, Redis: s.redis, Load: 21, Used: 0.97}))
				}
			}
		}
	}
	for _, name := range []string{"evently", "noop", "for-update", "skip-locked"} {
		s := speeds[name]
		for round := 1; round <= 3; round++ {
			r.Rounds = append(r.Rounds, sampleRound(r.design(name), r.Workload[0], round, 64, s.done/2, s.done/2, 3_000/math.Sqrt(s.done)/20,
				CPU{Server: s.server * 1.1, Postgres: s.postgres * 1.2, Load: 25, Used: 0.6}))
		}
	}
	for i := range r.Rounds {
		round := &r.Rounds[i]
		switch {
		case round.Design == "optimistic" && round.Workload == "hot" && round.Connections == 256 && round.Round == 2:
			round.Audit.Oversold, round.Audit.Faults = 3, []string{"event evt_0000000000001: 1000003 seats of 1000000"}
		case round.Design == "for-update" && round.Rate > 0:
			round.SentLate, round.Unfinished = 0.12, 1311
		case round.Design == "advisory-lock" && round.Workload == "sold-out":
			round.Outcomes["failed"], round.Failure = 4, "503 unavailable"
		}
	}
	r.Summary = Summaries(r.Rounds)
	return r
}

func sampleRound(design Design, w Workload, round, connections int, rate, done, p50 float64, cpu CPU) Round {
	out := Round{
		Design: design.Name, Workload: w.Name, Round: round, Connections: connections, Rate: rate, Seconds: 5, Done: done,
		Outcomes: map[string]int{w.Counts: int(done * 5)}, Requests: map[string]int{"book": int(done * 5)},
		Latency: Latency{Mean: p50 * 1.1, P50: p50, P90: p50 * 1.4, P99: p50 * 2.2, P999: p50 * 3.7, Max: p50 * 6},
		CPU:     cpu, ServerRSS: 61 << 20,
		Audit: Audit{Acknowledged: int(done * 5), Stored: int(done * 5)},
	}
	if cpu.Postgres > 0 {
		out.Commits = min(done, 2_400)
	}
	if design.Ceiling {
		out.Audit = Audit{Skipped: "it books nothing"}
	}
	for _, share := range []float64{0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1} {
		nines := -math.Log10(max(1-share, 1e-5))
		out.Quantiles = append(out.Quantiles, LatencyAt{share, p50 * math.Pow(1.75, nines-0.3)})
	}
	return out
}
