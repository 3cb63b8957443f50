package evently

import "fmt"

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
			if l.due.slots[r.position] != slot || l.due.expires[r.position] != s.expiresAt(slot) {
				return fmt.Errorf("record %d: the due heap has %d there", slot, l.due.slots[r.position])
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
	case len(l.due.slots) != held, len(l.due.expires) != held, int(l.ended.next-l.ended.first) != ended, l.live != live:
		return fmt.Errorf("%d held, %d live, %d ended: the heap has %d, the endings %d, the count is %d", held, live, ended,
			len(l.due.slots), l.ended.next-l.ended.first, l.live)
	}
	for i := 1; i < len(l.due.expires); i++ {
		if parent := (i - 1) / dueArity; l.due.expires[parent] > l.due.expires[i] {
			return fmt.Errorf("due heap: %d at %d is later than %d at %d", l.due.expires[parent], parent, l.due.expires[i], i)
		}
	}
	for i := l.ended.first + 1; l.ended.first != l.ended.next && i != l.ended.next; i++ {
		if before, after := l.ended.at(i-1), l.ended.at(i); before.seq >= after.seq || before.at > after.at {
			return fmt.Errorf("endings: %v stands before %v", *before, *after)
		}
	}
	return nil
}
