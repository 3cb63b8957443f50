package evently

import (
	"iter"
	"math"
)

// due holds the held reservations by expiry: in a queue those that expire in the order they are made, which are nearly all, and in a
// heap those that expire before an older one, as when the event's hold time was shortened. Each record knows its place, so that a
// confirmation takes it out.
type due struct {
	queue dueQueue
	heap  dueHeap
}

// first returns when the next hold expires.
func (d *due) first() (expiresAt int64, found bool) {
	expiresAt, found = d.queue.first()
	if other, ok := d.heap.first(); ok && (!found || other < expiresAt) {
		return other, true
	}
	return expiresAt, found
}

func (d *due) len() int { return d.queue.held + len(d.heap.slots) }

func (d *due) push(s *records, slot uint32, expiresAt int64) {
	early := expiresAt < d.queue.last()
	s.at(slot).early = early
	if early {
		d.heap.push(s, slot, expiresAt)
	} else {
		d.queue.push(s, slot, expiresAt)
	}
}

func (d *due) remove(s *records, slot uint32) {
	if s.at(slot).early {
		d.heap.remove(s, slot)
	} else {
		d.queue.remove(s, slot)
	}
}

// until iterates over up to limit slots that are due at a moment, without taking them out.
func (d *due) until(now int64, limit int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if left, more := d.queue.walk(now, limit, yield); more {
			d.heap.walk(now, left, yield)
		}
	}
}

// dueQueue is held reservations in the order of their expiry. Whatever is done to it costs O(1), spread over many: one that is taken
// out of the middle leaves a gap, and when a quarter of the places are of no more use they are reclaimed instead of growing.
//
// A record's position counts all that were ever pushed, and may wrap around.
type dueQueue struct {
	slots   []uint32 // noSlot: a gap. Neither the first, from head on, nor the last one is.
	expires []int64  // milliseconds, of the slot at the same place
	head    int      // what comes before has gone
	base    uint32   // the position of the first place
	held    int
}

const noSlot = math.MaxUint32

func (q *dueQueue) first() (expiresAt int64, found bool) {
	if q.held == 0 {
		return 0, false
	}
	return q.expires[q.head], true
}

// last returns when the last hold expires, or a time before all others.
func (q *dueQueue) last() int64 {
	if q.held == 0 {
		return math.MinInt64
	}
	return q.expires[len(q.expires)-1]
}

// push appends a slot that expires no sooner than the last one.
func (q *dueQueue) push(s *records, slot uint32, expiresAt int64) {
	if len(q.slots) == cap(q.slots) {
		q.reclaim(s)
	}
	s.at(slot).position = q.base + uint32(len(q.slots))
	q.slots, q.expires = append(q.slots, slot), append(q.expires, expiresAt)
	q.held++
}

func (q *dueQueue) remove(s *records, slot uint32) {
	q.slots[s.at(slot).position-q.base] = noSlot
	if q.held--; q.held == 0 {
		q.base += uint32(len(q.slots))
		q.slots, q.expires, q.head = q.slots[:0], q.expires[:0], 0
		return
	}
	for q.slots[q.head] == noSlot {
		q.head++
	}
	last := len(q.slots) - 1
	for q.slots[last] == noSlot {
		last--
	}
	q.slots, q.expires = q.slots[:last+1], q.expires[:last+1]
}

// reclaim makes room of places that are of no more use, if they are a quarter of all. Those before the head cost a copy; gaps cost that
// records get new positions.
func (q *dueQueue) reclaim(s *records) {
	n := len(q.slots)
	switch {
	case n == 0:
	case q.head >= n/4:
		copy(q.slots, q.slots[q.head:])
		copy(q.expires, q.expires[q.head:])
		q.slots, q.expires = q.slots[:n-q.head], q.expires[:n-q.head]
		q.base += uint32(q.head)
		q.head = 0
	case q.held <= n-n/4:
		i := 0
		for from, slot := range q.slots[q.head:] {
			if slot != noSlot {
				q.slots[i], q.expires[i] = slot, q.expires[q.head+from]
				s.at(slot).position = q.base + uint32(i)
				i++
			}
		}
		q.slots, q.expires, q.head = q.slots[:i], q.expires[:i], 0
	}
}

// walk yields up to limit slots that are due at a moment, and says how many more it might and whether they are wanted.
func (q *dueQueue) walk(now int64, limit int, yield func(uint32) bool) (left int, more bool) {
	for i := q.head; i < len(q.slots) && q.expires[i] <= now && limit > 0; i++ {
		if q.slots[i] != noSlot {
			if !yield(q.slots[i]) {
				return limit, false
			}
			limit--
		}
	}
	return limit, true
}

// dueHeap is a heap of held reservations by expiry. Four children for a parent make it half as deep as two would, and their times share
// a cache line.
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

// walk yields up to limit slots that are due at a moment: the top of the heap, below which nothing is due.
func (h *dueHeap) walk(now int64, limit int, yield func(uint32) bool) {
	frontier := make([]int, 1, 64)
	for len(frontier) > 0 && limit > 0 {
		i := frontier[len(frontier)-1]
		frontier = frontier[:len(frontier)-1]
		if i >= len(h.slots) || h.expires[i] > now {
			continue
		}
		if !yield(h.slots[i]) {
			return
		}
		limit--
		for child := dueArity*i + dueArity; child > dueArity*i; child-- {
			frontier = append(frontier, child)
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
