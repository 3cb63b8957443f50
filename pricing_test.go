package evently

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPricingRule_ValidateNamesEveryFieldThatIsWrong(t *testing.T) {
	many := make([]PricePoint, PricingPointsMax+1)
	for i := range many {
		many[i] = PricePoint{At: i, FactorBps: bpsOne}
	}
	for name, test := range map[string]struct {
		rule PricingRule
		want []string
	}{
		"empty": {PricingRule{}, nil},
		"all at their limits": {PricingRule{
			Curve: many[1:], Time: []PricePoint{{0, 0}, {HoursBeforeMax, FactorBpsMax}}, Step: PriceStep{CapacityMax, PriceMinorMax},
			FloorBps: FactorBpsMax, CeilingBps: FactorBpsMax, RoundMinor: RoundMinorMax, Rounding: RoundDown,
		}, nil},
		"a ceiling at the floor": {PricingRule{FloorBps: 1, CeilingBps: 1}, nil},
		"steps that add nothing": {PricingRule{Step: PriceStep{EverySeats: 1}}, nil},
		"too many points":        {PricingRule{Curve: many, Time: many}, []string{"curve", "time"}},
		"points beyond the limits": {
			PricingRule{Curve: []PricePoint{{-1, -1}, {DemandBpsMax + 1, FactorBpsMax + 1}}, Time: []PricePoint{{-1, 0}, {HoursBeforeMax + 1, 0}}},
			[]string{
				"curve[0].demand_bps", "curve[0].factor_bps", "curve[1].demand_bps", "curve[1].factor_bps", "time[0].hours_before",
				"time[1].hours_before",
			},
		},
		"points that do not ascend": {
			PricingRule{Curve: []PricePoint{{5, 1}, {5, 2}}, Time: []PricePoint{{5, 1}, {6, 1}, {4, 1}}},
			[]string{"curve[1].demand_bps", "time[2].hours_before"},
		},
		"numbers below zero": {
			PricingRule{Step: PriceStep{-1, -1}, FloorBps: -1, CeilingBps: -1, RoundMinor: -1},
			[]string{"step.every_seats", "step.add_minor", "floor_bps", "ceiling_bps", "round_minor"},
		},
		"numbers above their limits": {
			PricingRule{
				Step: PriceStep{CapacityMax + 1, PriceMinorMax + 1}, FloorBps: FactorBpsMax + 1, CeilingBps: FactorBpsMax + 2,
				RoundMinor: RoundMinorMax + 1, Rounding: RoundDown + 1,
			},
			[]string{"step.every_seats", "step.add_minor", "floor_bps", "ceiling_bps", "round_minor", "rounding"},
		},
		"an addition without steps":   {PricingRule{Step: PriceStep{AddMinor: 1}}, []string{"step.every_seats"}},
		"a ceiling below the floor":   {PricingRule{FloorBps: 10_000, CeilingBps: 9_999}, []string{"ceiling_bps"}},
		"a floor without any ceiling": {PricingRule{FloorBps: 10_000}, nil},
	} {
		var got []string
		if err := test.rule.Validate(); err != nil {
			refusal := (*Error)(nil)
			if !errors.As(err, &refusal) || refusal.Code != CodeInvalidRequest {
				t.Errorf("%s: got %v", name, err)
				continue
			}
			for _, field := range refusal.Fields {
				got = append(got, field.Field)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestPricingRule_PriceByExample(t *testing.T) {
	curve := []PricePoint{{2_000, 8_000}, {5_000, 10_000}, {10_000, 20_000}}
	for name, test := range map[string]struct {
		rule  PricingRule
		basis PriceBasis
		want  int64
	}{
		"an empty rule":                {PricingRule{}, PriceBasis{BasePriceMinor: 1999}, 1999},
		"before the first point":       {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000, Capacity: 100, Taken: 5}, 800},
		"at a point":                   {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000, Capacity: 100, Taken: 50}, 1000},
		"between two points":           {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000, Capacity: 100, Taken: 75}, 1500},
		"beyond the last point":        {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000, Capacity: 100, Taken: 90, Waiting: 500}, 2000},
		"who waits is demand":          {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000, Capacity: 100, Taken: 50, Waiting: 25}, 1500},
		"a tier without seats":         {PricingRule{Curve: curve}, PriceBasis{BasePriceMinor: 1000}, 800},
		"hours are whole":              {PricingRule{Time: []PricePoint{{1, 20_000}, {3, 10_000}}}, PriceBasis{BasePriceMinor: 100, StartsIn: 3*time.Hour - 1}, 150},
		"the event has begun":          {PricingRule{Time: []PricePoint{{1, 20_000}, {3, 10_000}}}, PriceBasis{BasePriceMinor: 100, StartsIn: -time.Hour}, 200},
		"factors multiply":             {PricingRule{Curve: []PricePoint{{0, 15_000}}, Time: []PricePoint{{0, 15_000}}}, PriceBasis{BasePriceMinor: 100}, 225},
		"full steps only":              {PricingRule{Step: PriceStep{10, 7}}, PriceBasis{BasePriceMinor: 100, Capacity: 50, Taken: 29, Waiting: 30}, 114},
		"nearest, a half up":           {PricingRule{RoundMinor: 50}, PriceBasis{BasePriceMinor: 125}, 150},
		"nearest, below a half":        {PricingRule{RoundMinor: 50}, PriceBasis{BasePriceMinor: 124}, 100},
		"up":                           {PricingRule{RoundMinor: 50, Rounding: RoundUp}, PriceBasis{BasePriceMinor: 101}, 150},
		"up, already there":            {PricingRule{RoundMinor: 50, Rounding: RoundUp}, PriceBasis{BasePriceMinor: 100}, 100},
		"down":                         {PricingRule{RoundMinor: 50, Rounding: RoundDown}, PriceBasis{BasePriceMinor: 149}, 100},
		"rounded once":                 {PricingRule{Curve: []PricePoint{{0, 3_333}}, Time: []PricePoint{{0, 30_003}}}, PriceBasis{BasePriceMinor: 10_000}, 10_000},
		"no less than the floor":       {PricingRule{Curve: []PricePoint{{0, 1}}, FloorBps: 9_999, RoundMinor: 100}, PriceBasis{BasePriceMinor: 1005}, 1004},
		"no more than the ceiling":     {PricingRule{Step: PriceStep{1, 1000}, CeilingBps: 15_000}, PriceBasis{BasePriceMinor: 1001, Taken: 9}, 1501},
		"a free tier":                  {PricingRule{Curve: curve, FloorBps: 20_000}, PriceBasis{}, 0},
		"no more than any price":       {PricingRule{Curve: []PricePoint{{0, 10_001}}}, PriceBasis{BasePriceMinor: PriceMinorMax}, PriceMinorMax},
		"a floor beyond any price":     {PricingRule{FloorBps: FactorBpsMax}, PriceBasis{BasePriceMinor: PriceMinorMax}, PriceMinorMax},
		"the greatest numbers":         {greatest(0), PriceBasis{PriceMinorMax, 1, CapacityMax, math.MaxInt32, math.MaxInt64}, PriceMinorMax},
		"the greatest, and a ceiling":  {greatest(5_000), PriceBasis{PriceMinorMax, 1, CapacityMax, math.MaxInt32, math.MinInt64}, PriceMinorMax / 2},
		"the greatest addition to one": {PricingRule{Step: PriceStep{1, PriceMinorMax}}, PriceBasis{1, 1, CapacityMax, 0, 0}, PriceMinorMax},
	} {
		if err := test.rule.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := test.rule.Price(test.basis); got != test.want || got != modelPrice(&test.rule, test.basis) {
			t.Errorf("%s: got %d, want %d; the model has %d", name, got, test.want, modelPrice(&test.rule, test.basis))
		}
	}
}

