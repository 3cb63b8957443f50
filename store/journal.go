package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// JournalConfig says how a Journal writes.
type JournalConfig struct {
	// Writers is the number of connections that commit batches. Each event always uses the same one. More writers
	// overlap more disk flushes and split the batches: a transaction costs Postgres some 0.2 ms beside its entries. Default 2.
	Writers int

	// QueueMax bounds the batches that wait for a writer; beyond, Append returns ErrOverloaded. Default 16,384.
	QueueMax int

	// EntriesMax bounds the entries of one transaction, apart from those of a single event's batch. Default 4096.
	// A raise makes fewer and longer commits.
	EntriesMax int

	// Timeout bounds one transaction; when it ends, the connection is closed and the outcome is unknown. Default 10 s.
	Timeout time.Duration

	Logger  *slog.Logger
	Metrics *Metrics
}

// Journal implements evently.Journal on Postgres, with group commit over events.
type Journal struct {
	pool    *pgxpool.Pool
	config  JournalConfig
	writers []*writer
	reach   reach
	evictor *evictor

	instance [8]byte       // random; the first half of the owners of all its tenures
	lockWait time.Duration // lockWaitMax

	mu     sync.RWMutex // held for reading while appending, so that Close sees every batch
	closed bool
}

var _ evently.Journal = (*Journal)(nil)

// OpenJournal starts the writers. They connect when there is something to write, with the pool's configuration.
func OpenJournal(pool *pgxpool.Pool, config JournalConfig) *Journal {
	if config.Writers == 0 {
		config.Writers = max(1, runtime.GOMAXPROCS(0)/4)
	}
	if config.QueueMax == 0 {
		config.QueueMax = 16384
	}
	if config.EntriesMax == 0 {
		config.EntriesMax = 4096
	}
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Metrics == nil {
		config.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	j := &Journal{pool: pool, config: config, lockWait: lockWaitMax}
	j.evictor = newEvictor(pool.Config().ConnConfig, &j.config)
	rand.Read(j.instance[:])
	for range config.Writers {
		w := newWriter(pool.Config().ConnConfig, &j.config, &j.reach)
		j.writers = append(j.writers, w)
		go w.run()
	}
	return j
}

// Append implements evently.Journal.
func (j *Journal) Append(batch *evently.Batch) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return fmt.Errorf("append event %s: %w: the journal is closed", batch.Event, evently.ErrNotWritten)
	}
	select {
	case j.writers[uint64(batch.Event)%uint64(len(j.writers))].queue <- batch:
		j.config.Metrics.queued.Inc()
		return nil
	default:
		j.config.Metrics.queueFull.Inc()
		return fmt.Errorf("append event %s: %w", batch.Event, evently.ErrOverloaded)
	}
}

// Close writes what is queued, refuses what comes, and closes the writers' connections. Later acquisitions evict nobody.
// Calling it again does nothing.
func (j *Journal) Close() {
	j.mu.Lock()
	closed := j.closed
	j.closed = true
	j.mu.Unlock()
	if !closed {
		for _, w := range j.writers {
			close(w.queue)
		}
	}
	for _, w := range j.writers {
		<-w.stopped
	}
	j.evictor.close()
}

// dueSQL reads the whole table: an index on next_due would keep head updates from staying on their page. The order is
// random so that events which cannot be loaded do not keep the others from their turn.
const dueSQL = `
select event_id from event_heads where next_due < clock_timestamp() - $1::interval order by random() limit $2`

// Due lists up to limit events in which something has been due for longer than late: no actor serves them.
func (j *Journal) Due(ctx context.Context, late time.Duration, limit int) ([]evently.EventID, error) {
	rows, err := j.pool.Query(ctx, dueSQL, late, limit)
	if err != nil {
		return nil, failed(err, "list due events")
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, failed(err, "list due events")
	}
	events := make([]evently.EventID, len(ids))
	for i, id := range ids {
		events[i] = evently.EventID(id)
	}
	return events, nil
}
