package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

// offer is what a booking has to know of its event, besides what is free.
type offer struct {
	event                  evently.EventID
	status                 evently.EventStatus
	salesStartAt, salesEnd time.Time
	holdTTL                time.Duration
	maxPerBooking          int
	limited                bool // seats of one user are
	currency               string
	tiers                  []tier
	sole                   int // index of the only tier on offer, or -1

	turns chan struct{} // has as many as there are bookings under way; nil: they are not bounded. See Design.Turns
	full  atomic.Bool   // the last booking found it sold out
	due   atomic.Int64  // no hold is past its time before this, in milliseconds; for designs whose rows do not know
}

type tier struct {
	capacity int
	price    int64
	retired  bool
	cursor   atomic.Int64 // for skipLocked: from which ticket on to look for free ones
}

func newOffer(event *evently.Event, turns int) *offer {
	o := &offer{
		event: event.ID, status: event.Status, salesStartAt: event.SalesStartAt, salesEnd: event.SalesEnd(), holdTTL: event.HoldTTL,
		maxPerBooking: event.MaxPerBooking, limited: event.MaxPerUser > 0, currency: event.Currency, tiers: make([]tier, len(event.Tiers)),
		sole: -1,
	}
	if turns > 0 {
		o.turns = make(chan struct{}, turns)
	}
	for i, t := range event.Tiers {
		to := &o.tiers[i]
		to.capacity, to.price, to.retired = t.Capacity, t.PriceMinor, t.Retired
	}
	if sole, ok := evently.SoleTier(event.Tiers); ok {
		o.sole = sole
	}
	return o
}

// admit checks what anybody may ask for, as Evently's ledger does and in its order, and fills b.
func (o *offer) admit(b *booking, items *evently.Items) error {
	switch {
	case o.status == evently.EventDraft:
		return evently.ErrEventNotFound
	case o.status != evently.EventPublished || b.at.Before(o.salesStartAt) || !b.at.Before(o.salesEnd):
		return evently.ErrEventNotOnSale
	case items.Len() != 1 || o.limited:
		return fmt.Errorf("peers: several tiers in one booking, or a limit for users: %w", errors.ErrUnsupported)
	}
	item := items.At(0)
	if item.Tier == evently.OnlyTier {
		if o.sole < 0 {
			return evently.FieldErrors{{Field: "items", Message: "is required instead of quantity: the event has more than one tier"}}.Err()
		}
		item.Tier = o.sole
	}
	switch {
	case item.Tier >= len(o.tiers) || o.tiers[item.Tier].retired:
		return evently.ErrUnknownTier
	case item.Quantity > o.maxPerBooking:
		return evently.ErrQuantityExceedsLimit
	}
	b.tier, b.quantity, b.price, b.until = item.Tier, item.Quantity, o.tiers[item.Tier].price, b.at.Add(o.holdTTL)
	return nil
}

// offersMax bounds the events that are known; each takes some 300 bytes.
const offersMax = 300_000

// offers caches events until the database signals that they changed.
type offers struct {
	pool      *pgxpool.Pool
	catalogue *store.Catalogue
	turns     int      // of each
	known     sync.Map // evently.EventID to *offer
	count     atomic.Int64
	changes   atomic.Int64 // since the start
	stop      func()
}

func newOffers(pool *pgxpool.Pool, turns int) *offers {
	o := &offers{pool: pool, catalogue: store.NewCatalogue(pool), turns: turns}
	listener := store.NewListener(pool, store.Handlers{EventChanged: o.forget, Resumed: o.clear}, slog.New(slog.DiscardHandler), nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { listener.Run(ctx) })
	o.stop = func() {
		cancel()
		running.Wait()
	}
	return o
}

func (o *offers) get(ctx context.Context, id evently.EventID) (*offer, error) {
	if known, found := o.known.Load(id); found {
		return known.(*offer), nil
	}
	changes := o.changes.Load()
	state, err := o.catalogue.State(ctx, id)
	if err != nil {
		return nil, err
	}
	loaded := newOffer(state.Event, o.turns)
	if o.changes.Load() != changes {
		return loaded, nil // it may be of before the change
	}
	if o.count.Load() >= offersMax {
		o.clear()
	}
	known, found := o.known.LoadOrStore(id, loaded)
	if !found {
		o.count.Add(1)
	}
	if o.changes.Load() != changes {
		o.forget(id)
	}
	return known.(*offer), nil
}

func (o *offers) forget(id evently.EventID) {
	o.changes.Add(1)
	if _, found := o.known.LoadAndDelete(id); found {
		o.count.Add(-1)
	}
}

func (o *offers) clear() {
	o.changes.Add(1)
	o.known.Clear()
	o.count.Store(0)
}

const moveSQL = `update events set status = $3, version = version + 1 where event_id = $1 and status = $2`

// move changes the status of an event, or leaves it if it has not the status before.
func (o *offers) move(ctx context.Context, id evently.EventID, from, to evently.EventStatus) (evently.Reply, error) {
	if _, err := o.pool.Exec(ctx, moveSQL, int64(id), from, to); err != nil {
		return evently.Reply{}, err
	}
	o.forget(id)
	state, err := o.catalogue.State(ctx, id)
	if err != nil {
		return evently.Reply{}, err
	}
	return evently.Reply{Event: state.Event}, nil
}
