package bench

import "slices"

// Workloads returns all workloads, in the order of a table.
func Workloads() []Workload {
	return []Workload{
		{
			Name: "hot", Title: "Hot event", About: "Everybody books seats of one event of a million.",
			Events: 1, Capacity: 1_000_000, Counts: CountsBooked,
		},
		{
			Name: "flash", Title: "Flash sale", About: "10,000 seats of one event are asked for 200,000 times, all at once.",
			Events: 1, Capacity: 10_000, Demand: 20, Counts: CountsAnswered,
		},
		{
			Name: "tail-1k", Title: "1,000 events", About: "Bookings spread over 1,000 events by Zipf's law: the k-th gets a share as 1/k.",
			Events: 1000, Capacity: 100_000, Zipf: 1, Counts: CountsBooked,
		},
		{
			Name: "tail-100k", Title: "100,000 events", About: "Bookings spread over 100,000 events by Zipf's law: the k-th gets a share as 1/k.",
			Events: 100_000, Capacity: 100_000, Zipf: 1, Counts: CountsBooked,
		},
		{
			Name: "mix", Title: "Mixed visits", About: "Of the visits to one event 30 % read it, 35 % hold a seat and confirm, 20 % abandon the hold, " +
				"10 % send the booking once more with the same key, 5 % confirm and then cancel.",
			Events: 1, Capacity: 1_000_000, Mix: Mix{Reads: 0.30, Retries: 0.10, Confirms: 0.35, Cancels: 0.05}, Counts: CountsAnswered,
		},
		{
			Name: "sold-out", Title: "Sold out", About: "Everybody asks for seats of one event that has none left.",
			Events: 1, Capacity: 100, SoldOut: true, Counts: CountsRefused,
		},
		{
			Name: "read", Title: "Reads", About: "Everybody looks at one event.",
			Events: 1, Capacity: 1000, Mix: Mix{Reads: 1}, Counts: CountsRead,
		},
	}
}

// WorkloadNamed returns the workload of a name.
func WorkloadNamed(name string) (w Workload, found bool) {
	all := Workloads()
	i := slices.IndexFunc(all, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return Workload{}, false
	}
	return all[i], true
}
