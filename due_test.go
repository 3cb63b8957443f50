package evently

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// dueRecords returns records with n holds, of which each knows its place in a heap.
func dueRecords(n int) *records {
	s := newRecords(1)
	items := OneItem(seats(0, 1))
	for i := range uint64(n) {
		s.add(Token(spread(i)), 1, Key{}, &items, 0, 1, 1)
	}
	return &s
}

// dueSet is what holds are kept in.
type dueSet interface {
	first() (expiresAt int64, found bool)
	push(s *records, slot uint32, expiresAt int64)
	remove(s *records, slot uint32)
	until(now int64, limit int) iter.Seq[uint32]
	audit(s *records, slot uint32, expiresAt int64) error
}

func (h *dueHeap) until(now int64, limit int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) { h.walk(now, limit, yield) }
}

func (h *dueHeap) audit(s *records, slot uint32, expiresAt int64) error {
	if i := s.at(slot).position; h.slots[i] != slot || h.expires[i] != expiresAt {
		return fmt.Errorf("slot %d, which expires at %d: the heap has %d and %d there", slot, expiresAt, h.slots[i], h.expires[i])
	}
	return nil
}

func (q *dueQueue) audit(s *records, slot uint32, expiresAt int64) error {
	if i := s.at(slot).position - q.base; q.slots[i] != slot || q.expires[i] != expiresAt {
		return fmt.Errorf("slot %d, which expires at %d: the queue has %d and %d there", slot, expiresAt, q.slots[i], q.expires[i])
	}
	return nil
}

func (d *due) audit(s *records, slot uint32, expiresAt int64) error {
	if s.at(slot).early {
		return d.heap.audit(s, slot, expiresAt)
	}
	return d.queue.audit(s, slot, expiresAt)
}

func TestDueHeap_GivesTheSoonestWhateverIsRemoved(t *testing.T) {
	checkDue(t, func() dueSet { return new(dueHeap) })
}

func TestDue_GivesTheSoonestWhateverIsRemoved(t *testing.T) {
	for _, base := range []uint32{0, math.MaxUint32, math.MaxUint32 - 7} {
		checkDue(t, func() dueSet { return &due{queue: dueQueue{base: base}} })
	}
}

func checkDue(t *testing.T, empty func() dueSet) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 100
		s := dueRecords(slots)
		h := empty()
		held := map[uint32]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				slot := rapid.Uint32Range(0, slots-1).Draw(t, "slot")
				if _, taken := held[slot]; taken {
					t.Skip("is there")
				}
				held[slot] = rapid.Int64Range(-20, 20).Draw(t, "expires at")
				h.push(s, slot, held[slot])
			},
			"push many": func(*rapid.T) {
				for slot := range uint32(slots) {
					if _, taken := held[slot]; !taken && slot%3 > 0 {
						held[slot] = int64(spread(uint64(slot)+uint64(len(held)))%50) - 25
						h.push(s, slot, held[slot])
					}
				}
			},
			"push in order": func(*rapid.T) {
				for slot := range uint32(slots) {
					if _, taken := held[slot]; !taken {
						held[slot] = 30 + int64(slot)/4
						h.push(s, slot, held[slot])
					}
				}
			},
			"remove many": func(t *rapid.T) {
				rest := rapid.Uint32Range(0, 4).Draw(t, "rest")
				for slot := range uint32(slots) {
					if _, taken := held[slot]; taken && slot%5 != rest {
						h.remove(s, slot)
						delete(held, slot)
					}
				}
			},
			"remove": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("is empty")
				}
				slot := rapid.SampledFrom(slices.Sorted(maps.Keys(held))).Draw(t, "slot")
				h.remove(s, slot)
				delete(held, slot)
			},
			"": func(t *rapid.T) {
				first, found := h.first()
				if found != (len(held) > 0) || found && first != slices.Min(slices.Collect(maps.Values(held))) {
					t.Fatalf("first: got %d, %v of %v", first, found, held)
				}
				for slot, expiresAt := range held {
					if err := h.audit(s, slot, expiresAt); err != nil {
						t.Fatal(err)
					}
				}
				for _, now := range []int64{math.MinInt64, -3, 0, 4, math.MaxInt64} {
					var want, got []uint32
					for slot, expiresAt := range held {
						if expiresAt <= now {
							want = append(want, slot)
						}
					}
					slices.Sort(want)
					got = slices.Sorted(h.until(now, slots))
					if !slices.Equal(got, want) {
						t.Fatalf("until %d: got %v, want %v", now, got, want)
					}
					limited := slices.Sorted(h.until(now, 7))
					if len(limited) != min(7, len(want)) || len(slices.Compact(limited)) != len(limited) {
						t.Fatalf("until %d, 7 at most: got %v of %v", now, limited, want)
					}
				}
			},
		})
	})
}

