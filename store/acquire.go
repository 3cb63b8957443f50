package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// acquireSQL waits for the row lock of a commit that is under way and fences all later ones of the owner before. The row is
// locked first because an update cannot return what it replaces.
const acquireSQL = `
with ended as (
    select owner as previous from event_heads where event_id = $1 for update
)
update event_heads set epoch = epoch + 1, owner = $2 from ended where event_id = $1
returning epoch, seq, last_at, capacity, held, booked, waiting, clock_timestamp(), previous`

// lockTimeoutSQL bounds each wait for a lock in its transaction, in milliseconds.
const lockTimeoutSQL = `select set_config('lock_timeout', $1, true)`

// lockWaitMax bounds the wait for an owner that hangs in the middle of a commit, and is not evicted.
const lockWaitMax = 5 * time.Second

// forgetKeysSQL and forgetWaitKeysSQL clear keys that are past their time; see Acquire.
const (
	forgetKeysSQL = `
update reservations set key = null
where event_id = $1 and key is not null and ended_at < $2`
	forgetWaitKeysSQL = `
update waitlist set key = null
where event_id = $1 and key is not null and ended_at < $2`
)

// errSuperseded is for an acquisition that another one followed before the event was loaded.
var errSuperseded = fmt.Errorf("%w: %w", evently.ErrUnavailable, evently.ErrFenced)

// Acquire implements evently.Journal. When another acquisition follows while it loads, its error is both an
// evently.ErrUnavailable and an evently.ErrFenced.
//
// It works in two phases, each one round trip. The first raises the epoch of the head, in a transaction of its own that
// has been committed when it is answered. The second reads the event in one snapshot, without locks. A node that is
// paused between the two, or in the middle of either, keeps nobody from the event.
//
// It is safe because the row lock of the head puts the first phase in order with the batches of the owner before. A batch that
// holds the lock is waited for: it has ended when the epoch is raised. A batch that comes for the lock later finds
// another epoch and writes nothing. The snapshot is taken after that, so it has every batch of every earlier owner, and
// nothing can be added until either this owner writes or the epoch is raised again. The latter is fine
// once the snapshot is taken, for then it is this owner that is fenced; and if it came earlier the snapshot shows it.
//
// An owner that hangs with the lock is evicted, see evictor, and waited for no longer than lockWaitMax. When the connection
// breaks in the first phase nobody knows whether the epoch was raised, and nobody needs to: it only fences the owner
// before, who acquires the event again.
func (j *Journal) Acquire(ctx context.Context, event evently.EventID) (*evently.Tenure, error) {
	tenure, err := j.acquire(ctx, event)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, evently.ErrEventNotFound
	case err != nil:
		return nil, failed(err, "acquire event %s", event)
	}
	return tenure, nil
}

func (j *Journal) acquire(ctx context.Context, event evently.EventID) (*evently.Tenure, error) {
	conn, err := j.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	owned, err := j.takeHead(ctx, conn.Conn(), event)
	if err != nil {
		return nil, err
	}
	loaded, err := load(ctx, conn.Conn(), owned)
	if err != nil {
		return nil, err
	}
	if loaded.overdue {
		// The job that clears keys has not run for hours. The ledger would take such a key for new and storage would
		// refuse it. No fence is needed: the keys' time is over, whoever owns the event.
		if err := j.forgetKeys(ctx, conn.Conn(), event, owned.now.Add(-evently.KeyRetentionMin)); err != nil {
			return nil, err
		}
	}
	return &evently.Tenure{Ledger: loaded.ledger, Epoch: owned.epoch, Owner: owned.owner, Now: loaded.now}, nil
}

// head is the row of event_heads as an acquisition left it.
type head struct {
	event                  evently.EventID
	epoch, seq             uint64
	owner                  [16]byte
	lastAt, now            time.Time
	capacity, held, booked []int32
	waiting                int
}

// takeHead is the first phase.
func (j *Journal) takeHead(ctx context.Context, conn *pgx.Conn, event evently.EventID) (*head, error) {
	h := &head{event: event}
	copy(h.owner[:], j.instance[:])
	rand.Read(h.owner[len(j.instance):])
	defer j.evictor.watch(conn.PgConn().PID())()
	var batch pgx.Batch // one transaction
	var previous [16]byte
	j.limitLockWait(&batch)
	batch.Queue(acquireSQL, int64(event), pgtype.UUID{Bytes: h.owner, Valid: true}).QueryRow(func(row pgx.Row) error {
		return row.Scan(&h.epoch, &h.seq, &h.lastAt, &h.capacity, &h.held, &h.booked, &h.waiting, &h.now, &previous)
	})
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, err
	}
	j.config.Metrics.acquisitions.WithLabelValues(j.relation(previous)).Inc()
	return h, nil
}

// Values of the label of evently_acquisitions_total.
const (
	previousNone  = "none"
	previousSelf  = "self"
	previousOther = "other"
)

// relation tells whose an owner is. The journals of other processes have other instances.
func (j *Journal) relation(owner [16]byte) string {
	switch {
	case owner == [16]byte{}:
		return previousNone
	case [8]byte(owner[:8]) == j.instance:
		return previousSelf
	}
	return previousOther
}

func (j *Journal) forgetKeys(ctx context.Context, conn *pgx.Conn, event evently.EventID, before time.Time) error {
	var batch pgx.Batch // one transaction
	j.limitLockWait(&batch)
	batch.Queue(forgetKeysSQL, int64(event), before)
	batch.Queue(forgetWaitKeysSQL, int64(event), before)
	return conn.SendBatch(ctx, &batch).Close()
}

func (j *Journal) limitLockWait(batch *pgx.Batch) {
	batch.Queue(lockTimeoutSQL, strconv.FormatInt(j.lockWait.Milliseconds(), 10))
}
