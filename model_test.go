package evently

import (
	"slices"
	"time"
)

// model is what a ledger should be, written for being obviously right: a list of reservations that is searched from end
// to end, and no counter that is not counted again each time.
type model struct {
	event *Event
	seq   uint64
	at    time.Time
	list  []*modelReservation // all that the ledger should remember, in the order of booking
}

type modelReservation struct {
	Reservation
	key          Key
	first        Reservation // as it was when it was made
	confirmedSeq uint64
}

// modelDecision is what a ledger should decide. Where the ledger may choose which reservations it ends, and in which
// order, ends are all it may choose from.
type modelDecision struct {
	entries     []Entry
	reservation Reservation
	event       *Event
	replayed    bool
	err         *Error

	endKind EntryKind
	ends    []Token
}

func (m *model) find(token Token) *modelReservation {
	for _, r := range m.list {
		if r.ID.Token == token {
			return r
		}
	}
	return nil
}

func (m *model) findKey(key Key) *modelReservation {
	for _, r := range m.list {
		if r.key == key {
			return r
		}
	}
	return nil
}

func (m *model) live() (live []Token) {
	for _, r := range m.list {
		if r.Status == Held || r.Status == Confirmed {
			live = append(live, r.ID.Token)
		}
	}
	return live
}

func (m *model) count(tier int) TierAvailability {
	count := TierAvailability{Capacity: m.event.Tiers[tier].Capacity}
	for _, r := range m.list {
		for item := range r.Items.All() {
			switch {
			case item.Tier != tier:
			case r.Status == Held:
				count.Held += item.Quantity
			case r.Status == Confirmed:
				count.Booked += item.Quantity
			}
		}
	}
	return count
}

func (m *model) nextDue() time.Time {
	if m.event.Status == EventCancelled && len(m.live()) > 0 {
		return m.at
	}
	next := time.Time{}
	for _, r := range m.list {
		if r.Status == Held && (next.IsZero() || r.ExpiresAt.Before(next)) {
			next = r.ExpiresAt
		}
	}
	return next
}

func (m *model) decide(cmd Command, at time.Time) modelDecision {
	now := at.UTC().Truncate(time.Millisecond)
	if now.Before(m.at) {
		now = m.at
	}
	switch cmd := cmd.(type) {
	case *Book:
		return m.decideBook(cmd, now)
	case *Confirm:
		r := m.find(cmd.Token)
		switch {
		case r == nil || r.User != cmd.User:
			return modelDecision{err: ErrReservationNotFound}
		case r.Status == Cancelled:
			return modelDecision{err: ErrReservationCancelled}
		case r.Status == Expired:
			return modelDecision{err: ErrReservationExpired}
		case m.event.Status == EventCancelled:
			return modelDecision{err: ErrReservationCancelled}
		case r.Status == Confirmed:
			return modelDecision{reservation: r.Reservation}
		case !now.Before(r.ExpiresAt):
			return modelDecision{err: ErrReservationExpired}
		}
		after := r.Reservation
		after.Status, after.ConfirmedAt, after.Seq = Confirmed, now, m.seq+1
		return modelDecision{reservation: after, entries: []Entry{{Kind: ConfirmedEntry, Seq: m.seq + 1, At: now, Token: cmd.Token}}}
	case *Release:
		r := m.find(cmd.Token)
		switch {
		case r == nil || r.User != cmd.User:
			return modelDecision{err: ErrReservationNotFound}
		case r.Status == Confirmed:
			return modelDecision{err: ErrReservationConfirmed}
		case r.Status == Held:
			return m.decideEnd(r, now)
		}
		return modelDecision{reservation: r.Reservation}
	case *Cancel:
		r := m.find(cmd.Token)
		switch {
		case r == nil || r.User != cmd.User:
			return modelDecision{err: ErrReservationNotFound}
		case r.Status == Expired, r.Status == Held && !now.Before(r.ExpiresAt):
			return modelDecision{err: ErrReservationExpired}
		case r.Status == Cancelled:
			return modelDecision{reservation: r.Reservation}
		}
		return m.decideEnd(r, now)
	case *Expire:
		d := modelDecision{endKind: ExpiredEntry}
		for _, r := range m.list {
			if r.Status == Held && !now.Before(r.ExpiresAt) {
				d.ends = append(d.ends, r.ID.Token)
			}
		}
		return d
	case *Revise:
		return m.decideRevise(cmd, now)
	case *Publish:
		switch m.event.Status {
		case EventCancelled:
			return modelDecision{err: ErrEventCancelled}
		case EventPublished:
			return modelDecision{event: m.event}
		case EventDraft:
		}
		return m.decideEvent(EventPublishedEntry, now, func(e *Event) { e.Status = EventPublished })
	case *CancelEvent:
		if m.event.Status == EventCancelled {
			return modelDecision{event: m.event}
		}
		d := m.decideEvent(EventCancelledEntry, now, func(e *Event) { e.Status = EventCancelled })
		d.endKind, d.ends = CancelledEntry, m.live()
		return d
	case *Sweep:
		if m.event.Status == EventCancelled {
			return modelDecision{endKind: CancelledEntry, ends: m.live()}
		}
		return modelDecision{}
	}
	panic("unknown command")
}

