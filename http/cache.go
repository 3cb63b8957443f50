package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// Bounds of the caches.
const (
	cacheTTL     = time.Second            // how old a cached value may be while the database answers
	loadTimeout  = 2 * time.Second        // of one read that fills the cache
	staleWaitMax = 250 * time.Millisecond // what a request that could have an old value waits for the new one
	outdatedRest = 100 * time.Millisecond // how old a value may be that is outdated as a whole, see cache.outdate
	statesMax    = 10_000                 // events
	listsMax     = 1_000                  // queries
	detailsMax   = 1_000                  // events as they are answered with: 1 KiB, or 60 with the longest description
)

// caches keep what the public reads: a hit costs no query, and while the database is away the last known values are served.
type caches struct {
	states *cache[evently.EventID, *evently.State]
	lists  *cache[listQuery, *eventList]
	recent *cache[evently.EventID, []*evently.State] // after the last entries, for streams

	details details
}

// eventList is a page of events.
type eventList struct {
	states []*evently.State
	next   *evently.Cursor
}

func newCaches(config *Config, metrics *metrics) *caches {
	c := &caches{
		states: newCache[evently.EventID, *evently.State](statesMax, "states", config, metrics),
		lists:  newCache[listQuery, *eventList](listsMax, "lists", config, metrics),
		recent: newRecent(config, metrics),

		details: details{made: newLRU[evently.EventID, *detail](detailsMax)},
	}
	c.states.load = config.Catalogue.State
	c.states.newest = newestState
	c.lists.load = func(ctx context.Context, query listQuery) (*eventList, error) {
		started := config.Now()
		filter := query.filter(evently.EventPublished)
		if filter.From.IsZero() {
			filter.From = started
		}
		states, next, err := config.Catalogue.States(ctx, filter, query.page())
		if err != nil {
			return nil, err
		}
		for i, state := range states {
			states[i] = c.states.put(state.Event.ID, state, started)
		}
		return &eventList{states, next}, nil
	}
	c.lists.newest = func(_, loaded *eventList) *eventList { return loaded }
	return c
}

// details are events as they are answered with, made once for all who ask between two changes.
type details struct {
	mu   sync.Mutex
	made *lru[evently.EventID, *detail]
}

func (d *details) of(state *evently.State) *detail {
	d.mu.Lock()
	known := d.made.get(state.Event.ID)
	if known != nil && (*known).state == state {
		defer d.mu.Unlock()
		return *known
	}
	d.mu.Unlock()
	made := newDetail(state)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made.put(state.Event.ID, made)
	return made
}

// newestState chooses by Seq: reads of the database and the commits of this node arrive in any order.
func newestState(known, offered *evently.State) *evently.State {
	switch {
	case offered.Seq < known.Seq, offered.Seq == known.Seq && offered.AsOf.Before(known.AsOf):
		return known
	case offered.Seq == known.Seq && offered.Event != known.Event:
		// Nothing happened in between: share the details rather than hold them once for each list.
		return &evently.State{Event: known.Event, Availability: offered.Availability}
	}
	return offered
}

// newest replaces the states of a list by those committed since it was loaded.
func (c *caches) newest(states []*evently.State) []*evently.State {
	overlaid := slices.Clone(states)
	for i, state := range states {
		if known, found := c.states.peek(state.Event.ID); found && known.Seq > state.Seq {
			overlaid[i] = known
		}
	}
	return overlaid
}

// changed forgets the lists, and what may be older than a change to an event that this node was asked for.
func (c *caches) changed(id evently.EventID) {
	c.states.expire(id)
	c.lists.clear()
}

// Committed implements evently.Observer: what this node commits is served from here on.
func (s *Server) Committed(state *evently.State) {
	s.caches.states.put(state.Event.ID, state, s.config.Now())
	s.streams.committed(state)
}

var _ evently.Observer = (*Server)(nil)

// cache is a bounded map of values that are loaded when they are asked for, by one request at a time for each key, and
// loaded again when they are older than cacheTTL. When loading fails the last known value is served, and not found is
// remembered like a value.
type cache[K comparable, V any] struct {
	load   func(ctx context.Context, key K) (V, error)
	newest func(known, offered V) V
	now    func() time.Time
	logger *slog.Logger

	hits, misses, stale prometheus.Counter

	mu         sync.Mutex
	entries    *lru[K, *cached[V]]
	outdatedAt time.Time // what was read before counts as fresh for outdatedRest only
	missedAt   time.Time // when something changed that has no entry: the changedAt of new ones
}

// cached is an entry of a cache. Its fields are guarded by the cache's mutex.
type cached[V any] struct {
	value      V
	known      bool  // value is set
	err        error // instead of a value: there is no such thing
	freshUntil time.Time
	changedAt  time.Time  // what was read before does not count as fresh
	flight     *flight[V] // the load under way, or nil
}

