package evently

import (
	"fmt"
	"time"
)

// RestoreWaiter adds a waiter read from storage, after the reservations: all that wait, in any order; those that ended less than
// KeyRetention ago or serve a reservation that is held, in the order of their Seq. The key may be zero: storage has cleared it.
// It returns an error when the waiter does not fit the event, or itself: the storage is damaged.
func (l *Ledger) RestoreWaiter(w *Waiter, key Key) error {
	switch _, found := l.waiters.byToken[w.ID.Token]; {
	case found || w.ID.Token == 0:
		return fmt.Errorf("restore waiter %s: stands twice, or has no token", w.ID)
	case w.Status > Closed || (w.Status == Waiting) != w.EndedAt.IsZero() || w.JoinedSeq == 0 || w.JoinedSeq > w.Seq || w.Position < 1 ||
		w.EndedAt.Before(w.JoinedAt) && w.Status != Waiting || w.Priority < -PriorityMax || w.Priority > PriorityMax:
		return fmt.Errorf("restore waiter %s: %s at position %d with priority %d, joined %v (entry %d), ended %v (entry %d)", w.ID, w.Status,
			w.Position, w.Priority, w.JoinedAt, w.JoinedSeq, w.EndedAt, w.Seq)
	}
	for item := range w.Items.All() {
		if item.Tier >= len(l.tiers) {
			return fmt.Errorf("restore waiter %s: no tier %s", w.ID, TierID(item.Tier))
		}
	}
	if w.Status == Waiting {
		if last := l.waiters.byUser[w.User]; last != nil && last.Status == Waiting {
			return fmt.Errorf("restore waiter %s: user %s waits as %s too", w.ID, w.User, last.ID)
		}
		if _, found := l.records.find(w.ID.Token); found {
			return fmt.Errorf("restore waiter %s: waits, and has a reservation", w.ID)
		}
	}
	l.addWaiter(&waiter{Waiter: *w, key: key})
	return nil
}

// Waiter returns a waiter as it is. The ledger knows all who wait, and those who ended for KeyRetention and for as long as their offer is
// held.
func (l *Ledger) Waiter(token Token) (w Waiter, found bool) {
	known, found := l.waiters.byToken[token]
	if found {
		w = known.Waiter
	}
	return w, found
}

// Waiting is the number of waiters that wait.
func (l *Ledger) Waiting() int { return l.waiters.count }

func (l *Ledger) decideJoin(cmd *JoinWaitlist, now int64, d *Decision) error {
	if known, found := l.waiters.byKey[cmd.Key]; found {
		if known.User != cmd.User || known.OnRelease != cmd.OnRelease || !known.Items.SameSeats(&cmd.Items) {
			return ErrKeyReused
		}
		first := known.Waiter
		first.Status, first.Priority, first.EndedAt, first.Seq = Waiting, 0, time.Time{}, first.JoinedSeq
		d.Waiter = &first
		d.Replayed = first.ID.Token != cmd.Token
		return nil
	}
	items := cmd.Items
	if err := l.admit(&items, now); err != nil {
		return err
	}
	for item := range items.All() {
		if item.Quantity > l.tiers[item.Tier].capacity {
			return ErrQuantityExceedsLimit
		}
	}
	if err := l.withinUserLimit(&items, cmd.User); err != nil {
		return err
	}
	last := l.waiters.byUser[cmd.User]
	switch {
	case l.available(&items) == nil:
		return ErrSeatsAvailable
	case last != nil && last.Status == Waiting:
		return ErrAlreadyWaiting
	case l.waiters.count >= WaitersMax:
		return ErrWaitlistFull
	}
	entry := l.entry(WaitlistedEntry, now, d)
	entry.Token, entry.User, entry.Key, entry.OnRelease = cmd.Token, cmd.User, cmd.Key, cmd.OnRelease
	entry.Items, entry.Position = items.unpriced(), l.waiters.ahead+1
	joined := l.joined(entry)
	d.Waiter = &joined
	return nil
}