func (m *model) decideBook(cmd *Book, now time.Time) modelDecision {
	if r := m.findKey(cmd.Key); r != nil {
		if r.User != cmd.User || !sameSeats(r.Items, cmd.Items) {
			return modelDecision{err: ErrKeyReused}
		}
		return modelDecision{reservation: r.first, replayed: r.ID.Token != cmd.Token}
	}
	if m.event.Status == EventDraft {
		return modelDecision{err: ErrEventNotFound}
	}
	end := m.event.StartsAt
	if !m.event.SalesEndAt.IsZero() && m.event.SalesEndAt.Before(end) {
		end = m.event.SalesEndAt
	}
	if m.event.Status != EventPublished || now.Before(m.event.SalesStartAt) || !now.Before(end) {
		return modelDecision{err: ErrEventNotOnSale}
	}
	var priced []Item
	quantity := 0
	var offered []int
	for i := range m.event.Tiers {
		if !m.event.Tiers[i].Retired {
			offered = append(offered, i)
		}
	}
	for item := range cmd.Items.All() {
		if item.Tier == OnlyTier {
			if len(offered) != 1 {
				return modelDecision{err: &Error{Code: CodeInvalidRequest}}
			}
			item.Tier = offered[0]
		}
		if item.Tier >= len(m.event.Tiers) || m.event.Tiers[item.Tier].Retired {
			return modelDecision{err: ErrUnknownTier}
		}
		quantity += item.Quantity
		item.UnitPriceMinor = m.event.Tiers[item.Tier].PriceMinor
		priced = append(priced, item)
	}
	if quantity > m.event.MaxPerBooking {
		return modelDecision{err: ErrQuantityExceedsLimit}
	}
	for _, item := range priced {
		if available := m.count(item.Tier).Available(); available < item.Quantity {
			return modelDecision{err: &Error{Code: CodeSoldOut, Detail: ErrSoldOut.Detail, Available: available}}
		}
	}
	r := Reservation{
		ID: ReservationID{m.event.ID, cmd.Token}, User: cmd.User, Status: Held, Items: mustItems(priced...), Currency: m.event.Currency,
		CreatedAt: now, ExpiresAt: now.Add(m.event.HoldTTL), Seq: m.seq + 1,
	}
	return modelDecision{reservation: r, entries: []Entry{{
		Kind: HeldEntry, Seq: r.Seq, At: now, Token: cmd.Token, User: cmd.User, Key: cmd.Key, Items: r.Items, ExpiresAt: r.ExpiresAt,
	}}}
}

func sameSeats(a, b Items) bool {
	of := func(items Items) map[int]int {
		seats := map[int]int{}
		for item := range items.All() {
			seats[item.Tier] = item.Quantity
		}
		return seats
	}
	inA, inB := of(a), of(b)
	if quantity, alone := inB[OnlyTier]; alone {
		return len(inA) == 1 && quantity == a.Quantity()
	}
	for tier, quantity := range inA {
		if inB[tier] != quantity {
			return false
		}
	}
	return len(inA) == len(inB)
}

func (m *model) decideEnd(r *modelReservation, now time.Time) modelDecision {
	after := r.Reservation
	after.Status, after.EndedAt, after.Seq = Cancelled, now, m.seq+1
	return modelDecision{reservation: after, entries: []Entry{{Kind: CancelledEntry, Seq: m.seq + 1, At: now, Token: r.ID.Token}}}
}

func (m *model) decideRevise(cmd *Revise, now time.Time) modelDecision {
	switch {
	case m.event.Status == EventCancelled:
		return modelDecision{err: ErrEventCancelled}
	case cmd.Version != m.event.Version:
		return modelDecision{err: ErrVersionStale}
	case cmd.Details.Currency != m.event.Currency:
		return modelDecision{err: &Error{Code: CodeInvalidRequest}}
	}
	for i := range m.event.Tiers {
		if count := m.count(i); cmd.Details.Tiers[i].Capacity < count.Held+count.Booked {
			return modelDecision{err: &Error{Code: CodeCapacityBelowSold}}
		}
	}
	return m.decideEvent(EventRevisedEntry, now, func(e *Event) {
		e.EventDetails = cmd.Details
		e.Tiers = nil
		for i, tier := range cmd.Details.Tiers {
			if i < len(m.event.Tiers) && tier.BasePriceMinor == m.event.Tiers[i].BasePriceMinor {
				tier.PriceMinor = m.event.Tiers[i].PriceMinor
			}
			e.Tiers = append(e.Tiers, tier)
		}
	})
}

func (m *model) decideEvent(kind EntryKind, now time.Time, change func(*Event)) modelDecision {
	event := *m.event
	event.Version++
	change(&event)
	return modelDecision{event: &event, entries: []Entry{{Kind: kind, Seq: m.seq + 1, At: now, Event: &event}}}
}

func (m *model) post(e *Entry) {
	m.seq = e.Seq
	m.at = e.At
	switch e.Kind {
	case HeldEntry:
		r := Reservation{
			ID: ReservationID{m.event.ID, e.Token}, User: e.User, Status: Held, Items: e.Items, Currency: m.event.Currency,
			CreatedAt: e.At, ExpiresAt: e.ExpiresAt, Seq: e.Seq,
		}
		m.list = append(m.list, &modelReservation{Reservation: r, first: r, key: e.Key})
	case ConfirmedEntry:
		r := m.find(e.Token)
		r.Status, r.ConfirmedAt, r.Seq, r.confirmedSeq = Confirmed, e.At, e.Seq, e.Seq
	case CancelledEntry:
		r := m.find(e.Token)
		r.Status, r.EndedAt, r.Seq = Cancelled, e.At, e.Seq
	case ExpiredEntry:
		r := m.find(e.Token)
		r.Status, r.EndedAt, r.Seq = Expired, e.At, e.Seq
	case EventRevisedEntry, EventPublishedEntry, EventCancelledEntry:
		m.event = e.Event
	default:
		panic(e.Kind.String())
	}
	m.list = slices.DeleteFunc(m.list, func(r *modelReservation) bool {
		return !r.EndedAt.IsZero() && !r.EndedAt.Add(KeyRetention).After(m.at)
	})
}
