package evently

import (
	"container/heap"
	"encoding/binary"
)

// waiters holds those who wait for seats of one event, in the order of service, and remembers those who have ended. A ledger that
// nobody waits at has none of its maps.
type waiters struct {
	byToken map[Token]*waiter
	byKey   map[Key]*waiter
	byUser  map[UserID]*waiter // the one that the user joined with last
	queues  map[demand]*waitQueue
	count   int       // who wait
	ahead   int       // who wait with a priority of 0 or more: whoever joins now comes behind them
	ended   []*waiter // in the order of their ending
	fit     fit
}

// waiter is a Waiter inside of a ledger.
type waiter struct {
	Waiter
	key   Key
	queue *waitQueue // nil: it waits no more
	place int        // in the heap of its queue
	late  bool       // it is remembered only for its reservation, an offer that is held
}

// fit says whether free seats suffice for somebody who waits.
type fit uint8

const (
	fitUnknown fit = iota
	fitNobody
	fitSomebody
)

// demand is seats as the key of a map: those of the first tier, and the others in bytes.
type demand struct {
	tier, quantity int
	more           string
}

func newDemand(items *Items) demand {
	var more []byte
	for _, item := range items.rest {
		more = binary.BigEndian.AppendUint32(append(more, byte(item.Tier)), uint32(item.Quantity))
	}
	return demand{items.first.Tier, items.first.Quantity, string(more)}
}

// waitQueue is the waiters who wait for the same seats. Free seats suffice for all of them or for none, so that only its first one
// needs to be looked at.
type waitQueue struct {
	demand demand
	items  Items // the same
	line   waitLine
}

// waitLine is a heap of waiters by the order of service.
type waitLine struct {
	waiters []*waiter
	placed  bool // each waiter knows its place: the line is that of its queue
}

// precedes is the order of service.
func (w *waiter) precedes(other *waiter) bool {
	if w.Priority != other.Priority {
		return w.Priority > other.Priority
	}
	return w.JoinedSeq < other.JoinedSeq
}

// Len implements heap.Interface.
func (l *waitLine) Len() int { return len(l.waiters) }

// Less implements heap.Interface.
func (l *waitLine) Less(i, j int) bool { return l.waiters[i].precedes(l.waiters[j]) }

// Swap implements heap.Interface.
func (l *waitLine) Swap(i, j int) {
	l.waiters[i], l.waiters[j] = l.waiters[j], l.waiters[i]
	if l.placed {
		l.waiters[i].place, l.waiters[j].place = i, j
	}
}

// Push implements heap.Interface.
func (l *waitLine) Push(w any) {
	if l.placed {
		w.(*waiter).place = len(l.waiters)
	}
	l.waiters = append(l.waiters, w.(*waiter))
}

// Pop implements heap.Interface.
func (l *waitLine) Pop() any {
	last := len(l.waiters) - 1
	w := l.waiters[last]
	l.waiters[last] = nil
	l.waiters = l.waiters[:last]
	return w
}

// add takes in a waiter with its key, in the state in which it is.
func (s *waiters) add(w *waiter) {
	if s.byToken == nil {
		s.byToken, s.byKey, s.byUser = make(map[Token]*waiter), make(map[Key]*waiter), make(map[UserID]*waiter)
		s.queues = make(map[demand]*waitQueue)
	}
	s.byToken[w.ID.Token] = w
	if w.key != (Key{}) {
		s.byKey[w.key] = w
	}
	if last := s.byUser[w.User]; last == nil || last.JoinedSeq < w.JoinedSeq {
		s.byUser[w.User] = w
	}
	if w.Status == Waiting {
		s.enqueue(w)
	} else {
		s.ended = append(s.ended, w)
	}
}

func (s *waiters) enqueue(w *waiter) {
	key := newDemand(&w.Items)
	queue := s.queues[key]
	if queue == nil {
		queue = &waitQueue{demand: key, items: w.Items, line: waitLine{placed: true}}
		s.queues[key] = queue
	}
	w.queue = queue
	heap.Push(&queue.line, w)
	s.count++
	if w.Priority >= 0 {
		s.ahead++
	}
	s.fit = fitUnknown
}

func (s *waiters) dequeue(w *waiter) {
	heap.Remove(&w.queue.line, w.place)
	if w.queue.line.Len() == 0 {
		delete(s.queues, w.queue.demand)
	}
	w.queue = nil
	s.count--
	if w.Priority >= 0 {
		s.ahead--
	}
	s.lessFit()
}

// lessFit notes that there are fewer free seats, or fewer waiters, than before.
func (s *waiters) lessFit() {
	if s.fit == fitSomebody {
		s.fit = fitUnknown
	}
}

// settled notes that a reservation is held no more.
func (s *waiters) settled(token Token) {
	if w := s.byToken[token]; w != nil && w.late {
		s.drop(w)
	}
}

func (s *waiters) drop(w *waiter) {
	delete(s.byToken, w.ID.Token)
	if w.key != (Key{}) {
		delete(s.byKey, w.key)
	}
	if s.byUser[w.User] == w {
		delete(s.byUser, w.User)
	}
}

// freeSeats is the free seats of each tier.
type freeSeats [TiersMax]int

func (f *freeSeats) suffice(items *Items) bool {
	for i := range items.Len() {
		if item := items.At(i); item.Quantity > f[item.Tier] {
			return false
		}
	}
	return true
}

func (f *freeSeats) add(items *Items, sign int) {
	for i := range items.Len() {
		item := items.At(i)
		f[item.Tier] += sign * item.Quantity
	}
}

// next iterates over waiters in the order of service. With free seats it gives those whom they suffice for, and the caller takes the
// seats of each from them; nil gives everybody. It costs O(distinct demands), and O(log of them) for each waiter that it gives.
func (s *waiters) next(free *freeSeats) func(yield func(*waiter) bool) {
	return func(yield func(*waiter) bool) {
		var heads waitLine
		for _, queue := range s.queues {
			if free == nil || free.suffice(&queue.items) {
				heads.waiters = append(heads.waiters, queue.line.waiters[0])
			}
		}
		heap.Init(&heads)
		for heads.Len() > 0 {
			w := heap.Pop(&heads).(*waiter)
			if free != nil && !free.suffice(&w.Items) {
				continue // nor do they for anybody behind it in its queue: seats only get fewer
			}
			line := w.queue.line.waiters
			for child := 2*w.place + 1; child <= 2*w.place+2 && child < len(line); child++ {
				heap.Push(&heads, line[child])
			}
			if !yield(w) {
				return
			}
		}
	}
}
