package evently

import (
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

func TestDueHeap_GivesTheSoonestWhateverIsRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 100
		s := dueRecords(slots)
		var h dueHeap
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
					if i := s.at(slot).position; h.slots[i] != slot || h.expires[i] != expiresAt {
						t.Fatalf("slot %d, which expires at %d: the heap has %d and %d there", slot, expiresAt, h.slots[i], h.expires[i])
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

// Holds are made in the order of their expiry, many in one millisecond, and then nothing in the heap moves.
func TestDueHeap_KeepsTheOrderOfTime(t *testing.T) {
	const slots = 1000
	s := dueRecords(slots)
	var h dueHeap
	for slot := range uint32(slots) {
		h.push(s, slot, int64(slot/10))
		if s.at(slot).position != slot {
			t.Fatalf("slot %d went to %d", slot, s.at(slot).position)
		}
	}
	for slot := range uint32(slots) {
		if first, found := h.first(); !found || first != int64(slot/10) {
			t.Fatalf("got %d, %v, want %d", first, found, slot/10)
		}
		h.remove(s, slot)
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
