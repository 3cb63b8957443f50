package evently

import (
	"fmt"
	"time"
)

// KeyRetention is how long the ledger remembers an ended reservation, and with it the answer to its idempotency key.
// The journal's port clears keys from storage after KeyRetentionMin; the ledger remembers longer, so that it never
// takes a key for new that storage still holds.
const (
	KeyRetentionMin = 24 * time.Hour
	KeyRetention    = KeyRetentionMin + 2*time.Hour
)

// Ledger is the state of one event: its seats, reservations and idempotency keys.
//
// It is pure: Decide turns a command into entries and changes nothing, Post applies an entry and decides nothing.
// Between two calls available + held + booked == capacity holds for every tier. A Ledger is not safe for concurrent use.
type Ledger struct {
	event *Event
	sales saleWindow
	seq   uint64
	at    int64 // milliseconds; time never runs backwards in a ledger
	tiers []tierCount

	records records
	due     due // the held reservations, soonest expiry first
	ended   endings
	live    int
	swept   uint32 // of a cancelled event: no slot below is live

	waiters   waiters
	userSeats map[UserID]int // held, booked and waited for; nil: the event has no limit for a user
}

// saleWindow is when an event that is published can be booked, in milliseconds: from the first on and before the second.
type saleWindow struct{ start, end int64 }

type tierCount struct{ capacity, available, held, booked, waiting int }

// Decision is what Decide found.
type Decision struct {
	// Entries record the change, to be posted in order; none: nothing changes. The slice is reused by the next Decide.
	Entries []Entry
	// Reservation answers Book, Confirm, Release and Cancel, and LeaveWaitlist when the waiter was served.
	Reservation Reservation
	// Event answers Revise, Publish, CancelEvent, SetPricing and Reprice.
	Event *Event
	// Waiter answers JoinWaitlist, LeaveWaitlist and Prioritize.
	Waiter *Waiter
	// Replayed: a Book or JoinWaitlist whose key was known; Reservation or Waiter is the first answer again.
	Replayed bool
}

// NewLedger returns the ledger of an event that has no reservation yet. The seed, random for each ledger, keeps clients from
// choosing idempotency keys that collide in its index.
func NewLedger(event *Event, seq uint64, at time.Time, seed uint64) *Ledger {
	l := &Ledger{seq: seq, at: at.UnixMilli(), records: newRecords(seed)}
	l.setEvent(event)
	return l
}

// RestoreSoon says that a reservation will be restored after a few others. It changes nothing and is not needed, but of many the ledger can
// look for the places of several at the same time.
func (l *Ledger) RestoreSoon(token Token, key Key) { l.records.touch(token, key) }

// Restore adds a reservation read from storage. Its entries are already counted in the ledger's seq.
// Ended ones are restored in the order of their ending; the live ones at any time between them.
// It returns an error when the reservation does not fit the event, or itself: the storage is damaged.
func (l *Ledger) Restore(r *Reservation, createdSeq, confirmedSeq uint64, key Key) error {
	if _, found := l.records.find(r.ID.Token); found || r.ID.Token == 0 {
		return fmt.Errorf("restore reservation %s: stands twice, or has no token", r.ID)
	}
	confirmed, live := !r.ConfirmedAt.IsZero(), r.Status.Live()
	if confirmed != (confirmedSeq != 0) || live != r.EndedAt.IsZero() ||
		r.Status != Cancelled && confirmed != (r.Status == Confirmed) ||
		confirmed && (r.ConfirmedAt.Before(r.CreatedAt) || !r.ConfirmedAt.Before(r.ExpiresAt)) {
		return fmt.Errorf("restore reservation %s: %s, created %v, expiring %v, confirmed %v (entry %d), ended %v", r.ID, r.Status,
			r.CreatedAt, r.ExpiresAt, r.ConfirmedAt, confirmedSeq, r.EndedAt)
	}
	for i := range r.Items.Len() {
		if tier := r.Items.At(i).Tier; tier >= len(l.tiers) {
			return fmt.Errorf("restore reservation %s: no tier %s", r.ID, TierID(tier))
		}
	}
	slot := l.hold(r.ID.Token, r.User, key, r.Items, r.CreatedAt.UnixMilli(), r.ExpiresAt.UnixMilli(), createdSeq)
	if confirmed {
		l.confirm(slot, r.ConfirmedAt.UnixMilli(), confirmedSeq)
	}
	if !live {
		l.end(slot, r.Status, r.EndedAt.UnixMilli(), r.Seq)
	}
	for i := range l.tiers {
		if l.tiers[i].available < 0 {
			return fmt.Errorf("restore reservation %s: tier %s is oversold by %d", r.ID, TierID(i), -l.tiers[i].available)
		}
	}
	return nil
}

