package http

import (
	"fmt"

	"github.com/evently/evently"
)

// pricingJSON is the rule of an event with what it does to the prices.
type pricingJSON struct {
	EventID  string           `json:"event_id"`
	Currency string           `json:"currency"`
	Rule     *pricingRuleJSON `json:"rule"` // null: prices are those that the organizer set
	Tiers    []tierPriceJSON  `json:"tiers"`
}

type tierPriceJSON struct {
	TierID         string `json:"tier_id"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
	NextPriceMinor int64  `json:"next_price_minor"` // that the rule gives at this moment
}

// pricingRuleJSON is a rule as it is answered. It can be sent back as it is.
type pricingRuleJSON struct {
	Curve      []demandPointJSON `json:"curve"`
	Time       []timePointJSON   `json:"time"`
	Step       *priceStepJSON    `json:"step"`
	FloorBps   *int              `json:"floor_bps"`
	CeilingBps *int              `json:"ceiling_bps"`
	RoundMinor int64             `json:"round_minor"`
	Rounding   string            `json:"rounding"`
}

type demandPointJSON struct {
	DemandBps int `json:"demand_bps"`
	FactorBps int `json:"factor_bps"`
}

type timePointJSON struct {
	HoursBefore int `json:"hours_before"`
	FactorBps   int `json:"factor_bps"`
}

type priceStepJSON struct {
	EverySeats int   `json:"every_seats"`
	AddMinor   int64 `json:"add_minor"`
}

func newPricingJSON(rule *evently.PricingRule, now, next *evently.Event) *pricingJSON {
	body := &pricingJSON{
		EventID: now.ID.String(), Currency: now.Currency, Rule: newPricingRuleJSON(rule), Tiers: make([]tierPriceJSON, 0, len(now.Tiers)),
	}
	for i, tier := range now.Tiers {
		if !tier.Retired {
			body.Tiers = append(body.Tiers, tierPriceJSON{evently.TierID(i), tier.BasePriceMinor, tier.PriceMinor, next.Tiers[i].PriceMinor})
		}
	}
	return body
}

func newPricingRuleJSON(rule *evently.PricingRule) *pricingRuleJSON {
	if rule == nil {
		return nil
	}
	body := &pricingRuleJSON{
		Curve: make([]demandPointJSON, len(rule.Curve)), Time: make([]timePointJSON, len(rule.Time)),
		FloorBps: optionalInt(rule.FloorBps), CeilingBps: optionalInt(rule.CeilingBps),
		RoundMinor: max(rule.RoundMinor, 1), Rounding: rule.Rounding.String(),
	}
	for i, point := range rule.Curve {
		body.Curve[i] = demandPointJSON{point.At, point.FactorBps}
	}
	for i, point := range rule.Time {
		body.Time[i] = timePointJSON{point.At, point.FactorBps}
	}
	if rule.Step.EverySeats != 0 {
		body.Step = &priceStepJSON{rule.Step.EverySeats, rule.Step.AddMinor}
	}
	return body
}

// optionalInt is nil, and so null in JSON, for 0.
func optionalInt(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// pricingRuleBody is the body of PUT /admin/events/{id}/pricing. What is left out changes no price.
type pricingRuleBody struct {
	Curve []struct {
		DemandBps *int `json:"demand_bps"`
		FactorBps *int `json:"factor_bps"`
	} `json:"curve"`
	Time []struct {
		HoursBefore *int `json:"hours_before"`
		FactorBps   *int `json:"factor_bps"`
	} `json:"time"`
	Step *struct {
		EverySeats *int   `json:"every_seats"`
		AddMinor   *int64 `json:"add_minor"`
	} `json:"step"`
	FloorBps   *int    `json:"floor_bps"`
	CeilingBps *int    `json:"ceiling_bps"`
	RoundMinor *int64  `json:"round_minor"`
	Rounding   *string `json:"rounding"`
}

// rule returns the valid rule that the body describes, or an *evently.Error with CodeInvalidRequest that names every field that
// is wrong.
func (b *pricingRuleBody) rule() (*evently.PricingRule, error) {
	rule := new(evently.PricingRule)
	var wrong evently.FieldErrors
	for i, point := range b.Curve {
		at := fmt.Sprintf("curve[%d].", i)
		rule.Curve = append(rule.Curve, evently.PricePoint{
			At: given(point.DemandBps, at+"demand_bps", &wrong), FactorBps: given(point.FactorBps, at+"factor_bps", &wrong),
		})
	}
	for i, point := range b.Time {
		at := fmt.Sprintf("time[%d].", i)
		rule.Time = append(rule.Time, evently.PricePoint{
			At: given(point.HoursBefore, at+"hours_before", &wrong), FactorBps: given(point.FactorBps, at+"factor_bps", &wrong),
		})
	}
	if b.Step != nil {
		rule.Step = evently.PriceStep{
			EverySeats: outOfZero(given(b.Step.EverySeats, "step.every_seats", &wrong)),
			AddMinor:   given(b.Step.AddMinor, "step.add_minor", &wrong),
		}
	}
	if b.FloorBps != nil {
		rule.FloorBps = *b.FloorBps
	}
	if b.CeilingBps != nil {
		rule.CeilingBps = *b.CeilingBps
	}
	if b.RoundMinor != nil {
		rule.RoundMinor = *b.RoundMinor
	}
	if b.Rounding != nil {
		rounding, err := evently.ParseRounding(*b.Rounding)
		if err != nil {
			wrong.Add("rounding", "must be nearest, up or down")
		}
		rule.Rounding = rounding
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return rule, rule.Validate()
}

// given returns a number that has to be there.
func given[N int | int64](n *N, field string, wrong *evently.FieldErrors) N {
	if n == nil {
		wrong.Add(field, "is required")
		return 0
	}
	return *n
}

// pricingRunJSON is the outcome of POST /admin/pricing/run.
type pricingRunJSON struct {
	Data     []priceChangeJSON `json:"data"`
	Changed  int               `json:"changed"`
	Examined int               `json:"examined"`
	Failed   int               `json:"failed"`
	DryRun   bool              `json:"dry_run"`
}

type priceChangeJSON struct {
	EventID   string `json:"event_id"`
	TierID    string `json:"tier_id"`
	FromMinor int64  `json:"from_minor"`
	ToMinor   int64  `json:"to_minor"`
}

func newPricingRunJSON(report *evently.PriceReport, dryRun bool) *pricingRunJSON {
	body := &pricingRunJSON{
		Data: make([]priceChangeJSON, len(report.Changes)), Changed: report.Changed, Examined: report.Examined, Failed: report.Failed,
		DryRun: dryRun,
	}
	for i, change := range report.Changes {
		body.Data[i] = priceChangeJSON{change.Event.String(), evently.TierID(change.Tier), change.FromMinor, change.ToMinor}
	}
	return body
}
