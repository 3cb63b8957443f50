package evently

import (
	"fmt"
	"math/bits"
	"strconv"
	"time"
)

// Limits of a pricing rule.
const (
	PricingPointsMax = 32
	FactorBpsMax     = 1_000_000 // a hundred times
	HoursBeforeMax   = 24 * 366 * 5
	DemandBpsMax     = 100_000 // ten times the capacity
	RoundMinorMax    = 1_000_000
)

// PricingRule says how the prices of an event follow its sales. Each tier's price is
//
//	base price x curve factor x time factor + step,
//
// rounded, and then no less than the floor and no more than the ceiling, nor than PriceMinorMax. Parts that are not given change nothing.
// Factors, floor and ceiling are in basis points: 10,000 is one. A value reached through a *PricingRule is shared and never modified.
//
// Prices are exact, and so the same on every machine. Only whole basis points of demand and whole hours count, a factor between two
// points is rounded down to a whole basis point, and the floor and the ceiling are rounded down to the minor unit; the product is rounded
// once.
type PricingRule struct {
	// Curve gives a factor by demand: the seats of the tier that are held, booked and waited for, in basis points of its capacity.
	// Between two points it is linear, beyond the ends constant. Demands ascend. A tier without seats has no demand.
	Curve []PricePoint
	// Time gives a factor by the whole hours until the event starts, in the same way. Hours ascend.
	Time []PricePoint
	// Step adds to the price for each full number of seats of the tier held or booked.
	Step PriceStep
	// FloorBps and CeilingBps bound the price, in basis points of the base price, 1 to FactorBpsMax; 0: no bound.
	FloorBps, CeilingBps int
	// RoundMinor rounds the price to a multiple, up to RoundMinorMax; 0 or 1: to the minor unit.
	RoundMinor int64
	Rounding   Rounding
}

// PricePoint is a corner of a curve.
type PricePoint struct {
	At        int // demand in basis points, 0 to DemandBpsMax, or hours, 0 to HoursBeforeMax
	FactorBps int // 0 to FactorBpsMax
}

// PriceStep is an addition for seats sold.
type PriceStep struct {
	EverySeats int   // 1 to CapacityMax; 0: none
	AddMinor   int64 // 0 to PriceMinorMax
}

// Rounding is which multiple a price is rounded to.
type Rounding uint8

// The values are stored; never renumber them.
const (
	RoundNearest Rounding = iota // halves away from zero
	RoundUp
	RoundDown
)

func (r Rounding) String() string {
	switch r {
	case RoundNearest:
		return "nearest"
	case RoundUp:
		return "up"
	case RoundDown:
		return "down"
	}
	return "Rounding(" + strconv.Itoa(int(r)) + ")"
}

// ParseRounding is the inverse of Rounding.String.
func ParseRounding(s string) (Rounding, error) {
	for r := RoundNearest; r <= RoundDown; r++ {
		if r.String() == s {
			return r, nil
		}
	}
	return 0, fmt.Errorf("parse rounding %.40q: not nearest, up or down", s)
}

// PriceBasis is what a tier's price depends on.
type PriceBasis struct {
	BasePriceMinor           int64
	Capacity, Taken, Waiting int           // seats: of the tier, held or booked, waited for
	StartsIn                 time.Duration // until the event starts; below zero: it has started
}

// Validate returns an *Error with CodeInvalidRequest that names every field out of its bounds, or nil.
// Field names are those of the HTTP API.
func (r *PricingRule) Validate() error {
	var fields FieldErrors
	fields.checkCurve("curve", "demand_bps", r.Curve, DemandBpsMax)
	fields.checkCurve("time", "hours_before", r.Time, HoursBeforeMax)
	switch {
	case r.Step.EverySeats < 0 || r.Step.EverySeats > CapacityMax:
		fields.Add("step.every_seats", fmt.Sprintf("must be 1 to %d; 0 is no step", CapacityMax))
	case r.Step.EverySeats == 0 && r.Step.AddMinor != 0:
		fields.Add("step.every_seats", "must be given with add_minor")
	}
	fields.checkRange("step.add_minor", r.Step.AddMinor, PriceMinorMax)
	fields.checkRange("floor_bps", int64(r.FloorBps), FactorBpsMax)
	fields.checkRange("ceiling_bps", int64(r.CeilingBps), FactorBpsMax)
	if r.CeilingBps > 0 && r.CeilingBps < r.FloorBps {
		fields.Add("ceiling_bps", "must not be below floor_bps")
	}
	fields.checkRange("round_minor", r.RoundMinor, RoundMinorMax)
	if r.Rounding > RoundDown {
		fields.Add("rounding", "must be nearest, up or down")
	}
	return fields.Err()
}

