package store

import "github.com/evently/evently"

// stretch is batches of one tenure, each following the one before without a gap. They are written as one: the head is updated once.
// Batches without entries, which only ask whether the owner still is the owner, are confirmed by that.
type stretch struct {
	batches []*evently.Batch
	entries int
}

func (s *stretch) prevSeq() uint64 { return s.batches[0].PrevSeq }

// last is the last batch that has entries, or the last one if none has.
func (s *stretch) last() *evently.Batch {
	for i := len(s.batches) - 1; i >= 0; i-- {
		if len(s.batches[i].Entries) > 0 {
			return s.batches[i]
		}
	}
	return s.batches[len(s.batches)-1]
}

func (s *stretch) add(batch *evently.Batch) {
	s.batches = append(s.batches, batch)
	s.entries += len(batch.Entries)
}

// precedes reports whether a batch goes on where s ends.
func (s *stretch) precedes(batch *evently.Batch) bool {
	end := s.batches[len(s.batches)-1]
	return batch.Event == end.Event && batch.Epoch == end.Epoch && batch.Owner == end.Owner && batch.PrevSeq == end.LastSeq()
}

// joiner makes stretches of batches. Of each event there is one at most: a statement can update a row only once.
type joiner struct {
	stretches []stretch
	at        map[evently.EventID]int // index in stretches; -1: later batches of this event have to wait
}

// join makes stretches, which are valid until the next call, of a group of batches. It returns, in the group's memory, those
// that have to wait for the outcome of others of their event, because they do not go on where those end.
func (j *joiner) join(group []*evently.Batch) (rest []*evently.Batch) {
	j.stretches = j.stretches[:0]
	clear(j.at)
	rest = group[:0]
	for _, batch := range group {
		at, known := j.at[batch.Event]
		switch {
		case !known:
			j.at[batch.Event] = len(j.stretches)
			j.begin(batch)
		case at >= 0 && j.stretches[at].precedes(batch):
			j.stretches[at].add(batch)
		default:
			j.at[batch.Event] = -1
			rest = append(rest, batch)
		}
	}
	clear(group[len(rest):])
	return rest
}

// begin takes the memory of a former stretch if there is one.
func (j *joiner) begin(batch *evently.Batch) {
	if len(j.stretches) < cap(j.stretches) {
		j.stretches = j.stretches[:len(j.stretches)+1]
	} else {
		j.stretches = append(j.stretches, stretch{})
	}
	s := &j.stretches[len(j.stretches)-1]
	s.batches, s.entries = s.batches[:0], 0
	s.add(batch)
}

// forget lets go of the batches.
func (j *joiner) forget() {
	for i := range j.stretches {
		clear(j.stretches[i].batches)
	}
}
