package evently

import (
	"slices"
	"time"

	"pgregory.net/rapid"
)

// Moves of a play on the waitlist, and on the pricing rule.

// sellOut leaves no seat of a tier free, so that there is something to wait for.
func (p *play) sellOut(t *rapid.T) {
	tier := rapid.IntRange(0, len(p.model.event.Tiers)-1).Draw(t, "tier")
	free := p.model.count(tier).Available() - rapid.IntRange(0, 2).Draw(t, "seats left")
	if free > 50*p.model.event.MaxPerBooking {
		details := p.model.event.EventDetails
		details.Tiers = slices.Clone(details.Tiers)
		details.Tiers[tier].Capacity -= free
		p.do(t, &Revise{Version: p.model.event.Version, Details: details})
		return
	}
	for n := 0; free > 0; free -= n {
		n = min(free, p.model.event.MaxPerBooking)
		p.do(t, &Book{User: UserID(100 + p.draws), Key: p.freshKey(), Items: OneItem(seats(tier, n)), Token: p.freshToken(t)})
	}
}

func (p *play) join(t *rapid.T) {
	p.do(t, &JoinWaitlist{
		User: UserID(rapid.IntRange(1, 20).Draw(t, "user")), Key: p.freshKey(), Items: p.items(t), Token: p.freshToken(t),
		OnRelease: rapid.SampledFrom([]OnRelease{BookOnRelease, HoldOnRelease}).Draw(t, "on release"),
	})
}

func (p *play) joinAgain(t *rapid.T) {
	if len(p.model.queue) == 0 {
		t.Skip("nobody has joined")
	}
	first := rapid.SampledFrom(p.model.queue).Draw(t, "waiter")
	if first.key == (Key{}) {
		t.Skip("the key is cleared")
	}
	again := JoinWaitlist{User: first.User, Key: first.key, Items: first.Items, OnRelease: first.OnRelease, Token: p.freshToken(t)}
	switch rapid.IntRange(0, 4).Draw(t, "difference") {
	case 0:
		again.User = p.user(t)
	case 1:
		again.Items = p.items(t)
	case 2:
		again.OnRelease = 1 - again.OnRelease
	case 3:
		again.Token = first.ID.Token
	}
	p.do(t, &again)
}

func (p *play) joinInABurst(t *rapid.T) {
	if len(p.model.queue) > SweepMax {
		t.Skip("many wait")
	}
	for n := range rapid.SampledFrom([]int{1, 3, 10, 20, 50, SweepMax + 1}).Draw(t, "waiters") {
		p.draws++
		p.decideAndPost(t, &JoinWaitlist{
			User: UserID(1000 + p.draws), Key: p.freshKey(), Items: OneItem(seats(0, 1+n%2)), OnRelease: OnRelease(n / 2 % 2),
			Token: Token(spread(p.draws)),
		}, p.clock)
	}
}

// waitingUser is mostly one who waits or has waited.
func (p *play) waitingUser(t *rapid.T) UserID {
	if len(p.model.queue) == 0 || rapid.IntRange(0, 9).Draw(t, "known") == 0 {
		return p.user(t)
	}
	return rapid.SampledFrom(p.model.queue).Draw(t, "waiter").User
}

func (p *play) prioritize(t *rapid.T) {
	cmd := Prioritize{Token: 0xfeed, Priority: rapid.SampledFrom([]int{-PriorityMax, -1, 0, 1, 2, PriorityMax}).Draw(t, "priority")}
	if len(p.model.queue) > 0 {
		cmd.Token = rapid.SampledFrom(p.model.queue).Draw(t, "waiter").ID.Token
	}
	p.do(t, &cmd)
}

func (p *play) setPricing(t *rapid.T) {
	cmd := SetPricing{Version: p.model.event.Version, DryRun: rapid.Bool().Draw(t, "dry")}
	if rapid.IntRange(0, 3).Draw(t, "rule") > 0 {
		cmd.Rule = anyRule.Draw(t, "rule")
	}
	if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
		cmd.Version--
	}
	p.do(t, &cmd)
}

// anyRule is valid.
var anyRule = rapid.Custom(func(t *rapid.T) *PricingRule {
	curve := func(label string, atMax int) (points []PricePoint) {
		places := rapid.SliceOfNDistinct(rapid.OneOf(rapid.IntRange(0, atMax/8), rapid.IntRange(0, atMax)), 0, 6, rapid.ID).Draw(t, label)
		slices.Sort(places)
		for _, at := range places {
			points = append(points, PricePoint{
				At: at, FactorBps: rapid.OneOf(rapid.IntRange(0, 30_000), rapid.IntRange(0, FactorBpsMax)).Draw(t, "factor"),
			})
		}
		return points
	}
	rule := &PricingRule{
		Curve: curve("curve", DemandBpsMax), Time: curve("time", HoursBeforeMax),
		FloorBps: rapid.SampledFrom([]int{0, 0, 5000, 10_000, FactorBpsMax}).Draw(t, "floor"),
		Rounding: rapid.SampledFrom([]Rounding{RoundNearest, RoundUp, RoundDown}).Draw(t, "rounding"),
		RoundMinor: rapid.OneOf(rapid.SampledFrom([]int64{0, 1, 10, 50, 100, RoundMinorMax}), rapid.Int64Range(0, RoundMinorMax)).
			Draw(t, "round to"),
	}
	if rapid.Bool().Draw(t, "ceiling") {
		rule.CeilingBps = rapid.IntRange(max(1, rule.FloorBps), FactorBpsMax).Draw(t, "ceiling")
	}
	if rapid.Bool().Draw(t, "steps") {
		rule.Step = PriceStep{
			EverySeats: rapid.OneOf(rapid.IntRange(1, 10), rapid.IntRange(1, CapacityMax)).Draw(t, "every"),
			AddMinor:   rapid.OneOf(rapid.Int64Range(0, 500), rapid.Int64Range(0, PriceMinorMax)).Draw(t, "add"),
		}
	}
	if err := rule.Validate(); err != nil {
		t.Fatal(err)
	}
	return rule
})

var anyBasis = rapid.Custom(func(t *rapid.T) PriceBasis {
	capacity := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, CapacityMax)).Draw(t, "capacity")
	return PriceBasis{
		BasePriceMinor: rapid.OneOf(rapid.Int64Range(0, 10_000), rapid.Int64Range(0, PriceMinorMax)).Draw(t, "base price"),
		Capacity:       capacity, Taken: rapid.IntRange(0, capacity).Draw(t, "taken"),
		Waiting:  rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, WaitersMax*MaxPerBookingMax)).Draw(t, "waited for"),
		StartsIn: time.Duration(rapid.Int64().Draw(t, "starts in")),
	}
})
