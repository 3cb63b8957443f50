package http

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/evently/evently"
)

// How revoked sessions reach a node: at once by a signal (SessionEnded), and when that fails by reading them. A session
// revoked anywhere is refused here after at most revokedPeriod and the time of one read, well inside the second that the
// contract allows.
const (
	revokedPeriod  = 500 * time.Millisecond
	revokedTimeout = time.Second
	// revokedStartMax bounds the tries of the first read, for a database that is just starting or failing over.
	revokedStartMax = 10 * time.Second
	// revokedOverlap is how far each read looks back behind the one before: further than clocks of nodes differ and than a
	// transaction that revokes takes to commit.
	revokedOverlap = 15 * time.Second
	// revokedMax bounds the sessions remembered, some 60 bytes each. Ten times what a read returns at the most.
	revokedMax = 1_000_000
)

// revocations knows the sessions that ended before the access tokens made for them expire.
type revocations struct {
	accounts evently.Accounts
	now      func() time.Time
	horizon  time.Duration // an older revocation matters no more: the access tokens have expired
	logger   *slog.Logger
	metrics  *metrics

	mu    sync.RWMutex
	ended *lru[evently.SessionID, struct{}]

	soon   chan struct{} // asks for a read before the next one is due
	since  time.Time     // from where to read next; of the reading goroutine
	cancel context.CancelFunc
	done   chan struct{}
}

func newRevocations(config *Config, metrics *metrics) *revocations {
	return &revocations{
		accounts: config.Accounts, now: config.Now, horizon: config.Tokens.AccessTTL, logger: config.Logger, metrics: metrics,
		ended: newLRU[evently.SessionID, struct{}](revokedMax), soon: make(chan struct{}, 1),
	}
}

// readSoon has what was revoked be read at once, and not when the next read is due.
func (r *revocations) readSoon() {
	select {
	case r.soon <- struct{}{}:
	default: // it is asked for already
	}
}

// has reports whether a session was revoked.
func (r *revocations) has(id evently.SessionID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ended.has(id)
}

// add makes a revocation known on this node at once.
func (r *revocations) add(ids ...evently.SessionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.ended.put(id, struct{}{})
	}
}

// start reads all revocations that matter, so that no request is served without them, and goes on reading new ones until stop.
func (r *revocations) start(ctx context.Context) error {
	r.since = r.now().Add(-r.horizon)
	if err := r.readFirst(ctx); err != nil {
		return err
	}
	// Requests are still answered after ctx has ended, while the server drains: stop ends the reading.
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.done = make(chan struct{})
	go r.follow(ctx)
	return nil
}

func (r *revocations) readFirst(ctx context.Context) error {
	ticker, patience := time.NewTicker(revokedPeriod), time.After(revokedStartMax)
	defer ticker.Stop()
	for {
		err := r.read(ctx)
		if err == nil {
			return nil
		}
		r.metrics.revokedErrors.Inc()
		select {
		case <-ticker.C:
		case <-patience:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

func (r *revocations) stop() {
	r.cancel()
	<-r.done
}

func (r *revocations) follow(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(revokedPeriod)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.soon:
		}
		err := r.read(ctx)
		if err != nil && ctx.Err() == nil {
			r.metrics.revokedErrors.Inc()
			if !failing {
				r.logger.Error("revoked sessions cannot be read; those revoked elsewhere stay valid until they can", "error", err)
			}
		}
		failing = err != nil
	}
}

func (r *revocations) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, revokedTimeout)
	defer cancel()
	begun := r.now()
	ids, err := r.accounts.RevokedSessions(ctx, r.since.Add(-revokedOverlap))
	if err != nil {
		return fmt.Errorf("read revoked sessions: %w", err)
	}
	r.add(ids...)
	r.since = begun
	r.metrics.revokedRead.Set(float64(begun.UnixMilli()) / 1000)
	return nil
}