// Decide finds what a command changes at a moment, without changing it. It fills d, and returns an *Error when the command is
// refused. The entries it gives are not yet attributed: the caller sets Who and RequestID.
func (l *Ledger) Decide(cmd Command, at time.Time, d *Decision) error {
	*d = Decision{Entries: d.Entries[:0]}
	now := max(at.UnixMilli(), l.at)
	switch cmd := cmd.(type) {
	case *Book:
		return l.decideBook(cmd, now, d)
	case *Confirm:
		return l.decideConfirm(cmd, now, d)
	case *Release:
		return l.decideRelease(cmd, now, d)
	case *Cancel:
		return l.decideCancel(cmd, now, d)
	case *Expire:
		l.decideExpire(now, d)
		return nil
	case *JoinWaitlist:
		return l.decideJoin(cmd, now, d)
	case *LeaveWaitlist:
		return l.decideLeave(cmd, now, d)
	case *Prioritize:
		return l.decidePrioritize(cmd, now, d)
	case *Revise:
		return l.decideRevise(cmd, now, d)
	case *Publish:
		return l.decidePublish(now, d)
	case *CancelEvent:
		l.decideCancelEvent(now, d)
		return nil
	case *Sweep:
		l.decideSweep(now, d)
		return nil
	case *SetPricing:
		return l.decideSetPricing(cmd, now, d)
	case *Reprice:
		return l.decideReprice(cmd, now, d)
	}
	panic(fmt.Sprintf("ledger: unknown command %T", cmd))
}

func (l *Ledger) decideBook(cmd *Book, now int64, d *Decision) error {
	if slot, found := l.records.findKey(cmd.Key); found {
		first := l.records.at(slot)
		items := l.records.items(slot)
		if first.user != cmd.User || !items.SameSeats(&cmd.Items) {
			return ErrKeyReused
		}
		l.fillHeld(&d.Reservation, slot)
		d.Replayed = first.token != cmd.Token // the same token: the same request on its way once more
		return nil
	}
	items := cmd.Items
	if err := l.admit(&items, now); err != nil {
		return err
	}
	if err := l.withinUserLimit(&items, cmd.User); err != nil {
		return err
	}
	if err := l.available(&items); err != nil {
		return err
	}
	items = items.priced(l.event.Tiers)
	entry := l.entry(HeldEntry, now, d)
	entry.Token, entry.User, entry.Key, entry.Items = cmd.Token, cmd.User, cmd.Key, items
	entry.ExpiresAt = entry.At.Add(l.event.HoldTTL)
	d.Reservation = Reservation{
		ID: ReservationID{l.event.ID, cmd.Token}, User: cmd.User, Status: Held, Items: items, Currency: l.event.Currency,
		CreatedAt: entry.At, ExpiresAt: entry.ExpiresAt, Seq: entry.Seq,
	}
	return nil
}

// admit puts the event's only tier in the place of OnlyTier and checks what anybody may ask for, whatever is free.
func (l *Ledger) admit(items *Items, now int64) error {
	switch {
	case l.event.Status == EventDraft:
		return ErrEventNotFound // nobody is to know of a draft
	case l.event.Status != EventPublished || now < l.sales.start || now >= l.sales.end:
		return ErrEventNotOnSale
	}
	if items.first.Tier == OnlyTier {
		tier, sole := SoleTier(l.event.Tiers)
		if !sole {
			return FieldErrors{{"items", "is required instead of quantity: the event has more than one tier"}}.Err()
		}
		items.first.Tier = tier
	}
	for i := range items.Len() {
		item := items.At(i)
		if item.Tier >= len(l.tiers) || l.event.Tiers[item.Tier].Retired {
			return ErrUnknownTier
		}
	}
	if items.Quantity() > l.event.MaxPerBooking {
		return ErrQuantityExceedsLimit
	}
	return nil
}

