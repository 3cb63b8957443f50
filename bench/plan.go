package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Plan is what is to be measured: every design under every workload with every number of connections, Rounds times. Rounds are
// interleaved and their order rotates: what comes and goes on the machine meets all designs.
type Plan struct {
	Host        Host
	Designs     []Design // those that are Absent are left out
	Workloads   []Workload
	Connections []int
	Rate        float64 // requests a second that are due; 0: closed loops
	Rounds      int
	Warmup      time.Duration // before the figures of a round; audited all the same
	Duration    time.Duration // of the figures of a round, but for workloads that end with their demand
	DemandMax   time.Duration // what those may take at most. Default: 1 min
	// HalfRate names the workloads whose latency is measured besides: in open loops, at half of what the design has done in
	// closed ones, by the median and with the number of connections that was best.
	HalfRate []string
	// Discard has a first block measured that is thrown away: it meets the caches of the machine when they are cold. Only rounds of it
	// whose audit fails are kept, as round 0.
	Discard bool
	Seed    uint64
	// Progress is called some times a second, by one goroutine at a time. Nil: nobody looks.
	Progress func(Progress)
}

const demandMaxDefault = time.Minute

// measurement is one of a block.
type measurement struct {
	workload    Workload
	connections int
	rate        float64
}

// Run measures. A measurement that could not be made becomes a Round whose audit has failed and tells why, and the plan goes on, as the
// last one of a target becomes that cannot be stopped. When ctx ends it returns its error and the rounds up to then; errors of Target.Stop
// without a round are returned in the end.
func (p *Plan) Run(ctx context.Context) ([]Round, error) {
	r := &run{Plan: *p, progress: startProgress(p.Progress)}
	defer r.progress.stop()
	if r.DemandMax == 0 {
		r.DemandMax = demandMaxDefault
	}
	designs := slices.DeleteFunc(slices.Clone(p.Designs), func(d Design) bool { return d.Absent != "" })
	var closed []measurement
	for _, workload := range p.Workloads {
		for _, connections := range p.Connections {
			closed = append(closed, measurement{workload, connections, p.Rate})
		}
	}
	r.progress.set(func(p *Progress) { p.Of = len(designs) * len(closed) * r.Rounds })
	if p.Discard && len(designs) > 0 && len(closed) > 0 {
		r.discarded(ctx, designs[0], closed[:1])
	}
	r.rotate(ctx, designs, func(Design) []measurement { return closed })
	if len(p.HalfRate) > 0 && ctx.Err() == nil {
		half := r.halfRates()
		r.progress.set(func(p *Progress) {
			for _, design := range designs {
				p.Of += len(half[design.Name]) * r.Rounds
			}
		})
		r.rotate(ctx, designs, func(d Design) []measurement { return half[d.Name] })
	}
	return r.rounds, errors.Join(append(r.errs, ctx.Err())...)
}

// run is a Plan that is being carried out.
type run struct {
	Plan
	progress *progress
	rounds   []Round
	errs     []error
}

// discarded measures a block whose figures are no result. Its audit is.
func (r *run) discarded(ctx context.Context, design Design, todo []measurement) {
	r.block(ctx, design, 0, todo)
	r.rounds = slices.DeleteFunc(r.rounds, func(r Round) bool { return r.Audit.Passed() })
	for i := range r.rounds {
		first := &r.rounds[i].Audit.Faults[0] // whatever fails has one
		*first = "before the first round: " + *first
	}
	r.progress.set(func(p *Progress) { p.Done = 0 })
}

// rotate measures blocks: in every round all designs, in every second one backwards, and after that another one first, so that none
// always follows the same one.
func (r *run) rotate(ctx context.Context, designs []Design, list func(Design) []measurement) {
	for round := 1; round <= r.Rounds; round++ {
		for i := range designs {
			at := i
			if round%2 == 0 {
				at = len(designs) - 1 - i
			}
			design := designs[(at+(round-1)/2)%len(designs)]
			if todo := list(design); len(todo) > 0 && ctx.Err() == nil {
				r.block(ctx, design, round, todo)
			}
		}
	}
}

// halfRates are the measurements of latency, by design.
func (r *run) halfRates() map[string][]measurement {
	best := make(map[[2]string]Summary)
	for _, s := range Summaries(r.rounds) {
		at := [2]string{s.Design, s.Workload}
		if s.Passed && s.Rate == 0 && s.Done > best[at].Done {
			best[at] = s
		}
	}
	half := make(map[string][]measurement)
	for _, design := range r.Designs {
		for _, workload := range r.Workloads {
			s, found := best[[2]string{design.Name, workload.Name}]
			if found && workload.Demand == 0 && slices.Contains(r.HalfRate, workload.Name) {
				half[design.Name] = append(half[design.Name], measurement{workload, s.Connections, s.Done / 2})
			}
		}
	}
	return half
}

// block starts a design, measures, and stops it.
func (r *run) block(ctx context.Context, design Design, round int, todo []measurement) {
	r.progress.set(func(p *Progress) { p.Design, p.Round, p.Workload, p.Connections, p.Rate = design.Name, round, "", 0, 0 })
	r.progress.phase(PhaseStart)
	target, startErr := r.Host.Start(ctx, design.Name)
	before := len(r.rounds)
	for i, m := range todo {
		r.progress.set(func(p *Progress) { p.Workload, p.Connections, p.Rate = m.workload.Name, m.connections, m.rate })
		measured, err := Round{}, startErr
		if err == nil {
			// Every design meets the same arrivals and visits.
			s := &session{run: r, design: design, target: target, measurement: m, seed: r.Seed + uint64(round)<<32 + uint64(i)}
			measured, err = s.measure(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			measured.Failure = err.Error()
			measured.Audit.Faults = append(measured.Audit.Faults, "not measured: "+err.Error())
		}
		measured.Design, measured.Workload, measured.Round = design.Name, m.workload.Name, round
		measured.Connections, measured.Rate = m.connections, m.rate
		r.rounds = append(r.rounds, measured)
		r.progress.set(func(p *Progress) { p.Done++ })
	}
	if startErr != nil {
		return
	}
	r.progress.phase(PhaseStop)
	err := target.Stop(context.WithoutCancel(ctx))
	switch last := len(r.rounds) - 1; {
	case err == nil:
	case last < before:
		r.errs = append(r.errs, fmt.Errorf("stop %s: %w", design.Name, err))
	default:
		r.rounds[last].Audit.fault("not stopped in order: %s", err)
	}
}
