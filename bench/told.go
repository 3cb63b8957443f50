package bench

import "github.com/evently/evently"

// Told is what clients were told by a target: what an audit holds against what is stored. Loads add to it.
type Told struct {
	Promises []Promise
	// Unknown counts bookings without an answer, or with one that says nothing about the outcome, by event. So many rows may be
	// there that nobody was told of.
	Unknown map[evently.EventID]int
	// Refused counts bookings that were refused because nothing was left, by event.
	Refused map[evently.EventID]int
	// Doubled says of keys that were answered with different reservations.
	Doubled []string
	samples []keySample // at most keySamplesMax, by rank
}

// Promise is a reservation that a client was told of.
type Promise struct {
	ID     evently.ReservationID
	User   evently.UserID
	Status evently.ReservationStatus // the last one that was told
	Unsure bool                      // a later request had no answer: it may have been carried out, or not
}

func (t *Told) merge(other *Told) {
	t.Promises = append(t.Promises, other.Promises...)
	t.Doubled = append(t.Doubled, other.Doubled...)
	for _, s := range other.samples {
		t.sample(s)
	}
	for event, n := range other.Unknown {
		t.unknown(event, n)
	}
	for event, n := range other.Refused {
		t.refused(event, n)
	}
}

func (t *Told) unknown(event evently.EventID, n int) {
	if t.Unknown == nil {
		t.Unknown = make(map[evently.EventID]int)
	}
	t.Unknown[event] += n
}

func (t *Told) refused(event evently.EventID, n int) {
	if t.Refused == nil {
		t.Refused = make(map[evently.EventID]int)
	}
	t.Refused[event] += n
}
