package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunCatalogue checks an evently.Catalogue together with the journal that changes its events.
func RunCatalogue(t *testing.T, open func(t *testing.T) (evently.Catalogue, evently.Journal)) {
	for name, test := range map[string]func(*testing.T, evently.Catalogue, evently.Journal){
		"CreatedEventIsReadBack":       createdEventIsReadBack,
		"RepeatedCreationHasOneEffect": repeatedCreationHasOneEffect,
		"OnlyDraftsAreDeleted":         onlyDraftsAreDeleted,
		"DeletionFencesTheOwner":       deletionFencesTheOwner,
		"StateFollowsTheJournal":       stateFollowsTheJournal,
		"PagesHaveEachEventOnce":       pagesHaveEachEventOnce,
		"FiltersSelect":                filtersSelect,
		"PopularityIsBookedSeats":      popularityIsBookedSeats,
		"PricedEventsAreListedOnce":    pricedEventsAreListedOnce,
	} {
		t.Run(name, func(t *testing.T) {
			catalogue, journal := open(t)
			test(t, catalogue, journal)
		})
	}
}

func createdEventIsReadBack(t *testing.T, catalogue evently.Catalogue, _ evently.Journal) {
	full := newEvent(100, 0, evently.CapacityMax/2)
	full.ID |= 1 << 63
	full.Organizer = 1<<64 - 1
	full.Status = evently.EventDraft
	full.Name = `Ünïcode "quoted" <b>&\ 𝄞`
	full.SalesStartAt, full.SalesEndAt = start.Add(-time.Hour), start.Add(-time.Minute)
	full.Tiers[1].Retired = true
	full.Tiers[2].PriceMinor = evently.PriceMinorMax
	full.MaxPerUser = evently.MaxPerUserMax
	full.Pricing = &evently.PricingRule{
		Curve: []evently.PricePoint{{At: 0, FactorBps: 1}, {At: 100_000, FactorBps: evently.FactorBpsMax}},
		Time:  []evently.PricePoint{{At: evently.HoursBeforeMax}}, Step: evently.PriceStep{EverySeats: 3, AddMinor: -1},
		FloorBps: 1, CeilingBps: evently.FactorBpsMax, RoundMinor: 99, Rounding: evently.RoundDown,
	}
	for name, event := range map[string]*evently.Event{"full": full, "plain": newEvent(1)} {
		before := time.Now().Add(-time.Minute)
		created := create(t, catalogue, event)
		if diff := cmp.Diff(event, created); diff != "" {
			t.Errorf("%s: created (-want +got):\n%s", name, diff)
		}
		state, err := catalogue.State(t.Context(), event.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := &evently.State{Event: event, Availability: evently.Availability{Event: event.ID, Seq: 1, AsOf: state.AsOf}}
		for _, tier := range event.Tiers {
			want.Add(evently.TierAvailability{Capacity: tier.Capacity})
		}
		if diff := cmp.Diff(want, state, compared); diff != "" {
			t.Errorf("%s: state (-want +got):\n%s", name, diff)
		}
		if state.AsOf.Before(before) || state.AsOf.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s: read as of %v, it is %v", name, state.AsOf, time.Now())
		}
	}
	if _, err := catalogue.State(t.Context(), 42); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("unknown event: got %v, want %v", err, evently.ErrEventNotFound)
	}
}

func repeatedCreationHasOneEffect(t *testing.T, catalogue evently.Catalogue, _ evently.Journal) {
	event := newEvent(10)
	names := make([]string, 20)
	results := concurrently(len(names), func(i int) error {
		variant := *event
		variant.Name = fmt.Sprint("Concert ", i)
		created, err := catalogue.CreateEvent(t.Context(), &variant, variant.Organizer, "request")
		if err == nil {
			names[i] = created.Name
		}
		return err
	})
	for i, err := range results {
		if err != nil || names[i] != names[0] {
			t.Errorf("creation %d: got %q %v, want %q", i, names[i], err, names[0])
		}
	}
	stranger := *event
	stranger.Organizer++
	if created, err := catalogue.CreateEvent(t.Context(), &stranger, stranger.Organizer, "request"); err == nil {
		t.Errorf("another organizer's creation with that id gave %+v", created)
	}
}

