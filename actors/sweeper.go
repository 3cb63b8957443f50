package actors

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/evently/evently"
)

// DueIndex lists events in which something has been due for longer than late. An actor that serves does what is due by
// itself, so these are served by nobody: their node has died, or was stopped.
type DueIndex interface {
	Due(ctx context.Context, late time.Duration, limit int) ([]evently.EventID, error)
}

// Bounds of a sweep.
const (
	sweepLate     = 500 * time.Millisecond
	sweepMax      = 256
	sweepParallel = 4
	wakeMax       = 5 * time.Second
)

// Sweeper wakes events in which something is due and nobody is there to do it: holds that expire, waiters to be served or closed.
// Several nodes may sweep: to wake an event that serves does no harm.
type Sweeper struct {
	Engine evently.Engine
	Index  DueIndex
	Logger *slog.Logger

	// Every is the time between two sweeps. It bounds how late that is done after a crash, apart from the time to load
	// their event. Each sweep reads all heads. Default 1 s.
	Every time.Duration

	complaints rate.Sometimes // below the quorum every event has the same to say
}

// Run sweeps at once and then again and again until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	s.complaints = rate.Sometimes{First: 3, Interval: 5 * time.Second}
	every := s.Every
	if every == 0 {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Warn("sweep of due events", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) error {
	events, err := s.Index.Due(ctx, sweepLate, sweepMax)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	places := make(chan struct{}, sweepParallel)
	for _, event := range events {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, wakeMax)
			defer cancel()
			// The actor that this wakes does what is due before it decides anything.
			if _, err := s.Engine.Do(ctx, &evently.Request{Event: event, Command: &evently.Expire{}}); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
				s.complaints.Do(func() {
					s.Logger.Warn("wake event; further ones like it are logged now and then", "event", event.String(), "error", err)
				})
			}
		})
	}
	group.Wait()
	return nil
}
