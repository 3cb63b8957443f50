package evently

import (
	"fmt"
	"slices"
	"time"
)

func (l *Ledger) decideRevise(cmd *Revise, now int64, d *Decision) error {
	switch {
	case l.event.Status == EventCancelled:
		return ErrEventCancelled
	case cmd.Version != l.event.Version:
		return ErrVersionStale
	}
	if len(cmd.Details.Tiers) < len(l.tiers) {
		panic(fmt.Sprintf("ledger: revision of %s to %d tiers of %d", l.event.ID, len(cmd.Details.Tiers), len(l.tiers)))
	}
	var fields FieldErrors
	if cmd.Details.Currency != l.event.Currency {
		fields.Add("currency", "cannot change: reservations are priced in it")
		return fields.Err()
	}
	for i, count := range l.tiers {
		if sold := count.held + count.booked; cmd.Details.Tiers[i].Capacity < sold {
			fields.Add(fmt.Sprintf("tiers[%d].capacity", i), fmt.Sprintf("is below the %d seats held or booked", sold))
		}
	}
	if len(fields) > 0 {
		return &Error{Code: CodeCapacityBelowSold, Detail: "The capacity is below the seats held or booked.", Fields: fields}
	}
	event := *l.event
	event.EventDetails = cmd.Details
	event.Tiers = slices.Clone(cmd.Details.Tiers)
	for i, before := range l.event.Tiers {
		if tier := &event.Tiers[i]; tier.BasePriceMinor == before.BasePriceMinor {
			tier.PriceMinor = before.PriceMinor
		}
	}
	l.decideEvent(EventRevisedEntry, &event, now, d)
	l.serve(now, d)
	return nil
}

func (l *Ledger) decidePublish(now int64, d *Decision) error {
	switch l.event.Status {
	case EventCancelled:
		return ErrEventCancelled
	case EventPublished:
		d.Event = l.event
		return nil
	case EventDraft:
	}
	event := *l.event
	event.Status = EventPublished
	l.decideEvent(EventPublishedEntry, &event, now, d)
	return nil
}

func (l *Ledger) decideCancelEvent(now int64, d *Decision) {
	if l.event.Status == EventCancelled {
		d.Event = l.event
		return
	}
	event := *l.event
	event.Status = EventCancelled
	l.decideEvent(EventCancelledEntry, &event, now, d)
	l.cancelLive(now, d)
	l.closeWaitlist(now, d)
}

func (l *Ledger) decideEvent(kind EntryKind, event *Event, now int64, d *Decision) {
	event.Version++
	l.entry(kind, now, d).Event = event
	d.Event = event
}

func (l *Ledger) decideSweep(now int64, d *Decision) {
	if l.event.Status == EventCancelled {
		l.cancelLive(now, d)
		l.closeWaitlist(now, d)
	}
}

func (l *Ledger) cancelLive(now int64, d *Decision) {
	left := min(l.live, SweepMax)
	for slot := range l.records.liveFrom(l.swept) {
		if left == 0 {
			return
		}
		l.entry(CancelledEntry, now, d).Token = l.records.at(slot).token
		left--
	}
}

func (l *Ledger) decideSetPricing(cmd *SetPricing, now int64, d *Decision) error {
	switch {
	case l.event.Status == EventCancelled:
		return ErrEventCancelled
	case cmd.Version != l.event.Version:
		return ErrVersionStale
	}
	event := l.repriced(cmd.Rule, now)
	event.Pricing = cmd.Rule
	if cmd.DryRun {
		d.Event = event
	} else {
		l.decideEvent(EventPricingSetEntry, event, now, d)
	}
	return nil
}

func (l *Ledger) decideReprice(cmd *Reprice, now int64, d *Decision) error {
	if l.event.Status == EventCancelled {
		return ErrEventCancelled
	}
	d.Event = l.event
	if l.event.Pricing == nil || l.event.Status != EventPublished || now >= l.event.StartsAt.UnixMilli() {
		return nil
	}
	event := l.repriced(l.event.Pricing, now)
	switch {
	case slices.Equal(event.Tiers, l.event.Tiers):
	case cmd.DryRun:
		d.Event = event
	default:
		l.decideEvent(EventRepricedEntry, event, now, d)
	}
	return nil
}

// repriced returns the event with the prices that a rule gives now, or with the base prices when there is none.
func (l *Ledger) repriced(rule *PricingRule, now int64) *Event {
	event := *l.event
	event.Tiers = slices.Clone(l.event.Tiers)
	for i := range event.Tiers {
		tier, count := &event.Tiers[i], &l.tiers[i]
		tier.PriceMinor = tier.BasePriceMinor
		if rule != nil {
			tier.PriceMinor = rule.Price(PriceBasis{
				BasePriceMinor: tier.BasePriceMinor, Capacity: count.capacity, Taken: count.held + count.booked, Waiting: count.waiting,
				StartsIn: event.StartsAt.Sub(time.UnixMilli(now)),
			})
		}
	}
	return &event
}