func onlyDraftsAreDeleted(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	published, draft, later := newEvent(10), newEvent(10), newEvent(10)
	draft.Status, later.Status = evently.EventDraft, evently.EventDraft
	for _, event := range []*evently.Event{published, draft, later} {
		create(t, catalogue, event)
	}
	OpenOffice(t, journal, later.ID).do(time.Now(), &evently.Publish{})
	for name, c := range map[string]struct {
		id   evently.EventID
		want error
	}{
		"unknown":         {42, evently.ErrEventNotFound},
		"published":       {published.ID, evently.ErrEventNotDraft},
		"published later": {later.ID, evently.ErrEventNotDraft},
	} {
		if err := catalogue.DeleteDraft(t.Context(), c.id, 1, "delete"); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	results := concurrently(5, func(int) error { return catalogue.DeleteDraft(t.Context(), draft.ID, 1, "delete") })
	if count(results, nil) != 1 || count(results, evently.ErrEventNotFound) != len(results)-1 {
		t.Errorf("deletions of a draft: %v, want one to succeed", results)
	}
	if _, err := catalogue.State(t.Context(), draft.ID); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("deleted: got %v, want %v", err, evently.ErrEventNotFound)
	}
	if _, err := catalogue.CreateEvent(t.Context(), draft, draft.Organizer, "request"); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("created again after its deletion: got %v, want %v", err, evently.ErrEventNotFound)
	}
	if _, err := catalogue.State(t.Context(), published.ID); err != nil {
		t.Errorf("the published event: %v", err)
	}
}

