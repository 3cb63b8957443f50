package evently

import "time"

// Availability is the seat counts of an event after the entry Seq.
type Availability struct {
	Event   EventID
	Seq     uint64
	AsOf    time.Time // when these counts were known to be the committed ones
	Tiers   []TierAvailability
	Waiting int // entries of the waitlist that wait
	totals  TierAvailability
}

// TierAvailability is the seat counts of a tier.
type TierAvailability struct{ Capacity, Held, Booked int }

// Available is the number of free seats.
func (t TierAvailability) Available() int { return t.Capacity - t.Held - t.Booked }

// Add appends a tier's counts.
func (a *Availability) Add(tier TierAvailability) {
	a.Tiers = append(a.Tiers, tier)
	a.totals.Capacity += tier.Capacity
	a.totals.Held += tier.Held
	a.totals.Booked += tier.Booked
}

// Totals are the counts over all tiers.
func (a *Availability) Totals() TierAvailability { return a.totals }

// State is an event with its seat counts, both committed. It is shared and never modified.
type State struct {
	Event *Event
	Availability
}
