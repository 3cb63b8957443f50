package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// Span is a part of an event's journal: the entries with After < seq <= Upto.
type Span struct {
	Event       evently.EventID
	After, Upto uint64
}

func (s Span) entries() uint64 { return s.Upto - s.After }

// Consumer does something about every entry of the journal, such as counting it or queueing a message.
type Consumer struct {
	// Name is that of its cursors, for ever.
	Name string
	// FromNow skips the entries from before its first start. Default: it begins with the first entry of every event.
	FromNow bool
	// EntriesMax bounds the entries of one transaction, over all spans. Raising it costs memory and makes transactions longer.
	// Default: 1000.
	EntriesMax int
	// Consume writes the effects of spans, one for each event, in the feed's transaction. They commit together with the cursors, so
	// that each entry takes effect exactly once; an effect outside the database can only be queued here. It neither commits nor
	// rolls back, and locks nothing that a booking needs.
	//
	// An error that another try can get over (see failed), or that is the schema's, is tried again after a pause. With any other, and
	// after a panic, fewer entries are tried, until one alone fails: that one is parked.
	Consume func(ctx context.Context, tx pgx.Tx, spans []Span) error
}

// FeedConfig is what a Feed needs.
type FeedConfig struct {
	// Logger is told of parked entries at level error and of pauses at level warn. Default: slog.Default().
	Logger *slog.Logger
	// Metrics counts. Default: counts for nobody.
	Metrics *FeedMetrics
	// Poll is the time between two looks for new entries: an effect comes that much later. Each look reads event_heads, some 15 ms for
	// 100,000 events, and 0.2 s once a minute, when it compares them all; while that takes more than a twentieth of Poll there are
	// fewer looks. Default: 500 ms.
	Poll time.Duration
}

// Bounds of a Feed.
const (
	feedPollDefault       = 500 * time.Millisecond
	consumeEntriesDefault = 1000

	// roundEventsMax bounds the events that one look finds; the next look goes on after them.
	roundEventsMax = 20_000
	// roundSteps bounds the steps that one event has in a round, so that the others' new entries do not wait for it for long.
	roundSteps = 4
	// fullPeriod is the time between looks that compare every head with its cursor.
	fullPeriod = time.Minute
	// findShare bounds the part of the time that a consumer looks for entries: one of so many parts.
	findShare = 20

	// stepMax bounds one transaction.
	stepMax = 30 * time.Second
	// leasePolls is after how many polls without a word of its runner another node takes over a consumer.
	leasePolls = 3
	// parkedMax bounds the parked entries of a consumer. With more the fault is the consumer's, and it stops.
	parkedMax = 1000

	feedPauseMin = 100 * time.Millisecond
	feedPauseMax = 5 * time.Second
)

// Feed has consumers follow the journal.
//
// Problem: every entry must take effect once for each consumer, although nodes are killed at any point, and bookings must not
// notice. Consumers read what bookings have committed anyway: nothing is written for them on the booking path.
//
// Invariants:
//   - A step is one transaction: the effects of some spans, and the cursors of their events, which are moved only from where
//     the spans begin. Whatever fails takes both back; two nodes that run the same step cannot both commit it.
//   - The entries of an event are consumed in their order, without a gap, except for parked ones.
//   - One node runs a consumer: the one that the row in consumers names. It locks that row in each step, without
//     waiting; another node takes it over when the runner has not renewed it for some polls.
//   - A look for new entries compares heads with cursors. It passes over heads that no transaction has written since the last complete
//     round: those whose xmin is before the oldest transaction that was running then. That is exact; nevertheless
//     every head is looked at once a minute, for the horizon of a database that was copied means nothing.
//   - When all that a look has found is consumed, all that was committed before the look is: as_of.
//
// A step reads rows that bookings write and locks none of them. Its commit does not wait for the disk: after a crash of
// Postgres the effects and cursors of the last moments are missing together, and what others have
// seen of them and committed is safe, for their commit has flushed all before it.
type Feed struct {
	pool      *pgxpool.Pool
	config    FeedConfig
	runner    pgtype.UUID // this process
	consumers []Consumer
}

// NewFeed returns a feed of consumers, whose names differ. Nothing happens before Run.
func NewFeed(pool *pgxpool.Pool, config FeedConfig, consumers ...Consumer) *Feed {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Metrics == nil {
		config.Metrics = NewFeedMetrics(prometheus.NewRegistry())
	}
	if config.Poll <= 0 {
		config.Poll = feedPollDefault
	}
	f := &Feed{pool: pool, config: config, runner: pgtype.UUID{Valid: true}}
	if _, err := rand.Read(f.runner.Bytes[:]); err != nil {
		panic(err) // crypto/rand never fails
	}
	names := make(map[string]bool)
	for _, consumer := range consumers {
		if consumer.Name == "" || names[consumer.Name] || consumer.Consume == nil {
			panic(fmt.Sprintf("feed: consumer %q has no name of its own or does nothing", consumer.Name))
		}
		names[consumer.Name] = true
		if consumer.EntriesMax <= 0 {
			consumer.EntriesMax = consumeEntriesDefault
		}
		f.consumers = append(f.consumers, consumer)
	}
	return f
}

// Run runs the consumers until ctx ends, each on its own. It is called once.
func (f *Feed) Run(ctx context.Context) {
	var running sync.WaitGroup
	for i := range f.consumers {
		reader := newReader(f, &f.consumers[i])
		running.Go(func() { reader.run(ctx) })
	}
	running.Wait()
}
