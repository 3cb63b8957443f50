package evently

import "time"

// Limits of a pricing rule.
const (
	PricingPointsMax = 32
	FactorBpsMax     = 1_000_000 // a hundred times
	HoursBeforeMax   = 24 * 366 * 5
)

// PricingRule says how the prices of an event follow its sales. Each tier's price is
//
//	base price x curve factor x time factor + step,
//
// rounded, and then no less than the floor and no more than the ceiling. Parts that are not given change nothing. Factors, floor and
// ceiling are in basis points: 10,000 is one. A value reached through a *PricingRule is shared and never modified.
type PricingRule struct {
	// Curve gives a factor by demand: the seats of the tier that are held, booked and waited for, in basis points of its capacity.
	// Between two points it is linear, beyond the ends constant. Demands ascend.
	Curve []PricePoint
	// Time gives a factor by the whole hours until the event starts, in the same way. Hours ascend.
	Time []PricePoint
	// Step adds to the price for each full number of seats of the tier held or booked.
	Step PriceStep
	// FloorBps and CeilingBps bound the price, in basis points of the base price; 0: no bound.
	FloorBps, CeilingBps int
	// RoundMinor rounds the price to a multiple; 0 or 1: to the minor unit.
	RoundMinor int64
	Rounding   Rounding
}

// PricePoint is a corner of a curve.
type PricePoint struct {
	At        int // demand in basis points, 0 to 100,000, or hours, 0 to HoursBeforeMax
	FactorBps int // 0 to FactorBpsMax
}

// PriceStep is an addition for seats sold.
type PriceStep struct {
	EverySeats int // 0: none
	AddMinor   int64
}

// Rounding is which multiple a price is rounded to.
type Rounding uint8

// The values are stored; never renumber them.
const (
	RoundNearest Rounding = iota // halves away from zero
	RoundUp
	RoundDown
)

// PriceBasis is what a tier's price depends on.
type PriceBasis struct {
	BasePriceMinor           int64
	Capacity, Taken, Waiting int // seats: of the tier, held or booked, waited for
	StartsIn                 time.Duration
}
