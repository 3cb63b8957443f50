package peers

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evently/evently"
)

// slow sells one seat, and takes a second for each answer.
type slow struct {
	instant
	sold atomic.Bool
}

func (s *slow) book(context.Context, *booking) (*evently.Reservation, error) {
	<-time.After(time.Second)
	if s.sold.CompareAndSwap(false, true) {
		return nil, nil
	}
	return nil, evently.ErrSoldOut
}

// Who waits for a turn when an event sells out is refused like those who come then, and not one after the other.
func TestPeer_NobodyWaitsForATurnOfAnEventThatIsSoldOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffer(&evently.Event{ID: 1}, 1)
		p := &Peer{design: new(slow)}
		began := time.Now()
		var all sync.WaitGroup
		var refused atomic.Int64
		for range 100 {
			all.Go(func() {
				if _, err := p.decide(t.Context(), &booking{offer: o}); errors.Is(err, evently.ErrSoldOut) {
					refused.Add(1)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != 3*time.Second || refused.Load() != 99 {
			t.Errorf("%d were refused within %v, want 99 within 3 s: one books, one is refused, and then all are", refused.Load(), took)
		}
	})
}