func deletionFencesTheOwner(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	draft := newEvent(10)
	draft.Status = evently.EventDraft
	create(t, catalogue, draft)
	owner := OpenOffice(t, journal, draft.ID)
	if err := catalogue.DeleteDraft(t.Context(), draft.ID, 1, "delete"); err != nil {
		t.Fatal(err)
	}
	var decision evently.Decision
	if err := owner.Ledger.Decide(&evently.Publish{}, time.Now(), &decision); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	err := journal.Append(&evently.Batch{
		Event: draft.ID, Epoch: owner.Epoch, Owner: owner.Owner, PrevSeq: 1, Entries: decision.Entries,
		Tiers: []evently.TierAvailability{{Capacity: 10}}, Done: func(_ time.Time, err error) { outcome <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-outcome:
		if !errors.Is(err, evently.ErrFenced) {
			t.Errorf("got %v, want %v", err, evently.ErrFenced)
		}
	case <-time.After(outcomeMax):
		t.Fatalf("no outcome after %v", outcomeMax)
	}
	if _, err := journal.Acquire(t.Context(), draft.ID); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("acquire: got %v, want %v", err, evently.ErrEventNotFound)
	}
}

func stateFollowsTheJournal(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	event := create(t, catalogue, newEvent(10, 20))
	owner := OpenOffice(t, journal, event.ID)
	at := owner.Now
	owner.book(1, at, evently.Item{Quantity: 2}, evently.Item{Tier: 1, Quantity: 3})
	booked := owner.book(1, at, evently.Item{Tier: 1, Quantity: 4})
	owner.do(at, &evently.Confirm{User: 1, Token: booked.ID.Token})
	rest := owner.book(2, at, evently.Item{Tier: 1, Quantity: 10})
	owner.book(2, at, evently.Item{Tier: 1, Quantity: 3})
	owner.Join(3, at, evently.HoldOnRelease, evently.Item{Tier: 1, Quantity: 1})
	owner.Join(4, at, evently.HoldOnRelease, evently.Item{Tier: 1, Quantity: 10})
	owner.do(at, &evently.Release{User: 2, Token: rest.ID.Token}) // serves the first, and leaves 9
	owner.do(at, &evently.SetPricing{Version: 1, Rule: &evently.PricingRule{RoundMinor: 500, Rounding: evently.RoundUp}})
	details := owner.Ledger.Event().EventDetails
	details.Name, details.MaxPerUser = "Renamed", 100
	details.Tiers = append([]evently.Tier{}, details.Tiers...)
	details.Tiers[0].Capacity = 11
	details.Tiers = append(details.Tiers, evently.Tier{Name: "New", Capacity: 5})
	owner.do(at, &evently.Revise{Version: owner.Ledger.Event().Version, Details: details})
	state, err := catalogue.State(t.Context(), event.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := &evently.State{Event: owner.Ledger.Event()}
	owner.Ledger.Availability(&want.Availability)
	want.AsOf = state.AsOf
	if diff := cmp.Diff(want, state, compared); diff != "" || state.Waiting != 1 {
		t.Errorf("%d wait, want 1 (-want +got):\n%s", state.Waiting, diff)
	}
	states, _, err := catalogue.States(t.Context(), evently.EventFilter{}, evently.Page{Limit: 1})
	if err != nil || len(states) != 1 {
		t.Fatalf("listed %d events, %v", len(states), err)
	}
	states[0].AsOf = state.AsOf
	if diff := cmp.Diff(state, states[0], compared); diff != "" {
		t.Errorf("(-read +listed):\n%s", diff)
	}
}

// pricedEventsAreListedOnce has one event of every kind that is not to be listed, and others above and below the middle of the ids.
func pricedEventsAreListedOnce(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	rule := &evently.PricingRule{RoundMinor: 100}
	want := make(map[evently.EventID]bool)
	for i, change := range []func(*evently.Event){
		func(e *evently.Event) { want[e.ID] = true },
		func(e *evently.Event) { e.Status = evently.EventDraft },
		func(e *evently.Event) { want[e.ID] = true },
		func(e *evently.Event) { e.Pricing = nil },
		func(e *evently.Event) { e.StartsAt = time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond) },
		func(e *evently.Event) { e.ID = 1 << 63; want[e.ID] = true },
		func(e *evently.Event) { want[e.ID] = true },
		func(e *evently.Event) { e.SalesEndAt = time.Unix(1, 0).UTC(); want[e.ID] = true },
	} {
		event := newEvent(10)
		event.ID = evently.EventID(uint64(i)<<61 | uint64(i) + 1)
		event.Pricing = rule
		change(event)
		create(t, catalogue, event)
	}
	cancelled, priced := newEvent(10), newEvent(10)
	cancelled.Pricing = rule
	create(t, catalogue, cancelled)
	OpenOffice(t, journal, cancelled.ID).do(time.Now(), &evently.CancelEvent{})
	create(t, catalogue, priced)
	OpenOffice(t, journal, priced.ID).do(time.Now(), &evently.SetPricing{Version: 1, Rule: rule})
	want[priced.ID] = true
	for _, limit := range []int{1, 2, len(want), 100} {
		got := make(map[evently.EventID]bool)
		for after := evently.EventID(0); ; {
			list, err := catalogue.PricedEvents(t.Context(), after, limit)
			if err != nil || len(list) > limit {
				t.Fatalf("%d events in a page of %d, %v", len(list), limit, err)
			}
			for _, id := range list {
				if got[id] {
					t.Errorf("pages of %d: %s stands twice", limit, id)
				}
				got[id], after = true, id
			}
			if len(list) < limit {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}
}

// list reads all pages and returns the names in order.
func list(t *testing.T, catalogue evently.Catalogue, filter evently.EventFilter, limit int) (names []string) {
	t.Helper()
	page := evently.Page{Limit: limit}
	for {
		states, next, err := catalogue.States(t.Context(), filter, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(states) > limit || next != nil && len(states) != limit {
			t.Fatalf("a page of %d has %d events, next %v", limit, len(states), next)
		}
		for _, state := range states {
			names = append(names, state.Event.Name)
		}
		if next == nil {
			return names
		}
		page.After = next
	}
}

func pagesHaveEachEventOnce(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	const events = 23
	var byStart, byPopularity []string
	for i := range events {
		event := newEvent(1000)
		event.ID = evently.EventID(uint64(i)<<60 | uint64(i) + 1) // above and below the middle of the range
		event.Name = fmt.Sprint("Concert ", i)
		event.StartsAt = start.Add(time.Duration(i/5) * time.Millisecond) // several at the same moment
		event.EndsAt = event.StartsAt.Add(time.Hour)
		create(t, catalogue, event)
		if i%4 == 0 {
			owner := OpenOffice(t, journal, event.ID)
			booked := owner.book(1, owner.Now, evently.Item{Quantity: 1 + i%3})
			owner.do(owner.Now, &evently.Confirm{User: 1, Token: booked.ID.Token})
		}
	}
	byStart = list(t, catalogue, evently.EventFilter{}, evently.PageLimitMax)
	byPopularity = list(t, catalogue, evently.EventFilter{Sort: evently.ByPopularity}, evently.PageLimitMax)
	for _, names := range [][]string{byStart, byPopularity} {
		seen := make(map[string]bool)
		for _, name := range names {
			seen[name] = true
		}
		if len(names) != events || len(seen) != events {
			t.Fatalf("listed %d events, %d different, of %d", len(names), len(seen), events)
		}
	}
	for _, limit := range []int{1, 4, 5, events - 1, events, events + 1} {
		if diff := cmp.Diff(byStart, list(t, catalogue, evently.EventFilter{}, limit)); diff != "" {
			t.Errorf("by start in pages of %d (-all +pages):\n%s", limit, diff)
		}
		if diff := cmp.Diff(byPopularity, list(t, catalogue, evently.EventFilter{Sort: evently.ByPopularity}, limit)); diff != "" {
			t.Errorf("by popularity in pages of %d (-all +pages):\n%s", limit, diff)
		}
	}
}

func filtersSelect(t *testing.T, catalogue evently.Catalogue, _ evently.Journal) {
	for i, details := range []evently.EventDetails{
		{Name: "Jazz", Description: "ÜBER den Dächern", Category: "Music", Venue: "Roof", City: "München"},
		{Name: "100% off", Category: "sale", Venue: "Mall", City: "Bremen"},
		{Name: "100 percent", Category: "sale", Venue: `back\slash`, City: "Bremen"},
		{Name: "snake_case", Category: "Talk", Venue: "Lab", City: "MÜNCHEN"},
		{Name: "snakeXcase", Category: "talk", Venue: "Lab", City: "Köln"},
	} {
		event := newEvent(10)
		event.Organizer = evently.UserID(1 + i%2)
		event.Status = evently.EventStatus(i % 3)
		event.Name, event.Description, event.Category = details.Name, details.Description, details.Category
		event.Venue, event.City = details.Venue, details.City
		event.StartsAt = start.Add(time.Duration(i) * time.Hour)
		event.EndsAt = event.StartsAt.Add(time.Hour)
		create(t, catalogue, event)
	}
	for name, c := range map[string]struct {
		filter evently.EventFilter
		want   []string
	}{
		"all":                     {evently.EventFilter{}, []string{"Jazz", "100% off", "100 percent", "snake_case", "snakeXcase"}},
		"text in the name":        {evently.EventFilter{Text: "jAZ"}, []string{"Jazz"}},
		"text in the description": {evently.EventFilter{Text: "über DEN dä"}, []string{"Jazz"}},
		"text in the venue":       {evently.EventFilter{Text: "lab"}, []string{"snake_case", "snakeXcase"}},
		"text in the city":        {evently.EventFilter{Text: "ÖLN"}, []string{"snakeXcase"}},
		"per cent is a letter":    {evently.EventFilter{Text: "0%"}, []string{"100% off"}},
		"underscore is a letter":  {evently.EventFilter{Text: "snake_"}, []string{"snake_case"}},
		"backslash is a letter":   {evently.EventFilter{Text: `k\s`}, []string{"100 percent"}},
		"text found nowhere":      {evently.EventFilter{Text: "opera"}, nil},
		"category":                {evently.EventFilter{Category: "TALK"}, []string{"snake_case", "snakeXcase"}},
		"category is not a part":  {evently.EventFilter{Category: "tal"}, nil},
		"category is no pattern":  {evently.EventFilter{Category: "%"}, nil},
		"city":                    {evently.EventFilter{City: "münchen"}, []string{"Jazz", "snake_case"}},
		"from":                    {evently.EventFilter{From: start.Add(3 * time.Hour)}, []string{"snake_case", "snakeXcase"}},
		"to":                      {evently.EventFilter{To: start.Add(time.Hour)}, []string{"Jazz"}},
		"from and to":             {evently.EventFilter{From: start.Add(time.Hour), To: start.Add(3 * time.Hour)}, []string{"100% off", "100 percent"}},
		"organizer":               {evently.EventFilter{Organizer: 2}, []string{"100% off", "snake_case"}},
		"one status":              {evently.EventFilter{Statuses: []evently.EventStatus{evently.EventCancelled}}, []string{"100 percent"}},
		"two statuses": {
			evently.EventFilter{Statuses: []evently.EventStatus{evently.EventPublished, evently.EventCancelled}},
			[]string{"100% off", "100 percent", "snakeXcase"},
		},
		"everything at once": {
			evently.EventFilter{
				Text: "snake", Category: "talk", City: "München", From: start, To: start.Add(5 * time.Hour), Organizer: 2,
				Statuses: []evently.EventStatus{evently.EventDraft},
			},
			[]string{"snake_case"},
		},
	} {
		if diff := cmp.Diff(c.want, list(t, catalogue, c.filter, 2)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		c.filter.Sort = evently.ByPopularity
		if got := list(t, catalogue, c.filter, 2); len(got) != len(c.want) {
			t.Errorf("%s, by popularity: got %v, want %v", name, got, c.want)
		}
	}
}

func popularityIsBookedSeats(t *testing.T, catalogue evently.Catalogue, journal evently.Journal) {
	for _, c := range []struct {
		name         string
		held, booked int
	}{{"held only", 9, 0}, {"some", 0, 3}, {"most", 0, 6}, {"none", 0, 0}, {"both", 1, 5}} {
		event := newEvent(10, 10)
		event.Name = c.name
		create(t, catalogue, event)
		owner := OpenOffice(t, journal, event.ID)
		at := owner.Now
		if c.held > 0 {
			owner.book(1, at, evently.Item{Quantity: c.held})
		}
		for i := range c.booked { // over two tiers
			booked := owner.book(1, at, evently.Item{Tier: i % 2, Quantity: 1})
			owner.do(at, &evently.Confirm{User: 1, Token: booked.ID.Token})
		}
	}
	got := list(t, catalogue, evently.EventFilter{Sort: evently.ByPopularity}, 2)
	if len(got) != 5 || got[0] != "most" || got[1] != "both" || got[2] != "some" {
		t.Errorf("got %v, want most, both, some and then the two without bookings", got)
	}
}
