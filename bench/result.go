package bench

import (
	"fmt"
	"strings"
	"time"
)

// Report is the outcome of one command: what was measured, where, and by which command. It is what the JSON output
// holds and what the table and the page are made from.
type Report struct {
	Version  string     `json:"version"` // of the program
	Commit   string     `json:"commit"`  // empty: built outside of a repository
	Began    time.Time  `json:"began"`
	Seconds  float64    `json:"seconds"` // the whole run took
	Command  string     `json:"command"`
	Machine  Machine    `json:"machine"`
	Settings string     `json:"settings"`  // what the systems under test are spared that a node does by default
	Method   string     `json:"method"`    // how long and how often was measured
	Designs  []Design   `json:"designs"`   // in the order of the table; those that could not run say why
	Workload []Workload `json:"workloads"` // in the order of the table
	Rounds   []Round    `json:"rounds"`    // in the order in which they were measured
	Summary  []Summary  `json:"summary"`   // of the rounds, by workload, connections, rate and design
}

// Machine is where a report was measured. Load generator, server and Postgres share it unless a URL was the target.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"` // that programs may use
	MemoryMB int    `json:"memory_mb"`
	OS       string `json:"os"` // and kernel
	Go       string `json:"go"`
	Postgres string `json:"postgres"` // version and the settings that durability depends on
	Redis    string `json:"redis"`    // version; empty: absent
}

// Design is a system under test.
type Design struct {
	Name    string `json:"name"`    // on the command line, such as for-update
	Title   string `json:"title"`   // in a table
	About   string `json:"about"`   // one sentence: how it decides who gets a seat
	Durable bool   `json:"durable"` // a booking survives a crash once it is acknowledged
	Ceiling bool   `json:"ceiling"` // books nothing: it tells what the layers around a booking cost
	Conns   int32  `json:"conns"`   // connections of its pool to Postgres, at most; 0: not known, or none
	Absent  string `json:"absent"`  // why it could not run; empty: it ran
}

// explained is About with what the design was given.
func (d *Design) explained() string {
	if d.Conns == 0 {
		return d.About
	}
	return fmt.Sprintf("%s; %d %s to Postgres", strings.TrimRight(d.About, "."), d.Conns, plural(int(d.Conns), "connection"))
}

// Round is one measurement of one design under one workload.
type Round struct {
	Design      string  `json:"design"`
	Workload    string  `json:"workload"`
	Round       int     `json:"round"` // from 1; 0: before the first one, and kept because its audit has failed
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`    // requests a second that were scheduled; 0: closed loop
	Seconds     float64 `json:"seconds"` // measured, without the warm-up

	Requests map[string]int `json:"requests"` // answered, by what was asked: book, confirm, cancel, read
	Outcomes map[string]int `json:"outcomes"` // answered, by what came back: booked, replayed, refused, confirmed, cancelled, read, failed
	Failure  string         `json:"failure"`  // an example of the failed ones
	Done     float64        `json:"done"`     // what the workload counts as done, a second: see Workload.Counts

	Latency    Latency     `json:"latency"`
	CPU        CPU         `json:"cpu"`
	Commits    float64     `json:"commits"`    // transactions a second that wrote, of the whole Postgres server
	ServerRSS  int64       `json:"server_rss"` // bytes, at the end
	Audit      Audit       `json:"audit"`      // of all that this round's event or events were told, with the warm-up
	Quantiles  []LatencyAt `json:"quantiles"`  // the distribution, for a plot
	Timeline   []float64   `json:"timeline"`   // Done in each second, or in each tenth of the round if it is shorter than 10 s
	SentLate   float64     `json:"sent_late"`  // share of scheduled requests that went out over 1 ms late; latency counts from the schedule all the same
	Unfinished int         `json:"unfinished"` // scheduled requests that no connection got to before the round ended
}

// answered is how many requests had an answer, or failed.
func (r *Round) answered() (sum int) {
	for _, n := range r.Outcomes {
		sum += n
	}
	return sum
}

// Latency is the time from the scheduled moment of sending to the whole answer, in milliseconds, of requests that did not fail. Those
// that no connection got to count with the time that they waited.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// LatencyAt is a point of a distribution: a share of the requests took Milliseconds or less.
type LatencyAt struct {
	Share        float64 `json:"share"` // 0 to 1
	Milliseconds float64 `json:"ms"`
}

// CPU is the processor time that was spent during a round, in microseconds for each thing done (Round.Done). Zero: not known.
type CPU struct {
	Server   float64 `json:"server"`
	Postgres float64 `json:"postgres"` // all of its processes
	Redis    float64 `json:"redis"`
	Load     float64 `json:"load"` // the load generator
	Used     float64 `json:"used"` // share of all cores that these used, 0 to 1
}

// Audit holds what clients were told against what is stored. A round whose audit failed is no result.
type Audit struct {
	Acknowledged int      `json:"acknowledged"` // bookings that a client was told of
	Stored       int      `json:"stored"`       // rows
	Keys         int      `json:"keys"`         // idempotency keys that were looked at: all that are stored, or some that were sent again
	Lost         int      `json:"lost"`         // acknowledged and not stored
	Oversold     int      `json:"oversold"`     // seats sold beyond an event's capacity
	DoubledKeys  int      `json:"doubled_keys"` // idempotency keys with more than one reservation, or answered with different ones
	Miscounted   int      `json:"miscounted"`   // events whose counters differ from their rows
	Faults       []string `json:"faults"`       // one line each, at most 10
	Skipped      string   `json:"skipped"`      // why nothing was to be audited, for a ceiling; empty: audited
}

// Passed reports whether nothing was lost, oversold, doubled or miscounted.
func (a *Audit) Passed() bool {
	return a.Lost == 0 && a.Oversold == 0 && a.DoubledKeys == 0 && a.Miscounted == 0 && len(a.Faults) == 0
}

// Summary is the rounds of one design under one workload at one number of connections and one rate.
type Summary struct {
	Design      string  `json:"design"`
	Workload    string  `json:"workload"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`
	Rounds      int     `json:"rounds"`
	Passed      bool    `json:"passed"` // every round's audit did; if not, Done and Ratio are no result
	Done        float64 `json:"done"`   // median
	DoneMin     float64 `json:"done_min"`
	DoneMax     float64 `json:"done_max"`
	OfCeiling   float64 `json:"of_ceiling"` // median of the rounds' ratios to the ceiling's Done in the same round; 0: no ceiling ran
	Latency     Latency `json:"latency"`    // medians
	CPU         CPU     `json:"cpu"`        // medians
	Commits     float64 `json:"commits"`    // median
}