// available returns ErrSoldOut, with the free seats of the tier that ran out, unless all items can be had.
func (l *Ledger) available(items *Items) error {
	for i := range items.Len() {
		item := items.At(i)
		switch available := l.tiers[item.Tier].available; {
		case item.Quantity <= available:
		case available == 0:
			return ErrSoldOut
		default:
			return &Error{Code: CodeSoldOut, Detail: ErrSoldOut.Detail, Available: available}
		}
	}
	return nil
}

func (l *Ledger) decideConfirm(cmd *Confirm, now int64, d *Decision) error {
	slot, err := l.owned(cmd.Token, cmd.User)
	if err != nil {
		return err
	}
	record := l.records.at(slot)
	switch {
	case record.status == Cancelled, record.status.Live() && l.event.Status == EventCancelled:
		return ErrReservationCancelled
	case record.status == Expired, record.status == Held && l.records.expiresAt(slot) <= now:
		return ErrReservationExpired
	}
	l.fill(&d.Reservation, slot)
	if record.status == Held {
		entry := l.entry(ConfirmedEntry, now, d)
		entry.Token = cmd.Token
		d.Reservation.Status, d.Reservation.ConfirmedAt, d.Reservation.Seq = Confirmed, entry.At, entry.Seq
	}
	return nil
}

func (l *Ledger) decideRelease(cmd *Release, now int64, d *Decision) error {
	slot, err := l.owned(cmd.Token, cmd.User)
	if err != nil {
		return err
	}
	record := l.records.at(slot)
	if record.status == Confirmed {
		return ErrReservationConfirmed
	}
	l.fill(&d.Reservation, slot)
	if record.status == Held {
		l.decideEnd(cmd.Token, now, d)
	}
	return nil
}

func (l *Ledger) decideCancel(cmd *Cancel, now int64, d *Decision) error {
	slot, err := l.owned(cmd.Token, cmd.User)
	if err != nil {
		return err
	}
	record := l.records.at(slot)
	if record.status == Expired || record.status == Held && l.records.expiresAt(slot) <= now {
		return ErrReservationExpired
	}
	l.fill(&d.Reservation, slot)
	if record.status.Live() {
		l.decideEnd(cmd.Token, now, d)
	}
	return nil
}

func (l *Ledger) decideEnd(token Token, now int64, d *Decision) {
	entry := l.entry(CancelledEntry, now, d)
	entry.Token = token
	d.Reservation.Status, d.Reservation.EndedAt, d.Reservation.Seq = Cancelled, entry.At, entry.Seq
	l.serve(now, d)
}

func (l *Ledger) decideExpire(now int64, d *Decision) {
	for slot := range l.due.until(now, SweepMax) {
		l.entry(ExpiredEntry, now, d).Token = l.records.at(slot).token
	}
	if l.event.Status == EventCancelled || now >= l.event.SalesEnd().UnixMilli() {
		l.closeWaitlist(now, d)
	} else {
		l.serve(now, d)
	}
}

// entry appends an entry with the next number.
func (l *Ledger) entry(kind EntryKind, now int64, d *Decision) *Entry {
	d.Entries = append(d.Entries, Entry{Kind: kind, Seq: l.seq + 1 + uint64(len(d.Entries)), At: time.UnixMilli(now).UTC()})
	return &d.Entries[len(d.Entries)-1]
}

func (l *Ledger) owned(token Token, user UserID) (slot uint32, err error) {
	slot, found := l.records.find(token)
	if !found || l.records.at(slot).user != user {
		return 0, ErrReservationNotFound
	}
	return slot, nil
}