func greatest(ceilingBps int) PricingRule {
	point := []PricePoint{{0, FactorBpsMax}}
	return PricingRule{Curve: point, Time: point, Step: PriceStep{1, PriceMinorMax}, CeilingBps: ceilingBps, RoundMinor: RoundMinorMax}
}

// A price is the one that fractions give, is the same each time, and keeps to its bounds.
func TestPricingRule_PriceIsExactAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule, basis := anyRule.Draw(t, "rule"), anyBasis.Draw(t, "basis")
		got := rule.Price(basis)
		if want := modelPrice(rule, basis); got != want || rule.Price(basis) != got {
			t.Fatalf("got %d, want %d", got, want)
		}
		floor := min(basis.BasePriceMinor*int64(rule.FloorBps)/bpsOne, PriceMinorMax)
		if got < floor || got < 0 || got > PriceMinorMax || rule.CeilingBps > 0 && got > basis.BasePriceMinor*int64(rule.CeilingBps)/bpsOne {
			t.Fatalf("price %d is out of bounds", got)
		}
	})
}

// When the curve ascends, more demand never makes a seat cheaper.
func TestPricingRule_PriceAscendsWithDemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule, less := anyRule.Draw(t, "rule"), anyBasis.Draw(t, "basis")
		for i := 1; i < len(rule.Curve); i++ {
			rule.Curve[i].FactorBps = max(rule.Curve[i].FactorBps, rule.Curve[i-1].FactorBps)
		}
		more := less
		more.Taken += rapid.IntRange(0, less.Capacity-less.Taken).Draw(t, "taken more")
		more.Waiting += rapid.IntRange(0, 1000).Draw(t, "waited for more")
		if before, after := rule.Price(less), rule.Price(more); after < before {
			t.Fatalf("%d for %+v, but %d for %+v", before, less, after, more)
		}
	})
}

