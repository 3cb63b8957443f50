package evently

import "context"

// PriceRun asks for the events that have a pricing rule to be repriced.
type PriceRun struct {
	Event     EventID // that one alone; zero: all that are published and have not begun
	Organizer UserID  // those of one organizer alone; zero: everybody's
	DryRun    bool    // only tells what would change

	Who       UserID // who asks; zero: the system
	RequestID string // of the request that asks, or ""
	Trace     string // as in Request
}

// PriceChangesMax bounds the changes that a PriceReport lists.
const PriceChangesMax = 1000

// PriceReport tells what a PriceRun has changed, or would change.
type PriceReport struct {
	Changes  []PriceChange // the first PriceChangesMax
	Changed  int           // prices
	Examined int           // events, those that failed among them
	Failed   int           // events that could not be repriced now
}

// PriceChange is the change of the price of one tier.
type PriceChange struct {
	Event              EventID
	Tier               int // index in EventDetails.Tiers
	FromMinor, ToMinor int64
}

// Pricer reprices events.
type Pricer interface {
	// Run reprices one event after another and goes on after failures, which it counts. It returns an error, with nothing told of
	// what it has changed by then, when the events could not be listed or ctx ended.
	Run(ctx context.Context, run *PriceRun) (*PriceReport, error)
}