// joined is the waiter that a WaitlistedEntry makes.
func (l *Ledger) joined(e *Entry) Waiter {
	return Waiter{
		ID: WaiterID{l.event.ID, e.Token}, User: e.User, Items: e.Items, OnRelease: e.OnRelease, Position: e.Position,
		JoinedAt: e.At, JoinedSeq: e.Seq, Seq: e.Seq,
	}
}

func (l *Ledger) decideLeave(cmd *LeaveWaitlist, now int64, d *Decision) error {
	known := l.waiters.byUser[cmd.User]
	if known == nil {
		return ErrWaiterNotFound
	}
	w := known.Waiter
	d.Waiter = &w
	if w.Status == Waiting {
		entry := l.entry(WaiterLeftEntry, now, d)
		entry.Token = w.ID.Token
		w.Status, w.EndedAt, w.Seq = Left, entry.At, entry.Seq
		return nil
	}
	if slot, found := l.records.find(w.ID.Token); found && w.Status == Served {
		l.fill(&d.Reservation, slot)
		if d.Reservation.Status == Held {
			l.decideEnd(w.ID.Token, now, d)
		}
	}
	return nil
}

func (l *Ledger) decidePrioritize(cmd *Prioritize, now int64, d *Decision) error {
	known := l.waiters.byToken[cmd.Token]
	switch {
	case known == nil:
		return ErrWaiterNotFound
	case known.Status != Waiting:
		return ErrNotWaiting
	}
	w := known.Waiter
	d.Waiter = &w
	if w.Priority != cmd.Priority {
		entry := l.entry(WaiterPrioritizedEntry, now, d)
		entry.Token, entry.Priority = w.ID.Token, cmd.Priority
		w.Priority, w.Seq = cmd.Priority, entry.Seq
	}
	return nil
}

// serve gives the seats that are free after the entries of a decision to those who wait for them, at the prices after it. At most
// SweepMax are served; NextDue says whether more can be.
func (l *Ledger) serve(now int64, d *Decision) {
	if l.waiters.count == 0 {
		return
	}
	event := l.event
	for i := range d.Entries {
		if d.Entries[i].Event != nil {
			event = d.Entries[i].Event
		}
	}
	if !event.OnSale(time.UnixMilli(now)) {
		return
	}
	if len(d.Entries) == 0 && !l.fits() {
		return
	}
	free := l.freeAfter(event, d)
	served := 0
	for w := range l.waiters.next(&free) {
		free.add(&w.Items, -1)
		entry := l.entry(HeldEntry, now, d)
		entry.Token, entry.User, entry.Items, entry.Waiter = w.ID.Token, w.User, w.Items.priced(event.Tiers), true
		entry.ExpiresAt = entry.At.Add(event.HoldTTL)
		if w.OnRelease == BookOnRelease {
			l.entry(ConfirmedEntry, now, d).Token = w.ID.Token
		}
		if served++; served == SweepMax {
			return
		}
	}
}

// freeAfter counts the free seats after the entries of a decision, and a revision among them.
func (l *Ledger) freeAfter(event *Event, d *Decision) (free freeSeats) {
	for i := range event.Tiers {
		free[i] = event.Tiers[i].Capacity
		if i < len(l.tiers) {
			free[i] -= l.tiers[i].held + l.tiers[i].booked
		}
	}
	for i := range d.Entries {
		if e := &d.Entries[i]; e.Kind == CancelledEntry || e.Kind == ExpiredEntry {
			items := l.records.items(l.mustFind(e))
			free.add(&items, 1)
		}
	}
	return free
}

// closeWaitlist ends the waiting of up to SweepMax waiters.
func (l *Ledger) closeWaitlist(now int64, d *Decision) {
	if l.waiters.count == 0 {
		return
	}
	closed := 0
	for w := range l.waiters.next(nil) {
		l.entry(WaiterClosedEntry, now, d).Token = w.ID.Token
		if closed++; closed == SweepMax {
			return
		}
	}
}