// A rule that is set, or runs again, changes prices and nothing else, and no reservation.
func TestLedger_RepricingLeavesReservationsAlone(t *testing.T) {
	l := newTestLedger(newTestEvent(2, 10))
	mustDo(t, l, book(1, 1, seats(0, 4), seats(1, 5)), epoch)
	before, _ := l.Reservation(1)
	rule := &PricingRule{Curve: []PricePoint{{0, 10_000}, {10_000, 20_000}}}
	set := mustDo(t, l, &SetPricing{Version: 1, Rule: rule}, epoch).Event
	if set.Version != 2 || set.Pricing != rule || set.Tiers[0].PriceMinor != 1400 || set.Tiers[1].PriceMinor != 3000 ||
		set.Tiers[0].BasePriceMinor != 1000 || l.Event() != set {
		t.Fatalf("set: %+v", set)
	}
	mustDo(t, l, book(2, 1, seats(0, 6)), epoch)
	dry := wantUnchanged(t, l, &Reprice{DryRun: true}, epoch).Event
	if dry.Version != 2 || dry.Tiers[0].PriceMinor != 2000 || l.Event().Tiers[0].PriceMinor != 1400 {
		t.Fatalf("dry: %+v", dry)
	}
	if dry := wantUnchanged(t, l, &SetPricing{Version: 2, DryRun: true}, epoch).Event; dry.Pricing != nil || dry.Tiers[0].PriceMinor != 1000 {
		t.Fatalf("dry without a rule: %+v", dry)
	}
	d := mustDo(t, l, &Reprice{}, epoch)
	if len(d.Entries) != 1 || d.Entries[0].Kind != EventRepricedEntry || d.Event.Version != 3 || d.Event.Pricing != rule ||
		d.Event.Tiers[0].PriceMinor != 2000 {
		t.Fatalf("repriced: %+v", d.Event)
	}
	if r, _ := l.Reservation(1); r.Items.TotalMinor() != before.Items.TotalMinor() {
		t.Errorf("a reservation has changed from %d to %d", before.Items.TotalMinor(), r.Items.TotalMinor())
	}
	details := l.Event().EventDetails
	details.Name = "Another name"
	if revised := mustDo(t, l, &Revise{Version: 3, Details: details}, epoch).Event; revised.Pricing != rule || revised.Tiers[0].PriceMinor != 2000 {
		t.Errorf("a revision of the name: %+v", revised)
	}
	if removed := mustDo(t, l, &SetPricing{Version: 4}, epoch).Event; removed.Pricing != nil || removed.Tiers[0].PriceMinor != 1000 {
		t.Errorf("removed: %+v", removed)
	}
	wantUnchanged(t, l, &Reprice{}, epoch)
}

// A draft and an event that has begun keep their prices until the organizer sets a rule.
func TestLedger_RepricesPublishedEventsUntilTheyBegin(t *testing.T) {
	event := newTestEvent(1, 10)
	event.Status = EventDraft
	l := newTestLedger(event)
	mustDo(t, l, &SetPricing{Version: 1, Rule: &PricingRule{Time: []PricePoint{{0, 20_000}, {HoursBeforeMax, 10_000}}}}, epoch)
	nearly := event.StartsAt.Add(-ms)
	wantUnchanged(t, l, &Reprice{}, nearly)
	mustDo(t, l, &Publish{}, epoch)
	wantUnchanged(t, l, &Reprice{}, event.StartsAt)
	if d := mustDo(t, l, &Reprice{}, nearly); d.Event.Tiers[0].PriceMinor != 2000 || len(d.Entries) != 1 {
		t.Errorf("got %+v", d.Event)
	}
}