// flight is a load that requests wait for. Its result is set before done is closed.
type flight[V any] struct {
	started time.Time
	done    chan struct{}
	value   V
	err     error
}

func newCache[K comparable, V any](entriesMax int, name string, config *Config, metrics *metrics) *cache[K, V] {
	count := func(result string) prometheus.Counter { return metrics.caches.WithLabelValues(name, result) }
	return &cache[K, V]{
		now: config.Now, logger: config.Logger.With(slog.String("cache", name)),
		hits: count("hit"), misses: count("miss"), stale: count("stale"),
		entries: newLRU[K, *cached[V]](entriesMax),
	}
}

// get returns a value not older than cacheTTL, or the last known one when it cannot be loaded now.
func (c *cache[K, V]) get(ctx context.Context, key K) (V, error) {
	c.mu.Lock()
	entry, now := c.entry(key), c.now()
	if now.Before(entry.freshUntil) && !c.outdated(entry.freshUntil.Add(-cacheTTL), now) {
		value, err := entry.value, entry.err
		c.mu.Unlock()
		c.hits.Inc()
		return value, err
	}
	stale, known := entry.value, entry.known
	under := entry.flight
	leads := under == nil || c.outdated(under.started, now)
	if leads {
		under = &flight[V]{started: now, done: make(chan struct{})}
		entry.flight = under
	}
	c.mu.Unlock()
	c.misses.Inc()
	if leads {
		c.fly(ctx, key, entry, under)
		return under.value, under.err
	}
	var patience <-chan time.Time
	if known {
		timer := time.NewTimer(staleWaitMax)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-under.done:
		return under.value, under.err
	case <-patience:
		c.stale.Inc()
		return stale, nil
	case <-ctx.Done():
		return stale, fmt.Errorf("wait for a load: %w", ctx.Err())
	}
}

// fly loads a value on behalf of all who wait for it, and so also when the request that began it is gone.
func (c *cache[K, V]) fly(ctx context.Context, key K, entry *cached[V], under *flight[V]) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	under.err = evently.ErrUnavailable // if load panics
	defer c.land(key, entry, under)
	under.value, under.err = c.load(ctx, key)
}

func (c *cache[K, V]) land(key K, entry *cached[V], under *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(under.done)
	current := entry.flight == under // else it began before a change, and counts only for those who asked before
	if current {
		entry.flight = nil
	}
	switch {
	case under.err == nil && current:
		c.set(entry, under.value, under.started)
		under.value = entry.value
	case errors.Is(under.err, evently.ErrEventNotFound) && current:
		*entry = cached[V]{err: under.err, freshUntil: under.started.Add(cacheTTL), changedAt: entry.changedAt}
	case under.err != nil && entry.known:
		c.logger.Warn("serving what is known", slog.Any("key", key), slog.Any("error", under.err))
		c.stale.Inc()
		under.value, under.err = entry.value, nil
		entry.freshUntil = c.now().Add(cacheTTL) // rests the database
	}
}

// put offers a value that was the truth at a moment, and returns the newest one.
func (c *cache[K, V]) put(key K, value V, at time.Time) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.entry(key)
	c.set(entry, value, at)
	return entry.value
}

func (c *cache[K, V]) set(entry *cached[V], value V, at time.Time) {
	if entry.known {
		value = c.newest(entry.value, value)
	}
	entry.value, entry.known, entry.err = value, true, nil
	if until := at.Add(cacheTTL); !at.Before(entry.changedAt) && until.After(entry.freshUntil) {
		entry.freshUntil = until
	}
}

// peek returns the last known value and loads nothing.
func (c *cache[K, V]) peek(key K) (value V, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.entries.get(key); found != nil {
		return (*found).value, (*found).known
	}
	return value, false
}

// expire has the next get load a value, one that was read after now.
func (c *cache[K, V]) expire(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.entries.get(key); found != nil {
		(*found).freshUntil, (*found).changedAt, (*found).flight = time.Time{}, c.now(), nil
	} else {
		c.missedAt = c.now()
	}
}

// outdate is expire for every key, except that what was read a moment ago is good until it is outdatedRest old: so outdating
// the cache again and again costs each key one load in that time, and no more.
func (c *cache[K, V]) outdate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outdatedAt = c.now()
}

// outdated reports whether what was read at a moment has been outdated.
func (c *cache[K, V]) outdated(readAt, now time.Time) bool {
	return readAt.Before(c.outdatedAt) && now.Sub(readAt) >= outdatedRest
}

// clear forgets everything, and does not remember what is being loaded now.
func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = newLRU[K, *cached[V]](c.entries.max)
}

func (c *cache[K, V]) entry(key K) *cached[V] {
	if found := c.entries.get(key); found != nil {
		return *found
	}
	return *c.entries.put(key, &cached[V]{changedAt: c.missedAt})
}