func (f *FieldErrors) checkCurve(field, at string, points []PricePoint, atMax int) {
	if len(points) > PricingPointsMax {
		f.Add(field, fmt.Sprintf("must have up to %d points", PricingPointsMax))
		return
	}
	for i, point := range points {
		place := fmt.Sprintf("%s[%d].", field, i)
		f.checkRange(place+at, int64(point.At), int64(atMax))
		f.checkRange(place+"factor_bps", int64(point.FactorBps), FactorBpsMax)
		if i > 0 && point.At <= points[i-1].At {
			f.Add(place+at, "must be greater than that of the point before")
		}
	}
}

func (f *FieldErrors) checkRange(field string, value, most int64) {
	if value < 0 || value > most {
		f.Add(field, fmt.Sprintf("must be 0 to %d", most))
	}
}

// Price is what a seat costs by a valid rule, in minor units from 0 to PriceMinorMax.
func (r *PricingRule) Price(basis PriceBasis) int64 {
	base := basis.BasePriceMinor
	price := r.rounded(base*int64(factorAt(r.Curve, basis.demandBps())), factorAt(r.Time, basis.hoursBefore()), r.added(basis.Taken))
	price = max(price, base*int64(r.FloorBps)/bpsOne)
	if r.CeilingBps > 0 {
		price = min(price, base*int64(r.CeilingBps)/bpsOne)
	}
	return min(price, PriceMinorMax)
}

// bpsOne is a factor of one.
const bpsOne = 10_000

// rounded is (scaled x factor / 10,000 / 10,000 + added) as the rule rounds it. Scaled is at most 10^18 and the factor 10^6: their product
// has 80 bits and the result fewer than 64.
func (r *PricingRule) rounded(scaled int64, factor int, added int64) int64 {
	const one = bpsOne * bpsOne
	hi, lo := bits.Mul64(uint64(scaled), uint64(factor))
	addedHi, addedLo := bits.Mul64(uint64(added), one)
	lo, carry := bits.Add64(lo, addedLo, 0)
	multiple := uint64(max(r.RoundMinor, 1))
	quotient, rest := bits.Div64(hi+addedHi+carry, lo, multiple*one)
	switch r.Rounding {
	case RoundNearest:
		if rest >= multiple*one-rest {
			quotient++
		}
	case RoundUp:
		if rest > 0 {
			quotient++
		}
	case RoundDown:
	}
	return int64(quotient * multiple)
}

// added is the sum of the steps. It stays below the bound of products, and beyond PriceMinorMax however it is rounded.
func (r *PricingRule) added(taken int) int64 {
	const most = PriceMinorMax + RoundMinorMax
	if r.Step.EverySeats == 0 {
		return 0
	}
	steps := int64(taken / r.Step.EverySeats)
	if steps > 0 && r.Step.AddMinor > most/steps {
		return most
	}
	return steps * r.Step.AddMinor
}

// demandBps is the seats taken and waited for, in basis points of the capacity.
func (b *PriceBasis) demandBps() int {
	if b.Capacity == 0 {
		return 0
	}
	return min((b.Taken+b.Waiting)*bpsOne/b.Capacity, DemandBpsMax)
}

func (b *PriceBasis) hoursBefore() int {
	return min(max(int(b.StartsIn/time.Hour), 0), HoursBeforeMax)
}

// factorAt is a curve's factor at a place in basis points, or one when the curve has no points.
func factorAt(curve []PricePoint, at int) int {
	if len(curve) == 0 {
		return bpsOne
	}
	if at <= curve[0].At {
		return curve[0].FactorBps
	}
	for i, right := range curve[1:] {
		if left := curve[i]; at < right.At {
			return (left.FactorBps*(right.At-at) + right.FactorBps*(at-left.At)) / (right.At - left.At)
		}
	}
	return curve[len(curve)-1].FactorBps
}