// Post applies an entry. It panics when the entry does not follow from the state: the journal and the ledger disagree.
func (l *Ledger) Post(e *Entry) {
	if e.Seq != l.seq+1 {
		panic(fmt.Sprintf("ledger: event %s: entry %d posted after %d", l.event.ID, e.Seq, l.seq))
	}
	l.seq = e.Seq
	l.at = max(l.at, e.At.UnixMilli())
	switch e.Kind {
	case HeldEntry:
		if _, found := l.records.find(e.Token); found || e.Token == 0 {
			panic(fmt.Sprintf("ledger: event %s: entry %d holds token %d twice, or none", l.event.ID, e.Seq, e.Token))
		}
		if e.Waiter {
			l.served(e)
		}
		l.hold(e.Token, e.User, e.Key, e.Items, e.At.UnixMilli(), e.ExpiresAt.UnixMilli(), e.Seq)
	case ConfirmedEntry:
		l.confirm(l.mustFind(e), e.At.UnixMilli(), e.Seq)
	case CancelledEntry:
		l.end(l.mustFind(e), Cancelled, e.At.UnixMilli(), e.Seq)
	case ExpiredEntry:
		l.end(l.mustFind(e), Expired, e.At.UnixMilli(), e.Seq)
	case WaitlistedEntry:
		l.joins(e)
	case WaiterPrioritizedEntry:
		l.prioritize(e)
	case WaiterLeftEntry:
		l.endWaiter(e, Left)
	case WaiterClosedEntry:
		l.endWaiter(e, Closed)
	case EventCreatedEntry, EventRevisedEntry, EventPublishedEntry, EventCancelledEntry, EventPricingSetEntry, EventRepricedEntry:
		l.setEvent(e.Event)
	default:
		panic(fmt.Sprintf("ledger: event %s: entry %d of unknown kind %d", l.event.ID, e.Seq, e.Kind))
	}
	l.ended.forget(&l.records, l.at-KeyRetention.Milliseconds())
	if len(l.waiters.ended) > 0 {
		l.forgetWaiters(l.at - KeyRetention.Milliseconds())
	}
}

func (l *Ledger) mustFind(e *Entry) uint32 {
	slot, found := l.records.find(e.Token)
	if !found {
		panic(fmt.Sprintf("ledger: event %s: entry %d (%s) of an unknown reservation", l.event.ID, e.Seq, e.Kind))
	}
	return slot
}

func (l *Ledger) hold(token Token, user UserID, key Key, items Items, createdAt, expiresAt int64, seq uint64) uint32 {
	for i := range items.Len() {
		item := items.At(i)
		tier := &l.tiers[item.Tier]
		tier.available -= item.Quantity
		tier.held += item.Quantity
	}
	slot := l.records.add(token, user, key, &items, createdAt, expiresAt, seq)
	l.due.push(&l.records, slot, expiresAt)
	l.live++
	l.waiters.lessFit()
	l.addUserSeats(user, &items, 1)
	return slot
}

func (l *Ledger) confirm(slot uint32, at int64, seq uint64) {
	record := l.records.at(slot)
	if record.status != Held {
		panic(fmt.Sprintf("ledger: event %s: entry %d confirms a reservation that is %s", l.event.ID, seq, record.status))
	}
	l.due.remove(&l.records, slot)
	record.confirm(at, seq)
	items := l.records.items(slot)
	for i := range items.Len() {
		item := items.At(i)
		tier := &l.tiers[item.Tier]
		tier.held -= item.Quantity
		tier.booked += item.Quantity
	}
	l.waiters.settled(record.token)
}

func (l *Ledger) end(slot uint32, status ReservationStatus, at int64, seq uint64) {
	record := l.records.at(slot)
	if !record.status.Live() {
		panic(fmt.Sprintf("ledger: event %s: entry %d ends a reservation that is %s", l.event.ID, seq, record.status))
	}
	items := l.records.items(slot)
	for i := range items.Len() {
		item := items.At(i)
		tier := &l.tiers[item.Tier]
		tier.available += item.Quantity
		if record.status == Held {
			tier.held -= item.Quantity
		} else {
			tier.booked -= item.Quantity
		}
	}
	if record.status == Held {
		l.due.remove(&l.records, slot)
		l.waiters.settled(record.token)
	}
	record.status = status
	l.ended.add(record, slot, at, seq)
	l.live--
	l.waiters.fit = fitUnknown
	l.addUserSeats(record.user, &items, -1)
	if l.event.Status == EventCancelled {
		for l.swept < l.records.used && !l.records.live(l.swept) {
			l.swept++
		}
	}
}

func (l *Ledger) setEvent(event *Event) {
	l.event = event
	l.sales = saleWindow{event.SalesStartAt.UnixMilli(), event.SalesEnd().UnixMilli()} // an event's times are whole milliseconds
	l.resizeTiers()
	l.countUserSeats()
}

