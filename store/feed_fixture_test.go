package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// feedPoll is that of the tests' feeds.
const feedPoll = 20 * time.Millisecond

// effects makes a consumer whose effect is a row for each entry: an entry that takes effect twice stands there twice.
func (b *bench) effects(name string) Consumer {
	b.Helper()
	b.exec(`create table if not exists effects (consumer text, event_id int8, seq int8, number int8 generated always as identity)`)
	return Consumer{Name: name, Consume: func(ctx context.Context, tx pgx.Tx, spans []Span) error {
		return ReadSpans(ctx, tx, spans, func(e *FeedEntry) error {
			_, err := tx.Exec(ctx, `insert into effects (consumer, event_id, seq) values ($1, $2, $3)`, name, int64(e.EventID), int64(e.Seq))
			return err
		})
	}}
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatal(err)
	}
}

// feeding runs a feed until the test or stop ends it.
func (b *bench) feeding(pool *pgxpool.Pool, consumers ...Consumer) (metrics *FeedMetrics, stop func()) {
	b.Helper()
	metrics = NewFeedMetrics(prometheus.NewRegistry())
	feed := NewFeed(pool, FeedConfig{Logger: discard, Metrics: metrics, Poll: feedPoll}, consumers...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() { feed.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	b.Cleanup(stop)
	return metrics, stop
}

// readerOf is what runs the consumer of a feed.
func readerOf(pool *pgxpool.Pool, consumer Consumer) *reader {
	feed := NewFeed(pool, FeedConfig{Logger: discard, Poll: feedPoll}, consumer)
	return newReader(feed, &feed.consumers[0])
}

const (
	// unfedSQL counts the entries that a consumer has not consumed.
	unfedSQL = `
		select count(*) from journal j
		where not exists (select from effects e where e.consumer = $1 and e.event_id = j.event_id and e.seq = j.seq)`
	// strangeEffectsSQL counts entries that took effect twice or before one that precedes them.
	strangeEffectsSQL = `
		select count(*) from effects a join effects b using (consumer, event_id)
		where a.consumer = $1 and a.number < b.number and a.seq >= b.seq`
)

// fed waits until every entry but some has taken effect, and checks that each did so once and in order.
func (b *bench) fed(consumer string, but int) {
	b.Helper()
	b.waitUntil("entries take effect", func() bool { return b.count(unfedSQL, consumer) == but })
	if n := b.count(strangeEffectsSQL, consumer); n != 0 {
		b.Errorf("%d entries took effect again or too late", n)
	}
}

// waitUntil polls for what another goroutine or process brings about.
func (b *bench) waitUntil(what string, done func() bool) {
	b.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(feedPoll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			b.Fatalf("waited for a minute until %s", what)
		}
	}
}

// sell writes entries of several kinds to an event.
func (o *owner) sell(n int) {
	o.Helper()
	at := o.Now.Truncate(time.Millisecond)
	for i := range n {
		held := o.book(evently.Item{Quantity: 1 + i%3})
		switch i % 4 {
		case 0:
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, at)
		case 1:
			o.decide(&evently.Release{User: 7, Token: held.ID.Token}, at)
		case 2:
			o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, at)
			o.decide(&evently.Cancel{User: 7, Token: held.ID.Token}, at)
		}
	}
	o.MustFlush()
}
