package evently

import (
	"fmt"
	"maps"
	"slices"
)

// auditParts returns an error when the parts of a ledger disagree with each other.
func (l *Ledger) auditParts() error {
	s := &l.records
	held, live, ended, keyed, more := 0, 0, 0, 0, 0
	for slot := range s.used {
		r := s.at(slot)
		if r.token == 0 {
			continue
		}
		if found, ok := s.find(r.token); !ok || found != slot {
			return fmt.Errorf("record %d: its token leads to %d, %v", slot, found, ok)
		}
		if r.key != (Key{}) {
			keyed++
			if found, ok := s.findKey(r.key); !ok || found != slot {
				return fmt.Errorf("record %d: its key leads to %d, %v", slot, found, ok)
			}
		}
		if s.offers[r.offer].more {
			more++
		}
		switch {
		case r.status == Held:
			held++
			if err := l.due.audit(s, slot, s.expiresAt(slot)); err != nil {
				return fmt.Errorf("record %d: %w", slot, err)
			}
		case !r.status.Live():
			ended++
			if l.ended.of(r).slot != slot {
				return fmt.Errorf("record %d: the endings have %d there", slot, l.ended.of(r).slot)
			}
		}
		if r.status.Live() {
			live++
			if l.event.Status == EventCancelled && slot < l.swept {
				return fmt.Errorf("record %d: is live below the swept %d", slot, l.swept)
			}
		}
	}
	switch used := int(s.used) - len(s.free); {
	case live+ended != used, s.byToken.len != used, s.byKey.len != keyed, len(s.more) != more:
		return fmt.Errorf("%d live and %d ended in %d records: %d by token, %d of %d by key, %d of %d with more items",
			live, ended, used, s.byToken.len, s.byKey.len, keyed, len(s.more), more)
	case l.due.len() != held, len(l.due.heap.expires) != len(l.due.heap.slots), int(l.ended.next-l.ended.first) != ended, l.live != live:
		return fmt.Errorf("%d held, %d live, %d ended: %d are due, the endings are %d, the count is %d", held, live, ended,
			l.due.len(), l.ended.next-l.ended.first, l.live)
	}
	heap, queue := l.due.heap.expires, l.due.queue.expires
	for i := 1; i < len(heap); i++ {
		if parent := (i - 1) / dueArity; heap[parent] > heap[i] {
			return fmt.Errorf("due heap: %d at %d is later than %d at %d", heap[parent], parent, heap[i], i)
		}
	}
	if !slices.IsSorted(queue[l.due.queue.head:]) {
		return fmt.Errorf("due queue: %v is not in order", queue)
	}
	for i := l.ended.first + 1; l.ended.first != l.ended.next && i != l.ended.next; i++ {
		if before, after := l.ended.at(i-1), l.ended.at(i); before.seq >= after.seq || before.at > after.at {
			return fmt.Errorf("endings: %v stands before %v", *before, *after)
		}
	}
	if err := l.auditWaiters(); err != nil {
		return err
	}
	return l.auditUserSeats()
}

func (l *Ledger) auditWaiters() error {
	s := &l.waiters
	queued, ahead, late, keyed := 0, 0, 0, 0
	wanted := make([]int, len(l.tiers))
	for demand, queue := range s.queues {
		if queue.demand != demand || queue.line.Len() == 0 {
			return fmt.Errorf("queue %v: stands at %v with %d waiters", queue.demand, demand, queue.line.Len())
		}
		for i, w := range queue.line.waiters {
			if w.queue != queue || w.place != i || w.Status != Waiting || newDemand(&w.Items) != demand || s.byToken[w.ID.Token] != w ||
				i > 0 && !queue.line.waiters[(i-1)/2].precedes(w) {
				return fmt.Errorf("queue %v: %+v at place %d", demand, w, i)
			}
			queued++
			if w.Priority >= 0 {
				ahead++
			}
			for item := range w.Items.All() {
				wanted[item.Tier] += item.Quantity
			}
		}
	}
	for i := range l.tiers {
		if l.tiers[i].waiting != wanted[i] {
			return fmt.Errorf("tier %s: %d seats are waited for, counted %d", TierID(i), wanted[i], l.tiers[i].waiting)
		}
	}
	for token, w := range s.byToken {
		last := s.byUser[w.User]
		if w.ID.Token != token || last == nil || last.JoinedSeq < w.JoinedSeq || (w.Status == Waiting) != (w.queue != nil) {
			return fmt.Errorf("waiter %d: is %+v, the last of its user is %+v", token, w, last)
		}
		if w.key != (Key{}) {
			keyed++
			if s.byKey[w.key] != w {
				return fmt.Errorf("waiter %d: its key leads to %+v", token, s.byKey[w.key])
			}
		}
		if w.late {
			late++
		}
	}
	for user, w := range s.byUser {
		if w.User != user || s.byToken[w.ID.Token] != w {
			return fmt.Errorf("user %d: leads to %+v", user, w)
		}
	}
	if s.count != queued || s.ahead != ahead || len(s.byKey) != keyed || queued+late+len(s.ended) != len(s.byToken) {
		return fmt.Errorf("%d wait, %d ahead, %d have keys, %d late: counted %d and %d, %d by key, %d ended, %d in all", queued, ahead, keyed,
			late, s.count, s.ahead, len(s.byKey), len(s.ended), len(s.byToken))
	}
	return nil
}

func (l *Ledger) auditUserSeats() error {
	if (l.userSeats != nil) != (l.event.MaxPerUser > 0) {
		return fmt.Errorf("seats of users are counted: %v, with a limit of %d", l.userSeats != nil, l.event.MaxPerUser)
	}
	if l.userSeats == nil {
		return nil
	}
	seats := map[UserID]int{}
	for slot := range l.records.liveFrom(0) {
		items := l.records.items(slot)
		seats[l.records.at(slot).user] += items.Quantity()
	}
	for _, w := range l.waiters.byToken {
		if w.Status == Waiting {
			seats[w.User] += w.Items.Quantity()
		}
	}
	if !maps.Equal(seats, l.userSeats) {
		return fmt.Errorf("seats of users: %v, counted %v", seats, l.userSeats)
	}
	return nil
}
