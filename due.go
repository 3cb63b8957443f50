package evently

import "iter"

// dueHeap is a binary heap of held reservations by expiry. Each record knows its position, so that a confirmation
// takes it out in O(log n). Holds mostly expire in the order they are made, which makes push O(1).
type dueHeap struct{ slots []uint32 }

func (h *dueHeap) first() (slot uint32, found bool) {
	if len(h.slots) == 0 {
		return 0, false
	}
	return h.slots[0], true
}

func (h *dueHeap) push(s *records, slot uint32) {
	h.slots = append(h.slots, slot)
	h.up(s, len(h.slots)-1)
}

func (h *dueHeap) remove(s *records, slot uint32) {
	i := int(s.at(slot).position)
	last := len(h.slots) - 1
	moved := h.slots[last]
	h.slots = h.slots[:last]
	if i == last {
		return
	}
	h.slots[i] = moved
	h.down(s, i)
	h.up(s, int(s.at(moved).position))
}

func (h *dueHeap) up(s *records, i int) {
	slot := h.slots[i]
	expiresAt := s.expiresAt(slot)
	for i > 0 {
		parent := (i - 1) / 2
		if s.expiresAt(h.slots[parent]) <= expiresAt {
			break
		}
		h.place(s, i, h.slots[parent])
		i = parent
	}
	h.place(s, i, slot)
}

func (h *dueHeap) down(s *records, i int) {
	slot := h.slots[i]
	expiresAt := s.expiresAt(slot)
	for {
		child := 2*i + 1
		if child >= len(h.slots) {
			break
		}
		if right := child + 1; right < len(h.slots) && s.expiresAt(h.slots[right]) < s.expiresAt(h.slots[child]) {
			child = right
		}
		if s.expiresAt(h.slots[child]) >= expiresAt {
			break
		}
		h.place(s, i, h.slots[child])
		i = child
	}
	h.place(s, i, slot)
}

func (h *dueHeap) place(s *records, i int, slot uint32) {
	h.slots[i] = slot
	s.at(slot).position = uint32(i)
}

// until iterates over up to limit slots that are due at a moment, without taking them out: it walks the top of the
// heap, below which nothing is due.
func (h *dueHeap) until(s *records, now int64, limit int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		frontier := make([]int, 1, 64)
		for n := 0; len(frontier) > 0 && n < limit; {
			i := frontier[len(frontier)-1]
			frontier = frontier[:len(frontier)-1]
			if i >= len(h.slots) || s.expiresAt(h.slots[i]) > now {
				continue
			}
			if !yield(h.slots[i]) {
				return
			}
			n++
			frontier = append(frontier, 2*i+2, 2*i+1)
		}
	}
}

// endings holds when and by which entry remembered reservations ended, in that order.
type endings struct {
	list    []ending
	dropped uint32 // endings taken from the front of list so far; wraps around
}

type ending struct {
	at   int64
	seq  uint64
	slot uint32
}

func (n *endings) add(r *record, slot uint32, at int64, seq uint64) {
	r.position = n.dropped + uint32(len(n.list))
	n.list = append(n.list, ending{at, seq, slot})
}

func (n *endings) of(r *record) ending { return n.list[r.position-n.dropped] }

// forget removes the records that ended at or before a moment.
func (n *endings) forget(s *records, before int64) {
	for len(n.list) > 0 && n.list[0].at <= before {
		s.remove(n.list[0].slot)
		n.list = n.list[1:]
		n.dropped++
	}
}