// Holds are made in the order of their expiry, many in one millisecond, and a few for a shorter time. Those end in the order of time, and
// however many come and go no more room is taken than for those that are there, and a third.
func TestDue_KeepsTheOrderOfTime(t *testing.T) {
	const live = 1000
	s := dueRecords(live)
	var d due
	for i := range 20 * live {
		slot := uint32(i % live)
		if i >= live {
			if first, found := d.first(); !found || first != int64((i-live)/10) {
				t.Fatalf("%d: got %d, %v, want %d", i, first, found, (i-live)/10)
			}
			d.remove(s, slot)
		}
		d.push(s, slot, int64(i/10))
	}
	if len(d.heap.slots) != 0 || cap(d.queue.slots) > 2*live {
		t.Errorf("%d are in the heap, and the queue has %d places for %d", len(d.heap.slots), cap(d.queue.slots), live)
	}
	d.push(s, 0, -1)
	if first, _ := d.first(); first != -1 || len(d.heap.slots) != 1 {
		t.Errorf("the first is at %d, and %d are in the heap", first, len(d.heap.slots))
	}
}

// Positions are counted in 32 bits. A ledger that serves long enough passes the greatest of them.
func TestEndings_CountsWrapAround(t *testing.T) {
	for _, first := range []uint32{0, math.MaxUint32, math.MaxUint32 - 5, math.MaxUint32 - 1000, 1 << 31} {
		const slots = 3000
		s := dueRecords(slots)
		n := endings{first: first, next: first}
		forgotten := uint32(0)
		for slot := range uint32(slots) {
			n.add(s.at(slot), slot, int64(slot/2), uint64(slot))
			if slot%3 == 0 {
				n.forget(s, int64(slot/4)-1) // half of them, less two or so
				for forgotten < slots && int64(forgotten/2) <= int64(slot/4)-1 {
					forgotten++
				}
			}
			if n.next-n.first != slot+1-forgotten {
				t.Fatalf("from %d: %d endings, want %d", first, n.next-n.first, slot+1-forgotten)
			}
			for _, known := range []uint32{forgotten, (forgotten + slot) / 2, slot} {
				want := ending{at: int64(known / 2), seq: uint64(known), slot: known}
				if got := n.of(s.at(known)); got != want {
					t.Fatalf("from %d: got %+v, want %+v", first, got, want)
				}
			}
		}
		n.forget(s, math.MaxInt64)
		if n.first != n.next || int(s.used)-len(s.free) != 0 {
			t.Fatalf("from %d: %d endings and %d records are left", first, n.next-n.first, int(s.used)-len(s.free))
		}
	}
}

func TestEndings_SpaceIsUsedAgain(t *testing.T) {
	s := dueRecords(1)
	var n endings
	items := OneItem(seats(0, 1))
	for round := range int64(100_000) {
		n.add(s.at(0), 0, round, uint64(round))
		n.forget(s, round)
		s.add(1, 1, Key{}, &items, 0, 1, 1)
	}
	if len(n.ring) != 8 {
		t.Fatalf("the ring has grown to %d for one ending at a time", len(n.ring))
	}
}

// The position counter of a whole ledger wraps around without anyone noticing.
func TestLedger_EndingsOutnumberTheirCounter(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	l.ended.first, l.ended.next = math.MaxUint32-2, math.MaxUint32-2
	for i := range Token(8) {
		mustDo(t, l, book(i+1, 1, seats(0, 1)), after(0))
		mustDo(t, l, &Release{User: 1, Token: i + 1}, after(0))
		if err := l.auditParts(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range Token(8) {
		if r := wantUnchanged(t, l, &Release{User: 1, Token: i + 1}, after(0)).Reservation; r.Seq != uint64(3+2*i) {
			t.Fatalf("reservation %d ended by entry %d, want %d", i+1, r.Seq, 3+2*i)
		}
	}
	mustDo(t, l, book(100, 1, seats(0, 1)), after(KeyRetention))
	if err := l.auditParts(); err != nil || l.ended.next != l.ended.first {
		t.Fatalf("%d endings are left: %v", l.ended.next-l.ended.first, err)
	}
}