// waitersDue is the moment from which Expire serves or closes somebody who waits, of an event that is not cancelled.
func (l *Ledger) waitersDue() int64 {
	end := l.event.SalesEnd().UnixMilli()
	if l.event.Status == EventPublished && l.fits() {
		return min(end, max(l.at, l.event.SalesStartAt.UnixMilli()))
	}
	return end
}

// fits reports whether free seats suffice for somebody who waits.
func (l *Ledger) fits() bool {
	s := &l.waiters
	if s.fit == fitUnknown {
		s.fit = fitNobody
		free := l.freeAfter(l.event, &Decision{})
		for range s.next(&free) {
			s.fit = fitSomebody
			break
		}
	}
	return s.fit == fitSomebody
}

// joins posts a WaitlistedEntry.
func (l *Ledger) joins(e *Entry) {
	_, known := l.waiters.byToken[e.Token]
	_, held := l.records.find(e.Token)
	if last := l.waiters.byUser[e.User]; known || held || e.Token == 0 || last != nil && last.Status == Waiting {
		panic(fmt.Sprintf("ledger: event %s: entry %d of token %d: known, without a token, or the user waits already", l.event.ID, e.Seq, e.Token))
	}
	l.addWaiter(&waiter{Waiter: l.joined(e), key: e.Key})
}

func (l *Ledger) addWaiter(w *waiter) {
	if w.Status == Waiting {
		l.addWaiting(&w.Items, 1)
		l.addUserSeats(w.User, &w.Items, 1)
	}
	l.waiters.add(w)
}

// served posts a HeldEntry's part of the waitlist.
func (l *Ledger) served(e *Entry) {
	if w := l.mustWait(e); w.User != e.User || !w.Items.SameSeats(&e.Items) {
		panic(fmt.Sprintf("ledger: event %s: entry %d serves user %s with %d seats, but %s waits for %d", l.event.ID, e.Seq, e.User,
			e.Items.Quantity(), w.User, w.Items.Quantity()))
	}
	l.endWaiter(e, Served)
}

// endWaiter posts the end of somebody's waiting.
func (l *Ledger) endWaiter(e *Entry, status WaiterStatus) {
	w := l.mustWait(e)
	l.waiters.dequeue(w)
	w.Status, w.EndedAt, w.Seq = status, e.At, e.Seq
	l.waiters.ended = append(l.waiters.ended, w)
	l.addWaiting(&w.Items, -1)
	l.addUserSeats(w.User, &w.Items, -1)
}

// forgetWaiters drops those who ended at or before a moment. One whose offer is still held is dropped when that is settled.
func (l *Ledger) forgetWaiters(before int64) {
	s := &l.waiters
	for len(s.ended) > 0 && s.ended[0].EndedAt.UnixMilli() <= before {
		w := s.ended[0]
		s.ended[0] = nil
		s.ended = s.ended[1:]
		slot, found := l.records.find(w.ID.Token)
		if w.late = found && l.records.at(slot).status == Held; !w.late {
			s.drop(w)
		}
	}
}

func (l *Ledger) prioritize(e *Entry) {
	w := l.mustWait(e)
	l.waiters.dequeue(w)
	w.Priority, w.Seq = e.Priority, e.Seq
	l.waiters.enqueue(w)
}

func (l *Ledger) mustWait(e *Entry) *waiter {
	w := l.waiters.byToken[e.Token]
	if w == nil || w.Status != Waiting {
		panic(fmt.Sprintf("ledger: event %s: entry %d (%s) of token %d, which does not wait", l.event.ID, e.Seq, e.Kind, e.Token))
	}
	return w
}

func (l *Ledger) addWaiting(items *Items, sign int) {
	for i := range items.Len() {
		item := items.At(i)
		l.tiers[item.Tier].waiting += sign * item.Quantity
	}
}
