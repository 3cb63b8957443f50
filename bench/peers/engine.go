package peers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently"
)

// design decides who gets seats. What is asked of it is right in itself: the event is on sale and has the tier.
type design interface {
	// book holds seats and sets b.seq. If the key is known it returns its reservation, as first answered, instead. It returns an
	// evently.ErrSoldOut, also with the number of free seats.
	book(ctx context.Context, b *booking) (first *evently.Reservation, err error)
	// known returns the reservation of a key as first answered, or nil.
	known(ctx context.Context, o *offer, key evently.Key) (*evently.Reservation, error)
	// change moves a reservation on if that can be, and returns it as it then is, or evently.ErrReservationNotFound. A hold that is
	// past its time is returned as expired.
	change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error)
	// counts returns the seats held and booked by tier; nil: they are those of the event's head.
	counts(ctx context.Context, o *offer) (held, booked []int, err error)
}

// booking is a request for seats of one tier.
type booking struct {
	offer     *offer
	tier      int
	quantity  int
	price     int64 // of a seat
	token     evently.Token
	user      evently.UserID
	key       evently.Key
	at, until time.Time
	seq       uint64 // set by the design
}

// change is what a user wants of a reservation.
type change struct {
	token evently.Token
	user  evently.UserID
	want  want
	at    time.Time
}

// want is how a reservation is to go on. SQL knows the numbers.
type want int

const (
	look    want = 0 // as it is
	confirm want = 1
	release want = 2
	cancel  want = 3
)

// Peer is the engine of a design.
type Peer struct {
	design design
	events *offers
	now    func() time.Time
	stop   func() error
}

var _ evently.Engine = (*Peer)(nil)

func newPeer(d design, r *resources, turns int) *Peer {
	events := newOffers(r.pool, turns)
	return &Peer{design: d, events: events, now: time.Now, stop: func() error {
		events.stop()
		return r.close()
	}}
}

// Close ends the engine. The pool is the caller's.
func (p *Peer) Close() error { return p.stop() }

// Do implements evently.Engine for Book, Confirm, Release, Cancel, Publish and CancelEvent. Expire does nothing: holds end when their
// seats are wanted. Other commands are an errors.ErrUnsupported.
func (p *Peer) Do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	reply, err := p.do(ctx, request)
	if err != nil {
		return evently.Reply{}, failed(err, request.Event)
	}
	return reply, nil
}

func (p *Peer) do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	switch cmd := request.Command.(type) {
	case *evently.Book:
		return p.book(ctx, request.Event, cmd)
	case *evently.Confirm:
		return p.change(ctx, request.Event, &change{token: cmd.Token, user: cmd.User, want: confirm})
	case *evently.Release:
		return p.change(ctx, request.Event, &change{token: cmd.Token, user: cmd.User, want: release})
	case *evently.Cancel:
		return p.change(ctx, request.Event, &change{token: cmd.Token, user: cmd.User, want: cancel})
	case *evently.Publish:
		return p.events.move(ctx, request.Event, evently.EventDraft, evently.EventPublished)
	case *evently.CancelEvent:
		return p.events.move(ctx, request.Event, evently.EventPublished, evently.EventCancelled)
	case *evently.Expire:
		return evently.Reply{}, nil
	}
	return evently.Reply{}, fmt.Errorf("peers: %T: %w", request.Command, errors.ErrUnsupported)
}

func (p *Peer) book(ctx context.Context, event evently.EventID, cmd *evently.Book) (evently.Reply, error) {
	offer, err := p.events.get(ctx, event)
	if err != nil {
		return evently.Reply{}, err
	}
	b := booking{offer: offer, token: cmd.Token, user: cmd.User, key: cmd.Key, at: p.clock()}
	var first *evently.Reservation
	if refusal := offer.admit(&b, &cmd.Items); refusal != nil {
		// A key that is known is answered whatever became of the event.
		if first, err = p.design.known(ctx, offer, cmd.Key); err == nil && first == nil {
			err = refusal
		}
	} else {
		first, err = p.decide(ctx, &b)
	}
	switch {
	case err != nil:
		return evently.Reply{}, err
	case first == nil:
		return evently.Reply{Reservation: b.held()}, nil
	case first.User != cmd.User || !first.Items.SameSeats(&cmd.Items):
		return evently.Reply{}, evently.ErrKeyReused
	}
	return evently.Reply{Reservation: *first, Replayed: first.ID.Token != cmd.Token}, nil
}