func (l *Ledger) resizeTiers() {
	for len(l.tiers) < len(l.event.Tiers) {
		l.tiers = append(l.tiers, tierCount{})
	}
	for i := range l.tiers {
		tier := &l.tiers[i]
		tier.available += l.event.Tiers[i].Capacity - tier.capacity
		tier.capacity = l.event.Tiers[i].Capacity
	}
	l.waiters.fit = fitUnknown
}

// fill sets r to a reservation as it is.
func (l *Ledger) fill(r *Reservation, slot uint32) {
	l.fillHeld(r, slot)
	record := l.records.at(slot)
	r.Status = record.status
	if record.confirmed() {
		r.ConfirmedAt, r.Seq = time.UnixMilli(record.confirmedAt()).UTC(), uint64(record.confirmedSeq.int64())
	}
	if !record.status.Live() {
		ending := l.ended.of(record)
		r.EndedAt, r.Seq = time.UnixMilli(ending.at).UTC(), ending.seq
	}
}

// fillHeld sets r to a reservation as it was when it was made.
func (l *Ledger) fillHeld(r *Reservation, slot uint32) {
	record := l.records.at(slot)
	*r = Reservation{
		ID: ReservationID{l.event.ID, record.token}, User: record.user, Status: Held, Items: l.records.items(slot),
		Currency: l.event.Currency, CreatedAt: time.UnixMilli(record.createdAt.int64()).UTC(),
		ExpiresAt: time.UnixMilli(l.records.expiresAt(slot)).UTC(), Seq: uint64(record.createdSeq.int64()),
	}
}

// Reservation returns a reservation as it is. The ledger knows all live ones, and ended ones for KeyRetention.
func (l *Ledger) Reservation(token Token) (r Reservation, found bool) {
	slot, found := l.records.find(token)
	if found {
		l.fill(&r, slot)
	}
	return r, found
}

// Event returns the event as it is.
func (l *Ledger) Event() *Event { return l.event }

// Seq is the number of the last entry.
func (l *Ledger) Seq() uint64 { return l.seq }

// Live is the number of reservations that occupy seats.
func (l *Ledger) Live() int { return l.live }

// NextDue is the moment from which Expire, or Sweep on a cancelled event, has something to do; zero: never.
func (l *Ledger) NextDue() time.Time {
	if l.event.Status == EventCancelled && (l.live > 0 || l.waiters.count > 0) {
		return time.UnixMilli(l.at).UTC()
	}
	next, found := l.due.first()
	if l.waiters.count > 0 {
		if due := l.waitersDue(); !found || due < next {
			next, found = due, true
		}
	}
	if !found {
		return time.Time{}
	}
	return time.UnixMilli(next).UTC()
}

// Check returns an error when available + held + booked == capacity, or a count's sign, does not hold for a tier, or when the seats that
// are waited for do not go with the number of those who wait. It costs O(tiers).
func (l *Ledger) Check() error {
	wanted := 0
	for i := range l.tiers {
		t := &l.tiers[i]
		wanted += t.waiting
		if t.available < 0 || t.held < 0 || t.booked < 0 || t.available+t.held+t.booked != t.capacity {
			return fmt.Errorf("ledger: event %s tier %s: %d available + %d held + %d booked of %d", l.event.ID, TierID(i),
				t.available, t.held, t.booked, t.capacity)
		}
		if t.waiting < 0 {
			return fmt.Errorf("ledger: event %s tier %s: %d seats are waited for", l.event.ID, TierID(i), t.waiting)
		}
	}
	if n := l.waiters.count; n < 0 || wanted < n || wanted > n*MaxPerBookingMax || l.waiters.ahead < 0 || l.waiters.ahead > n {
		return fmt.Errorf("ledger: event %s: %d wait for %d seats, %d of them with a priority of 0 or more", l.event.ID, n, wanted, l.waiters.ahead)
	}
	return nil
}

// Availability returns the seat counts. It reuses the Tiers of a.
func (l *Ledger) Availability(a *Availability) {
	*a = Availability{Event: l.event.ID, Seq: l.seq, Tiers: a.Tiers[:0], Waiting: l.waiters.count}
	for _, t := range l.tiers {
		a.Add(TierAvailability{Capacity: t.capacity, Held: t.held, Booked: t.booked})
	}
}
