package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// priceList is the engine and the catalogue of a Pricer in memory: events whose price is 100 and shall be something else.
type priceList struct {
	evently.Catalogue
	mu          sync.Mutex
	events      map[evently.EventID]*evently.Event
	next        map[evently.EventID]int64 // what repricing gives
	fail        map[evently.EventID]error
	fault       error // of listing
	requests    []evently.Request
	under, most int           // requests at a time
	gate        chan struct{} // requests wait for it, unless nil
}

func newPriceList(events int) *priceList {
	l := &priceList{
		events: make(map[evently.EventID]*evently.Event), next: make(map[evently.EventID]int64), fail: make(map[evently.EventID]error),
	}
	for i := range events {
		id := evently.EventID(i + 1)
		l.events[id] = &evently.Event{
			ID: id, Organizer: evently.UserID(1 + i%2), Status: evently.EventPublished, Pricing: new(evently.PricingRule),
			EventDetails: evently.EventDetails{Tiers: []evently.Tier{{PriceMinor: 7}, {PriceMinor: 100}}},
		}
	}
	return l
}

func (l *priceList) PricedEvents(_ context.Context, after evently.EventID, limit int) (list []evently.EventID, err error) {
	for id := after + 1; int(id) <= len(l.events) && len(list) < limit; id++ {
		list = append(list, id)
	}
	return list, l.fault
}

func (l *priceList) States(_ context.Context, filter evently.EventFilter, page evently.Page) ([]*evently.State, *evently.Cursor, error) {
	var after evently.EventID
	if page.After != nil {
		after = page.After.Event
	}
	var states []*evently.State
	for id := after + 1; int(id) <= len(l.events); id++ {
		event := l.events[id]
		if event.Organizer != filter.Organizer || !slices.Equal(filter.Statuses, []evently.EventStatus{evently.EventPublished}) || filter.From.IsZero() {
			continue
		}
		if states = append(states, &evently.State{Event: event}); len(states) == page.Limit {
			return states, &evently.Cursor{Event: id}, l.fault
		}
	}
	return states, nil, l.fault
}

func (l *priceList) State(_ context.Context, id evently.EventID) (*evently.State, error) {
	event, found := l.events[id]
	if !found {
		return nil, evently.ErrEventNotFound
	}
	return &evently.State{Event: event}, nil
}

func (l *priceList) Do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	l.mu.Lock()
	l.requests = append(l.requests, *request)
	l.under++
	l.most = max(l.most, l.under)
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under--
	if err := l.fail[request.Event]; err != nil {
		return evently.Reply{}, err
	}
	event := *l.events[request.Event]
	if price := l.next[request.Event]; price != 0 {
		event.Tiers = []evently.Tier{{PriceMinor: 7}, {PriceMinor: price}}
	}
	return evently.Reply{Event: &event}, ctx.Err()
}

func (l *priceList) pricer(logs *strings.Builder) *Pricer {
	return &Pricer{
		Engine: l, Catalogue: l, Logger: slog.New(slog.NewTextHandler(logs, nil)), Metrics: NewMetrics(prometheus.NewRegistry()), Now: time.Now,
	}
}

