package evently

import "iter"

// dueHeap is a heap of held reservations by expiry. Each record knows its position, so that a confirmation takes it out in
// O(log n). Holds mostly expire in the order they are made, which makes push O(1). Four children for a parent make it half
// as deep as two would, and their times share a cache line.
type dueHeap struct {
	slots   []uint32
	expires []int64 // milliseconds, of the slot at the same position
}

const dueArity = 4

// first returns when the next hold expires.
func (h *dueHeap) first() (expiresAt int64, found bool) {
	if len(h.expires) == 0 {
		return 0, false
	}
	return h.expires[0], true
}

func (h *dueHeap) push(s *records, slot uint32, expiresAt int64) {
	h.slots = append(h.slots, slot)
	h.expires = append(h.expires, expiresAt)
	h.up(s, len(h.slots)-1, slot, expiresAt)
}

func (h *dueHeap) remove(s *records, slot uint32) {
	i := int(s.at(slot).position)
	last := len(h.slots) - 1
	moved, expiresAt := h.slots[last], h.expires[last]
	h.slots, h.expires = h.slots[:last], h.expires[:last]
	switch {
	case i == last:
	case i > 0 && expiresAt < h.expires[(i-1)/dueArity]:
		h.up(s, i, moved, expiresAt)
	default:
		h.down(s, i, moved, expiresAt)
	}
}

// up places a slot at i or above.
func (h *dueHeap) up(s *records, i int, slot uint32, expiresAt int64) {
	for i > 0 {
		parent := (i - 1) / dueArity
		if h.expires[parent] <= expiresAt {
			break
		}
		h.place(s, i, h.slots[parent], h.expires[parent])
		i = parent
	}
	h.place(s, i, slot, expiresAt)
}

// down places a slot at i or below.
func (h *dueHeap) down(s *records, i int, slot uint32, expiresAt int64) {
	for {
		child := dueArity*i + 1
		if child >= len(h.expires) {
			break
		}
		for next := child + 1; next < min(dueArity*i+1+dueArity, len(h.expires)); next++ {
			if h.expires[next] < h.expires[child] {
				child = next
			}
		}
		if h.expires[child] >= expiresAt {
			break
		}
		h.place(s, i, h.slots[child], h.expires[child])
		i = child
	}
	h.place(s, i, slot, expiresAt)
}

func (h *dueHeap) place(s *records, i int, slot uint32, expiresAt int64) {
	h.slots[i], h.expires[i] = slot, expiresAt
	s.at(slot).position = uint32(i)
}

// until iterates over up to limit slots that are due at a moment, without taking them out: it walks the top of the
// heap, below which nothing is due.
func (h *dueHeap) until(now int64, limit int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		frontier := make([]int, 1, 64)
		for n := 0; len(frontier) > 0 && n < limit; {
			i := frontier[len(frontier)-1]
			frontier = frontier[:len(frontier)-1]
			if i >= len(h.slots) || h.expires[i] > now {
				continue
			}
			if !yield(h.slots[i]) {
				return
			}
			n++
			for child := dueArity*i + dueArity; child > dueArity*i; child-- {
				frontier = append(frontier, child)
			}
		}
	}
}

// endings holds when and by which entry remembered reservations ended, in that order: a ring in which the n-th ending,
// counted from the beginning of the ledger, has the place n mod len(ring). The counts may wrap around.
type endings struct {
	ring        []ending // a power of two, or none
	first, next uint32   // counts of endings forgotten, and of all
}

type ending struct {
	at   int64
	seq  uint64
	slot uint32
}

func (n *endings) add(r *record, slot uint32, at int64, seq uint64) {
	if int(n.next-n.first) == len(n.ring) {
		grown := endings{ring: make([]ending, max(8, 2*len(n.ring))), first: n.first, next: n.next}
		for i := n.first; i != n.next; i++ {
			*grown.at(i) = *n.at(i)
		}
		*n = grown
	}
	r.position = n.next
	n.next++
	*n.at(r.position) = ending{at, seq, slot}
}

func (n *endings) at(position uint32) *ending { return &n.ring[position&uint32(len(n.ring)-1)] }

func (n *endings) of(r *record) ending { return *n.at(r.position) }

// forget removes the records that ended at or before a moment.
func (n *endings) forget(s *records, before int64) {
	for ; n.first != n.next && n.at(n.first).at <= before; n.first++ {
		s.remove(n.at(n.first).slot)
	}
}
