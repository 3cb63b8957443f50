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
	queue []*modelWaiter      // the same of those who wait or have waited, in the order of joining
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
	waiter      *Waiter
	replayed    bool
	err         *Error

	endKind EntryKind
	ends    []Token
	then    func(after *model) []Entry // what comes of the entries so far, which are posted to after
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
	if m.event.Status == EventCancelled && len(m.live())+len(m.waiting()) > 0 {
		return m.at
	}
	next := time.Time{}
	for _, r := range m.list {
		if r.Status == Held && (next.IsZero() || r.ExpiresAt.Before(next)) {
			next = r.ExpiresAt
		}
	}
	if len(m.waiting()) > 0 {
		due := m.salesEnd()
		if served := laterOf(m.at, m.event.SalesStartAt); m.nextServed() != nil && served.Before(due) {
			due = served
		}
		if next.IsZero() || due.Before(next) {
			next = due
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
		d.then = func(after *model) []Entry { return after.serve(now) }
		if m.event.Status == EventCancelled || !now.Before(m.salesEnd()) {
			d.then = func(after *model) []Entry { return after.close(now) }
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
		d.then = func(after *model) []Entry { return after.close(now) }
		return d
	case *Sweep:
		if m.event.Status == EventCancelled {
			return modelDecision{
				endKind: CancelledEntry, ends: m.live(), then: func(after *model) []Entry { return after.close(now) },
			}
		}
		return modelDecision{}
	case *JoinWaitlist:
		return m.decideJoin(cmd, now)
	case *LeaveWaitlist:
		return m.decideLeave(cmd, now)
	case *Prioritize:
		return m.decidePrioritize(cmd, now)
	case *SetPricing:
		return m.decideSetPricing(cmd, now)
	case *Reprice:
		return m.decideReprice(cmd, now)
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
	priced, refusal := m.admit(cmd.Items, now)
	switch {
	case refusal != nil:
		return modelDecision{err: refusal}
	case m.beyondLimit(cmd.User, cmd.Items):
		return modelDecision{err: ErrUserLimitExceeded}
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

// admit refuses what cannot be asked for whatever is free, and else returns the items at the prices of now.
func (m *model) admit(asked Items, now time.Time) (priced []Item, refusal *Error) {
	if m.event.Status == EventDraft {
		return nil, ErrEventNotFound
	}
	if !m.onSale(now) {
		return nil, ErrEventNotOnSale
	}
	quantity := 0
	var offered []int
	for i := range m.event.Tiers {
		if !m.event.Tiers[i].Retired {
			offered = append(offered, i)
		}
	}
	for item := range asked.All() {
		if item.Tier == OnlyTier {
			if len(offered) != 1 {
				return nil, &Error{Code: CodeInvalidRequest}
			}
			item.Tier = offered[0]
		}
		if item.Tier >= len(m.event.Tiers) || m.event.Tiers[item.Tier].Retired {
			return nil, ErrUnknownTier
		}
		quantity += item.Quantity
		item.UnitPriceMinor = m.event.Tiers[item.Tier].PriceMinor
		priced = append(priced, item)
	}
	if quantity > m.event.MaxPerBooking {
		return nil, ErrQuantityExceedsLimit
	}
	return priced, nil
}

func (m *model) beyondLimit(user UserID, asked Items) bool {
	seats := asked.Quantity()
	for _, r := range m.list {
		if r.User == user && r.EndedAt.IsZero() {
			seats += r.Items.Quantity()
		}
	}
	for _, w := range m.queue {
		if w.User == user && w.EndedAt.IsZero() {
			seats += w.Items.Quantity()
		}
	}
	return m.event.MaxPerUser > 0 && seats > m.event.MaxPerUser
}

func (m *model) salesEnd() time.Time {
	if !m.event.SalesEndAt.IsZero() && m.event.SalesEndAt.Before(m.event.StartsAt) {
		return m.event.SalesEndAt
	}
	return m.event.StartsAt
}

func (m *model) onSale(now time.Time) bool {
	return m.event.Status == EventPublished && !now.Before(m.event.SalesStartAt) && now.Before(m.salesEnd())
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
	return modelDecision{
		reservation: after, entries: []Entry{{Kind: CancelledEntry, Seq: m.seq + 1, At: now, Token: r.ID.Token}},
		then: func(after *model) []Entry { return after.serve(now) },
	}
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
	d := m.decideEvent(EventRevisedEntry, now, func(e *Event) {
		e.EventDetails = cmd.Details
		e.Tiers = nil
		for i, tier := range cmd.Details.Tiers {
			if i < len(m.event.Tiers) && tier.BasePriceMinor == m.event.Tiers[i].BasePriceMinor {
				tier.PriceMinor = m.event.Tiers[i].PriceMinor
			}
			e.Tiers = append(e.Tiers, tier)
		}
	})
	d.then = func(after *model) []Entry { return after.serve(now) }
	return d
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
		if e.Waiter {
			m.endWaiter(e, Served)
		}
	case ConfirmedEntry:
		r := m.find(e.Token)
		r.Status, r.ConfirmedAt, r.Seq, r.confirmedSeq = Confirmed, e.At, e.Seq, e.Seq
	case CancelledEntry:
		r := m.find(e.Token)
		r.Status, r.EndedAt, r.Seq = Cancelled, e.At, e.Seq
	case ExpiredEntry:
		r := m.find(e.Token)
		r.Status, r.EndedAt, r.Seq = Expired, e.At, e.Seq
	case WaitlistedEntry:
		w := Waiter{
			ID: WaiterID{m.event.ID, e.Token}, User: e.User, Items: e.Items, OnRelease: e.OnRelease, Position: e.Position, Status: Waiting,
			JoinedAt: e.At, JoinedSeq: e.Seq, Seq: e.Seq,
		}
		m.queue = append(m.queue, &modelWaiter{Waiter: w, first: w, key: e.Key})
	case WaiterPrioritizedEntry:
		w := m.findWaiter(e.Token)
		w.Priority, w.Seq = e.Priority, e.Seq
	case WaiterLeftEntry:
		m.endWaiter(e, Left)
	case WaiterClosedEntry:
		m.endWaiter(e, Closed)
	case EventRevisedEntry, EventPublishedEntry, EventCancelledEntry, EventPricingSetEntry, EventRepricedEntry:
		m.event = e.Event
	default:
		panic(e.Kind.String())
	}
	m.list = slices.DeleteFunc(m.list, func(r *modelReservation) bool {
		return !r.EndedAt.IsZero() && !r.EndedAt.Add(KeyRetention).After(m.at)
	})
	m.queue = slices.DeleteFunc(m.queue, func(w *modelWaiter) bool {
		r := m.find(w.ID.Token)
		return !w.EndedAt.IsZero() && !w.EndedAt.Add(KeyRetention).After(m.at) && (r == nil || r.Status != Held)
	})
}
