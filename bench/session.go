package bench

import (
	"cmp"
	"context"
	"fmt"

	"github.com/evently/evently"
)

// session is one measurement.
type session struct {
	*run
	measurement
	design   Design
	target   *Target
	seed     uint64
	endpoint Endpoint
	told     Told
}

func (s *session) measure(ctx context.Context) (round Round, err error) {
	if s.endpoint, err = ParseEndpoint(s.target.URL); err != nil {
		return round, err
	}
	s.progress.phase(PhaseSeed)
	events, err := s.events(ctx)
	if err != nil {
		return round, err
	}
	sale := events[:s.workload.Events]
	if s.workload.SoldOut && !s.design.Ceiling {
		if err := s.sellOut(ctx, sale); err != nil {
			return round, err
		}
	}
	meter := newMeter(ctx, s.target)
	s.progress.phase(PhaseSettle)
	if err := meter.settle(ctx); err != nil {
		return round, err
	}
	s.progress.phase(PhaseWarmup)
	load := s.load(sale, s.workload)
	if s.workload.Demand > 0 {
		// The demand is for seats that nobody has taken yet: others are for the warm-up.
		warm := s.workload
		warm.Demand = 0
		first := s.load(events[s.workload.Events:], warm)
		first.Warmup, first.Duration = 0, s.Warmup
		_, told, err := first.Run(ctx)
		s.told.merge(told)
		if err != nil {
			return round, err
		}
		load.Warmup, load.Duration = 0, s.DemandMax
	}
	var before, after reading
	rss := int64(0)
	load.Window = func(begins bool) {
		if begins {
			s.progress.phase(PhaseMeasure)
			before = meter.read(ctx)
			return
		}
		after, rss = meter.read(ctx), rssOf(meter.processes.Server)
	}
	round, told, err := load.Run(ctx)
	s.told.merge(told)
	if err != nil {
		return round, err
	}
	round.ServerRSS = rss
	after.since(&before, &round)
	if round.Done == 0 {
		return round, fmt.Errorf("nothing was done; an example of what failed: %s", cmp.Or(round.Failure, "no answer came in time"))
	}
	if s.design.Ceiling {
		round.Audit.Skipped = "books nothing"
		return round, nil
	}
	s.progress.phase(PhaseAudit)
	storage := s.storage()
	round.Audit, err = AuditOf(ctx, &s.told, storage, events, s.workload.Capacity)
	if api, ok := storage.(*API); ok && err == nil {
		err = api.replay(ctx, s.told.samples, &round.Audit)
	}
	return round, err
}

// load is what the workload asks for.
func (s *session) load(events []evently.EventID, w Workload) *Load {
	if s.design.Ceiling {
		w.Counts = CountsAnswered // whatever it is asked for, it says the same
	}
	return &Load{
		Endpoint: s.endpoint, Workload: w, Events: events, Users: s.target.Users, Connections: s.connections,
		Warmup: s.Warmup, Duration: s.Duration, Rate: s.rate, Seed: s.seed, Keys: random64(), Unchecked: s.design.Ceiling,
		Answered: &s.progress.answered,
	}
}

// events makes those of the workload, and as many again for the warm-up of a demand.
func (s *session) events(ctx context.Context) ([]evently.EventID, error) {
	t, count, capacity := s.target, s.workload.Events, s.workload.Capacity
	if s.workload.Demand > 0 {
		count *= 2
	}
	if t.Database == nil {
		return PublishEvents(ctx, t.URL, t.Admin, s.workload.Title, count, capacity)
	}
	if t.Organizer == 0 {
		organizer, err := Administrator(ctx, t.Database)
		if err != nil {
			return nil, err
		}
		t.Organizer = organizer
	}
	events, err := SeedEvents(ctx, t.Database, t.Organizer, s.workload.Title, count, capacity)
	if err == nil && t.Prepare != nil {
		err = t.Prepare(ctx, events, capacity)
	}
	return events, err
}

const (
	sellOutTries       = 10 // as some requests may fail
	sellOutConnections = 4
)

// sellOut books all seats.
func (s *session) sellOut(ctx context.Context, events []evently.EventID) error {
	want := len(events) * s.workload.Capacity
	for range sellOutTries {
		left := want - len(s.told.Promises)
		if left == 0 {
			return nil
		}
		load := s.load(events, Workload{Capacity: left, Demand: 1 / float64(len(events)), Counts: CountsBooked})
		load.Connections, load.Rate, load.Warmup, load.Duration = sellOutConnections, 0, 0, s.DemandMax
		_, told, err := load.Run(ctx)
		s.told.merge(told)
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%d seats of %d could be sold before the round", len(s.told.Promises), want)
}

// storage is where the target keeps reservations.
func (s *session) storage() Storage {
	switch t := s.target; {
	case t.Storage != nil:
		return t.Storage
	case t.Database != nil:
		return &Tables{Pool: t.Database}
	default:
		return &API{URL: t.URL, Admin: t.Admin}
	}
}
