package actors

import (
	"time"

	"github.com/evently/evently"
)

// Bounds of the pauses before a node acquires an event again that another owner took from it.
const (
	backoffMin   = 100 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffQuiet = 30 * time.Second // without losing the event again, all is forgotten

	// backoffEvents bounds half of the events that are remembered, of about 50 B each. Beyond it those that were lost first are
	// forgotten.
	backoffEvents = 16384
)

// backoff makes two nodes that both believe to own an event take turns instead of fencing each other as fast as they can: a
// node that lost an event waits before it acquires it again, longer each time.
//
// It is pure, holds no lock and must not be used concurrently.
type backoff struct {
	recent, before map[evently.EventID]loss // losses since turned, and in the while before
	turned         time.Time
}

// loss is the last time that an event was lost.
type loss struct {
	at    time.Time
	pause time.Duration // before spreading
	until time.Time     // the event is not acquired before
}

// lost notes that another owner has taken an event at a moment. The pause that follows is made shorter by up to a half of
// it; spread, from 0 to 1, says how much, so that two nodes do not go on in step.
func (b *backoff) lost(event evently.EventID, at time.Time, spread float64) {
	pause := backoffMin
	if last, ok := b.last(event, at); ok {
		pause = min(2*last.pause, backoffMax)
	}
	if at.Sub(b.turned) >= backoffQuiet || len(b.recent) >= backoffEvents {
		b.recent, b.before, b.turned = make(map[evently.EventID]loss), b.recent, at
	}
	b.recent[event] = loss{at: at, pause: pause, until: at.Add(pause - time.Duration(spread*float64(pause/2)))}
}

// wait returns how long the event is not to be acquired yet: 0 to backoffMax.
func (b *backoff) wait(event evently.EventID, now time.Time) time.Duration {
	last, ok := b.last(event, now)
	if !ok {
		return 0
	}
	return max(last.until.Sub(now), 0)
}

func (b *backoff) last(event evently.EventID, now time.Time) (loss, bool) {
	last, ok := b.recent[event]
	if !ok {
		last, ok = b.before[event]
	}
	age := now.Sub(last.at) // negative: the clock has gone back, so that nothing is known
	return last, ok && age >= 0 && age < backoffQuiet
}
