package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/evently/evently"
)

// Bounds of a run of the Pricer.
const (
	repricePage     = 128 // events read at a time
	repriceParallel = 8   // events repriced at a time; each may have to be loaded by its owner
	repriceMax      = 10 * time.Second
)

// Pricer implements evently.Pricer: it has the owner of each event reprice it. Several runs at a time do no harm, and what a run
// did not come to the next one makes up for: prices follow from the rule and the moment alone.
type Pricer struct {
	Engine    evently.Engine
	Catalogue evently.Catalogue
	Logger    *slog.Logger
	Metrics   *Metrics
	Now       func() time.Time
}

var _ evently.Pricer = (*Pricer)(nil)

// Run implements evently.Pricer.
func (p *Pricer) Run(ctx context.Context, run *evently.PriceRun) (*evently.PriceReport, error) {
	report := new(evently.PriceReport)
	complaints := &rate.Sometimes{First: 3, Interval: 5 * time.Second} // events of one node fail for the same reason
	pages := p.pages(run)
	for {
		events, more, err := pages(ctx)
		if err != nil {
			return nil, fmt.Errorf("list events to reprice: %w", err)
		}
		p.page(ctx, run, events, report, complaints)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reprice events: %w", err)
		}
		if !more {
			return report, nil
		}
	}
}

// pages returns a function that reads the next page of the events of a run.
func (p *Pricer) pages(run *evently.PriceRun) func(ctx context.Context) (events []evently.EventID, more bool, err error) {
	switch {
	case run.Event != 0:
		return func(context.Context) ([]evently.EventID, bool, error) {
			return []evently.EventID{run.Event}, false, nil
		}
	case run.Organizer != 0:
		filter := evently.EventFilter{Organizer: run.Organizer, From: p.Now(), Statuses: []evently.EventStatus{evently.EventPublished}}
		page := evently.Page{Limit: evently.PageLimitMax}
		return func(ctx context.Context) (events []evently.EventID, more bool, err error) {
			states, next, err := p.Catalogue.States(ctx, filter, page)
			for _, state := range states {
				if state.Event.Pricing != nil {
					events = append(events, state.Event.ID)
				}
			}
			page.After = next
			return events, next != nil, err
		}
	}
	var after evently.EventID
	return func(ctx context.Context) ([]evently.EventID, bool, error) {
		events, err := p.Catalogue.PricedEvents(ctx, after, repricePage)
		if len(events) > 0 {
			after = events[len(events)-1]
		}
		return events, len(events) == repricePage, err
	}
}

// page reprices events and adds what came of it to the report, in their order.
func (p *Pricer) page(
	ctx context.Context, run *evently.PriceRun, events []evently.EventID, report *evently.PriceReport, complaints *rate.Sometimes,
) {
	changes, errs := make([][]evently.PriceChange, len(events)), make([]error, len(events))
	var group sync.WaitGroup
	places := make(chan struct{}, repriceParallel)
	for i, event := range events {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			changes[i], errs[i] = p.reprice(ctx, run, event)
		})
	}
	group.Wait()
	for i, event := range events {
		report.Examined++
		if errs[i] != nil {
			report.Failed++
			p.count("failed", run)
			complaints.Do(func() {
				p.Logger.Warn("reprice event; further ones like it are logged now and then", "event", event.String(),
					"request_id", run.RequestID, "error", errs[i])
			})
			continue
		}
		result := "unchanged"
		if len(changes[i]) > 0 {
			result = "changed"
		}
		p.count(result, run)
		report.Changed += len(changes[i])
		report.Changes = append(report.Changes, changes[i][:min(len(changes[i]), evently.PriceChangesMax-len(report.Changes))]...)
	}
}

func (p *Pricer) count(result string, run *evently.PriceRun) {
	if !run.DryRun {
		p.Metrics.repriced.WithLabelValues(result).Inc()
	}
}

// reprice reprices one event and returns how its prices differ from before.
func (p *Pricer) reprice(ctx context.Context, run *evently.PriceRun, id evently.EventID) ([]evently.PriceChange, error) {
	ctx, cancel := context.WithTimeout(ctx, repriceMax)
	defer cancel()
	before, err := p.Catalogue.State(ctx, id)
	switch {
	case errors.Is(err, evently.ErrEventNotFound): // deleted since it was listed
		return nil, nil
	case err != nil:
		return nil, err
	case before.Event.Pricing == nil || before.Event.Status != evently.EventPublished:
		return nil, nil
	}
	reply, err := p.Engine.Do(ctx, &evently.Request{
		Event: id, Command: &evently.Reprice{DryRun: run.DryRun}, Who: run.Who, ID: run.RequestID, Trace: run.Trace,
	})
	if errors.Is(err, evently.ErrEventCancelled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return priceChanges(before.Event, reply.Event), nil
}

// priceChanges are the differences between the prices of an event before and after. Tiers never move.
func priceChanges(before, after *evently.Event) (changes []evently.PriceChange) {
	for i := range min(len(before.Tiers), len(after.Tiers)) {
		if from, to := before.Tiers[i].PriceMinor, after.Tiers[i].PriceMinor; from != to {
			changes = append(changes, evently.PriceChange{Event: after.ID, Tier: i, FromMinor: from, ToMinor: to})
		}
	}
	return changes
}