func TestPricer_RepricesAllEventsAFewAtATime(t *testing.T) {
	const events = 2*repricePage + 44
	l := newPriceList(events)
	for id := range l.events {
		if id%3 == 0 {
			l.next[id] = 100 + int64(id)
		}
	}
	l.gate = make(chan struct{})
	go func() {
		for range events {
			l.gate <- struct{}{}
		}
	}()
	var logs strings.Builder
	pricer := l.pricer(&logs)
	run := &evently.PriceRun{Who: 7, RequestID: "r", Trace: "t"}
	report, err := pricer.Run(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if report.Examined != events || report.Changed != events/3 || report.Failed != 0 || len(report.Changes) != events/3 {
		t.Errorf("examined %d, changed %d, failed %d, listed %d; want %d, %d, 0, %d",
			report.Examined, report.Changed, report.Failed, len(report.Changes), events, events/3, events/3)
	}
	for i, change := range report.Changes {
		id := evently.EventID(3 * (i + 1))
		if want := (evently.PriceChange{Event: id, Tier: 1, FromMinor: 100, ToMinor: 100 + int64(id)}); change != want {
			t.Fatalf("change %d is %+v, want %+v", i, change, want)
		}
	}
	if l.most > repriceParallel || l.most < 2 {
		t.Errorf("%d at a time, want up to %d", l.most, repriceParallel)
	}
	asked := make(map[evently.EventID]bool)
	for _, request := range l.requests {
		asked[request.Event] = true
		if want := (evently.Request{Event: request.Event, Command: &evently.Reprice{}, Who: 7, ID: "r", Trace: "t"}); !cmp.Equal(want, request) {
			t.Fatalf("asked %+v, want %+v", request, want)
		}
	}
	if len(asked) != events || len(l.requests) != events {
		t.Errorf("%d requests for %d events, want one for each of %d", len(l.requests), len(asked), events)
	}
	if got := testutil.ToFloat64(pricer.Metrics.repriced.WithLabelValues("changed")); got != events/3 {
		t.Errorf("counted %v changed events, want %d", got, events/3)
	}
	if logs.Len() > 0 {
		t.Errorf("logged %s", logs.String())
	}
}

func TestPricer_ListsTheFirstChangesAndCountsAll(t *testing.T) {
	l := newPriceList(evently.PriceChangesMax + 5)
	for id := range l.events {
		l.next[id] = 1
	}
	pricer := l.pricer(new(strings.Builder))
	report, err := pricer.Run(t.Context(), &evently.PriceRun{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Changes) != evently.PriceChangesMax || report.Changed != len(l.events) || report.Examined != len(l.events) {
		t.Errorf("listed %d, changed %d, examined %d", len(report.Changes), report.Changed, report.Examined)
	}
	if command := l.requests[0].Command.(*evently.Reprice); !command.DryRun {
		t.Error("the dry run was none")
	}
	if got := testutil.ToFloat64(pricer.Metrics.repriced.WithLabelValues("changed")); got != 0 {
		t.Errorf("a dry run was counted as %v events", got)
	}
}

func TestPricer_GoesOnAfterFailures(t *testing.T) {
	l := newPriceList(10)
	for id := range l.events {
		l.next[id] = 1
		if id <= 5 {
			l.fail[id] = fmt.Errorf("%w: node down", evently.ErrUnavailable)
		}
	}
	l.fail[6] = evently.ErrEventCancelled
	l.events[7].Status = evently.EventCancelled
	l.events[8].Pricing = nil
	var logs strings.Builder
	pricer := l.pricer(&logs)
	report, err := pricer.Run(t.Context(), new(evently.PriceRun))
	if err != nil {
		t.Fatal(err)
	}
	if report.Examined != 10 || report.Failed != 5 || report.Changed != 2 {
		t.Errorf("examined %d, failed %d, changed %d; want 10, 5, 2", report.Examined, report.Failed, report.Changed)
	}
	if lines := strings.Count(logs.String(), "\n"); lines != 3 || !strings.Contains(logs.String(), "node down") {
		t.Errorf("logged %d lines, want 3: %s", lines, logs.String())
	}
	if got := testutil.ToFloat64(pricer.Metrics.repriced.WithLabelValues("failed")); got != 5 {
		t.Errorf("counted %v failures", got)
	}
}

func TestPricer_KeepsToTheEventsAskedFor(t *testing.T) {
	l := newPriceList(2*evently.PageLimitMax + 50)
	for id := range l.events {
		l.next[id] = 1
	}
	l.events[2].Pricing, l.events[4].Pricing = nil, nil
	for _, test := range []struct {
		run      evently.PriceRun
		examined int
	}{
		{evently.PriceRun{Organizer: 2}, len(l.events)/2 - 2},
		{evently.PriceRun{Organizer: 1}, len(l.events) / 2},
		{evently.PriceRun{Organizer: 3}, 0},
		{evently.PriceRun{Event: 9}, 1},
		{evently.PriceRun{Event: 9, Organizer: 1}, 1},
	} {
		l.requests = nil
		report, err := l.pricer(new(strings.Builder)).Run(t.Context(), &test.run)
		if err != nil || report.Examined != test.examined || len(l.requests) != test.examined {
			t.Errorf("%+v: %+v with %d requests (%v), want %d examined", test.run, report, len(l.requests), err, test.examined)
		}
		for _, request := range l.requests {
			if event := l.events[request.Event]; test.run.Organizer != 0 && event.Organizer != test.run.Organizer ||
				test.run.Event != 0 && event.ID != test.run.Event {
				t.Fatalf("%+v: repriced %s of %s", test.run, event.ID, event.Organizer)
			}
		}
	}
	if report, err := l.pricer(new(strings.Builder)).Run(t.Context(), &evently.PriceRun{Event: 999}); err != nil || report.Changed != 0 || report.Failed != 0 {
		t.Errorf("an event that is gone: %+v, %v", report, err)
	}
}

func TestPricer_EndsWhenItCannotListOrIsStopped(t *testing.T) {
	l := newPriceList(3)
	l.fault = errors.New("no database")
	for _, run := range []evently.PriceRun{{}, {Organizer: 1}} {
		if report, err := l.pricer(new(strings.Builder)).Run(t.Context(), &run); !errors.Is(err, l.fault) || report != nil {
			t.Errorf("got %+v, %v; want %v", report, err, l.fault)
		}
	}
	l.fault, l.gate = nil, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := l.pricer(new(strings.Builder)).Run(ctx, new(evently.PriceRun))
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the run did not end with its context")
	}
}
