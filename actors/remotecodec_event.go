package actors

import (
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

func encodeEvent(e *evently.Event) *eventpb.Event {
	return &eventpb.Event{
		Id: uint64(e.ID), Organizer: uint64(e.Organizer), Status: uint32(e.Status), Version: e.Version,
		CreatedAtMs: encodeTime(e.CreatedAt), Details: encodeDetails(&e.EventDetails), Pricing: encodePricing(e.Pricing),
	}
}

func decodeEvent(m *eventpb.Event) (*evently.Event, bool) {
	details, ok := decodeDetails(m.Details)
	if !ok || m.Status > uint32(evently.EventCancelled) || !within(timeMax, m.CreatedAtMs) {
		return nil, false
	}
	pricing, ok := decodePricing(m.Pricing)
	if !ok {
		return nil, false
	}
	return &evently.Event{
		ID: evently.EventID(m.Id), Organizer: evently.UserID(m.Organizer), Status: evently.EventStatus(m.Status),
		Version: m.Version, CreatedAt: decodeTime(m.CreatedAtMs), Pricing: pricing, EventDetails: details,
	}, true
}

func encodePricing(r *evently.PricingRule) *eventpb.PricingRule {
	if r == nil {
		return nil
	}
	return &eventpb.PricingRule{
		Curve: encodePoints(r.Curve), Time: encodePoints(r.Time), StepEverySeats: uint32(r.Step.EverySeats), StepAddMinor: r.Step.AddMinor,
		FloorBps: uint32(r.FloorBps), CeilingBps: uint32(r.CeilingBps), RoundMinor: r.RoundMinor, Rounding: uint32(r.Rounding),
	}
}

// decodePricing returns false when a number is out of its bounds. Whether the rule is valid is PricingRule.Validate's matter.
func decodePricing(m *eventpb.PricingRule) (*evently.PricingRule, bool) {
	if m == nil {
		return nil, true
	}
	if len(m.Curve) > evently.PricingPointsMax || len(m.Time) > evently.PricingPointsMax || m.Rounding > uint32(evently.RoundDown) ||
		!within(evently.FactorBpsMax, int64(m.FloorBps), int64(m.CeilingBps)) || !within(evently.RoundMinorMax, m.RoundMinor) ||
		!within(evently.CapacityMax, int64(m.StepEverySeats)) || !within(evently.PriceMinorMax, m.StepAddMinor) {
		return nil, false
	}
	return &evently.PricingRule{
		Curve: decodePoints(m.Curve), Time: decodePoints(m.Time),
		Step:     evently.PriceStep{EverySeats: int(m.StepEverySeats), AddMinor: m.StepAddMinor},
		FloorBps: int(m.FloorBps), CeilingBps: int(m.CeilingBps), RoundMinor: m.RoundMinor, Rounding: evently.Rounding(m.Rounding),
	}, true
}

func encodePoints(points []evently.PricePoint) (list []*eventpb.PricePoint) {
	for _, point := range points {
		list = append(list, &eventpb.PricePoint{At: uint32(point.At), FactorBps: uint32(point.FactorBps)})
	}
	return list
}

func decodePoints(list []*eventpb.PricePoint) (points []evently.PricePoint) {
	for _, point := range list {
		points = append(points, evently.PricePoint{At: int(point.GetAt()), FactorBps: int(point.GetFactorBps())})
	}
	return points
}

func encodeDetails(d *evently.EventDetails) *eventpb.EventDetails {
	m := &eventpb.EventDetails{
		Name: d.Name, Description: d.Description, Category: d.Category, Venue: d.Venue, City: d.City,
		Timezone: d.Timezone, Currency: d.Currency, StartsAtMs: encodeTime(d.StartsAt), EndsAtMs: encodeTime(d.EndsAt),
		SalesStartAtMs: encodeTime(d.SalesStartAt), SalesEndAtMs: encodeTime(d.SalesEndAt),
		HoldTtlMs: d.HoldTTL.Milliseconds(), MaxPerBooking: uint32(d.MaxPerBooking), MaxPerUser: uint32(d.MaxPerUser),
		Tiers: make([]*eventpb.Tier, len(d.Tiers)),
	}
	for i, tier := range d.Tiers {
		m.Tiers[i] = &eventpb.Tier{
			Name: tier.Name, Capacity: uint32(tier.Capacity), BasePriceMinor: tier.BasePriceMinor, PriceMinor: tier.PriceMinor,
			Retired: tier.Retired,
		}
	}
	return m
}

// decodeDetails returns false when a number is out of its bounds. Whether details are valid is EventDetails.Validate's matter:
// an event may be older than a rule.
func decodeDetails(m *eventpb.EventDetails) (evently.EventDetails, bool) {
	if len(m.GetTiers()) < 1 || len(m.GetTiers()) > evently.TiersMax || m.GetMaxPerBooking() > evently.MaxPerBookingMax ||
		m.GetMaxPerUser() > evently.MaxPerUserMax ||
		!within(evently.HoldTTLMax.Milliseconds(), m.GetHoldTtlMs()) ||
		!within(timeMax, m.GetStartsAtMs(), m.GetEndsAtMs(), m.GetSalesStartAtMs(), m.GetSalesEndAtMs()) {
		return evently.EventDetails{}, false
	}
	d := evently.EventDetails{
		Name: m.Name, Description: m.Description, Category: m.Category, Venue: m.Venue, City: m.City,
		Timezone: m.Timezone, Currency: m.Currency, StartsAt: decodeTime(m.StartsAtMs), EndsAt: decodeTime(m.EndsAtMs),
		SalesStartAt: decodeTime(m.SalesStartAtMs), SalesEndAt: decodeTime(m.SalesEndAtMs),
		HoldTTL: time.Duration(m.HoldTtlMs) * time.Millisecond, MaxPerBooking: int(m.MaxPerBooking), MaxPerUser: int(m.MaxPerUser),
		Tiers: make([]evently.Tier, len(m.Tiers)),
	}
	for i, tier := range m.Tiers {
		if tier.GetCapacity() > evently.CapacityMax || !within(evently.PriceMinorMax, tier.GetBasePriceMinor(), tier.GetPriceMinor()) {
			return evently.EventDetails{}, false
		}
		d.Tiers[i] = evently.Tier{
			Name: tier.GetName(), Capacity: int(tier.GetCapacity()), BasePriceMinor: tier.GetBasePriceMinor(), PriceMinor: tier.GetPriceMinor(),
			Retired: tier.GetRetired(),
		}
	}
	return d, true
}