// decide has the design book, when it is the booking's turn. Refusals of an event that is sold out wait for nobody.
func (p *Peer) decide(ctx context.Context, b *booking) (*evently.Reservation, error) {
	o := b.offer
	if o.turns != nil && !o.full.Load() {
		select {
		case o.turns <- struct{}{}:
			if o.full.Load() { // by now: nor do those wait any longer who stand behind
				<-o.turns
			} else {
				defer func() { <-o.turns }()
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	first, err := p.design.book(ctx, b)
	if full := errors.Is(err, evently.ErrSoldOut); full != o.full.Load() {
		o.full.Store(full)
	}
	return first, err
}

// clock is the time in the precision of the tables.
func (p *Peer) clock() time.Time { return p.now().UTC().Truncate(time.Millisecond) }

// held is the reservation that answers a booking.
func (b *booking) held() evently.Reservation {
	return evently.Reservation{
		ID:   evently.ReservationID{Event: b.offer.event, Token: b.token},
		User: b.user, Status: evently.Held, Currency: b.offer.currency,
		Items:     evently.OneItem(evently.Item{Tier: b.tier, Quantity: b.quantity, UnitPriceMinor: b.price}),
		CreatedAt: b.at, ExpiresAt: b.until, Seq: b.seq,
	}
}

func (p *Peer) change(ctx context.Context, event evently.EventID, c *change) (evently.Reply, error) {
	offer, err := p.events.get(ctx, event)
	switch {
	case errors.Is(err, evently.ErrEventNotFound):
		return evently.Reply{}, evently.ErrReservationNotFound
	case err != nil:
		return evently.Reply{}, err
	}
	c.at = p.clock()
	over := c.want == confirm && offer.status == evently.EventCancelled
	if over {
		c.want = look
	}
	r, err := p.design.change(ctx, offer, c)
	switch {
	case err != nil:
		return evently.Reply{}, err
	case over && r.Status != evently.Expired:
		return evently.Reply{}, evently.ErrReservationCancelled
	}
	if err := refused(c.want, r.Status); err != nil {
		return evently.Reply{}, err
	}
	return evently.Reply{Reservation: *r}, nil
}

// refused tells why a reservation that has a status after all did not go where it was to go.
func refused(want want, status evently.ReservationStatus) error {
	switch {
	case want == confirm && status == evently.Cancelled:
		return evently.ErrReservationCancelled
	case want != release && status == evently.Expired:
		return evently.ErrReservationExpired
	case want == release && status == evently.Confirmed:
		return evently.ErrReservationConfirmed
	}
	return nil
}

// soldOut is the refusal of who asked for more than a tier has.
func soldOut(free int64) error {
	if free <= 0 {
		return evently.ErrSoldOut
	}
	return &evently.Error{Code: evently.CodeSoldOut, Detail: evently.ErrSoldOut.Detail, Available: int(free)}
}

// failed makes what went wrong an error of the port: an evently.ErrUnavailable unless it is a refusal or a defect.
func failed(err error, event evently.EventID) error {
	var refusal *evently.Error
	var pg *pgconn.PgError
	if errors.As(err, &refusal) || errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if errors.As(err, &pg) && !strings.HasPrefix(pg.Code, "08") && !strings.HasPrefix(pg.Code, "40") &&
		!strings.HasPrefix(pg.Code, "53") && !strings.HasPrefix(pg.Code, "57") {
		return fmt.Errorf("event %s: %w", event, err)
	}
	return fmt.Errorf("%w: event %s: %w", evently.ErrUnavailable, event, err)
}

// sequence gives rows their order where no row of the event counts them.
type sequence struct{ last atomic.Uint64 }

// newSequence begins with the time, so that it goes on where the one before ended.
func newSequence() *sequence {
	s := new(sequence)
	s.last.Store(uint64(time.Now().UnixMicro()))
	return s
}

func (s *sequence) next() uint64 { return s.last.Add(1) }
