package peers

import (
	"context"

	"github.com/evently/evently"
)

// Catalogue returns the events of a catalogue with the seats that the design counts: not all of them do it on the event's row.
func (p *Peer) Catalogue(of evently.Catalogue) evently.Catalogue { return &catalogue{of, p} }

type catalogue struct {
	evently.Catalogue
	peer *Peer
}

// State implements evently.Catalogue.
func (c *catalogue) State(ctx context.Context, id evently.EventID) (*evently.State, error) {
	state, err := c.Catalogue.State(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.counted(ctx, state)
}

// States implements evently.Catalogue.
func (c *catalogue) States(ctx context.Context, filter evently.EventFilter, page evently.Page) (
	states []*evently.State, next *evently.Cursor, err error,
) {
	states, next, err = c.Catalogue.States(ctx, filter, page)
	for i := range states {
		if states[i], err = c.counted(ctx, states[i]); err != nil {
			return nil, nil, err
		}
	}
	return states, next, err
}

func (c *catalogue) counted(ctx context.Context, state *evently.State) (*evently.State, error) {
	held, booked, err := c.peer.design.counts(ctx, newOffer(state.Event, 0))
	if err != nil {
		return nil, failed(err, state.Event.ID)
	}
	if held == nil {
		return state, nil
	}
	counted := &evently.State{Event: state.Event, Availability: evently.Availability{
		Event: state.Availability.Event, Seq: state.Seq, AsOf: state.AsOf,
	}}
	for i := range held {
		counted.Add(evently.TierAvailability{Capacity: state.Event.Tiers[i].Capacity, Held: held[i], Booked: booked[i]})
	}
	return counted, nil
}
