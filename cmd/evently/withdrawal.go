package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/evently/evently/cluster"
	"github.com/evently/evently/store"
)

const (
	// awayMax is how long Postgres may be out of reach before a node gives its events to others: longer than a restart takes.
	awayMax = 3 * time.Second
	// backMin is how long it must be in reach again before the node takes events.
	backMin = time.Second
	// withdrawalPeriod is how often a node looks.
	withdrawalPeriod = 250 * time.Millisecond
	// tryMax bounds an attempt to connect.
	tryMax = time.Second
)

// withdrawal has a node that cannot reach Postgres serve no events while others can: it stays a member, and routes.
type withdrawal struct {
	node      *cluster.Node
	reachable func() (ok bool, since time.Time) // whether Postgres is in reach, and since when that is so
	journal   *store.Journal                    // whose connections are others than those that tell the above
	log       *slog.Logger

	withdrawn bool
}

func (w *withdrawal) run(ctx context.Context) error {
	ticker := time.NewTicker(withdrawalPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.try(ctx)
			w.look(time.Now())
		}
	}
}

// try has a journal that has nothing to write any more find out that it could.
func (w *withdrawal) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tryMax)
	defer cancel()
	if err := w.journal.Check(ctx); err != nil {
		w.log.Debug("the journal has no connection", "error", err)
	}
}

func (w *withdrawal) look(now time.Time) {
	ok, since := w.reachable()
	if failing := w.journal.FailingSince(); ok && !failing.IsZero() {
		ok, since = false, failing
	}
	lasting := now.Sub(since)
	switch {
	case !ok && !w.withdrawn && lasting >= awayMax && w.othersServe():
		w.log.Warn("Postgres cannot be reached: the other nodes take over this one's events", "since", since.UTC())
		w.withdrawn = true
		w.node.Withdraw()
	case ok && w.withdrawn && lasting >= backMin:
		w.log.Info("Postgres can be reached again: taking events", "since", since.UTC())
		w.withdrawn = false
		w.node.Resume()
	}
}

// othersServe reports whether there is anybody to take over. If Postgres is away for all, most of them stay; those that withdraw
// in the same moment come back a second after it does.
func (w *withdrawal) othersServe() bool {
	for _, member := range w.node.Members() {
		if member.ID != w.node.ID() && member.State == cluster.MemberAlive && member.Serving {
			return true
		}
	}
	return false
}
