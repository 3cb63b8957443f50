package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"github.com/evently/evently"
)

// claimEndMax bounds storing an answer and giving a key back.
const claimEndMax = 5 * time.Second

// Answers remembers responses in Postgres. A claim is a transaction that holds an advisory lock on the key: it ends with the
// connection, so no key stays locked behind a node that died.
//
// A claim occupies a connection of the pool while its request is worked on, so at most half of the pool's connections
// go to claims, and the other half stays free for the work itself. Of requests with the same key on one node only one
// waits in Postgres.
type Answers struct {
	pool  *pgxpool.Pool
	slots *semaphore.Weighted

	mu   sync.Mutex
	busy map[evently.Key]chan struct{} // closed when the key is free again; no more than the requests in flight
}

var _ evently.Answers = (*Answers)(nil)

// NewAnswers returns the answers of a database.
func NewAnswers(pool *pgxpool.Pool) *Answers {
	return &Answers{
		pool:  pool,
		slots: semaphore.NewWeighted(int64(pool.Config().MaxConns / 2)),
		busy:  make(map[evently.Key]chan struct{}),
	}
}

// claimLimitSQL lets a claim stand idle, while its request is worked on, for longer than other transactions.
const claimLimitSQL = `set local idle_in_transaction_session_timeout = '60s'`

// lockKeySQL locks 64 bits of the key: two keys that share them only wait for each other.
const lockKeySQL = `select pg_advisory_xact_lock($1)`

// readAnswerSQL is a statement of its own, so that it sees what the key's last holder committed.
const readAnswerSQL = `select fingerprint, status, header, body from answers where key = $1`

// Claim implements evently.Answers. It also returns an error that is an evently.ErrOverloaded when ctx ends while too many
// others hold claims, or an evently.ErrUnavailable.
func (a *Answers) Claim(ctx context.Context, key evently.Key, fingerprint [32]byte) (*evently.Answer, evently.Claim, error) {
	if err := a.enter(ctx, key); err != nil {
		return nil, nil, err
	}
	tx, err := a.pool.Begin(ctx)
	if err != nil {
		a.leave(key)
		return nil, nil, failed(err, "claim answer")
	}
	c := &claim{answers: a, tx: tx, key: key, fingerprint: fingerprint}
	answer, err := c.read(ctx)
	if err != nil || answer != nil {
		c.Release()
		return answer, nil, err
	}
	return nil, c, nil
}

// enter waits until the key is free on this node, then for a slot.
func (a *Answers) enter(ctx context.Context, key evently.Key) error {
	for {
		a.mu.Lock()
		busy, found := a.busy[key]
		if !found {
			a.busy[key] = make(chan struct{})
			a.mu.Unlock()
			break
		}
		a.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return fmt.Errorf("claim answer: %w: %w", evently.ErrOverloaded, ctx.Err())
		}
	}
	if err := a.slots.Acquire(ctx, 1); err != nil {
		a.free(key)
		return fmt.Errorf("claim answer: %w: %w", evently.ErrOverloaded, err)
	}
	return nil
}

func (a *Answers) leave(key evently.Key) {
	a.slots.Release(1)
	a.free(key)
}

func (a *Answers) free(key evently.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.busy[key])
	delete(a.busy, key)
}

// claim is not for concurrent use.
type claim struct {
	answers     *Answers
	tx          pgx.Tx
	key         evently.Key
	fingerprint [32]byte
	ended       bool
}

// read locks the key and returns the stored answer, or nil.
func (c *claim) read(ctx context.Context) (*evently.Answer, error) {
	var fingerprint []byte
	var answer evently.Answer
	var batch pgx.Batch
	batch.Queue(claimLimitSQL)
	batch.Queue(lockKeySQL, int64(c.key.Hi^c.key.Lo))
	batch.Queue(readAnswerSQL, keyUUID(c.key)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&fingerprint, &answer.Status, &answer.Header, &answer.Body)
	})
	err := c.tx.SendBatch(ctx, &batch).Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, failed(err, "claim answer")
	case string(fingerprint) != string(c.fingerprint[:]):
		return nil, evently.ErrKeyReused
	}
	return &answer, nil
}

const storeAnswerSQL = `
insert into answers (key, fingerprint, status, header, body, created_at) values ($1, $2, $3, $4, $5, clock_timestamp())`

// Store implements evently.Claim. It does not stop when ctx ends: what is answered has happened, and a client that went away
// is the one that will ask again.
func (c *claim) Store(ctx context.Context, answer *evently.Answer) error {
	if c.ended {
		return errors.New("store answer: the claim has ended")
	}
	defer c.Release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimEndMax)
	defer cancel()
	header := answer.Header
	if header == nil {
		header = map[string]string{} // nil would be null
	}
	_, err := c.tx.Exec(ctx, storeAnswerSQL, keyUUID(c.key), c.fingerprint[:], answer.Status, header, append([]byte{}, answer.Body...))
	if err == nil {
		err = c.tx.Commit(ctx)
	}
	if err != nil {
		return failed(err, "store answer")
	}
	return nil
}

// Release implements evently.Claim.
func (c *claim) Release() {
	if c.ended {
		return
	}
	c.ended = true
	ctx, cancel := context.WithTimeout(context.Background(), claimEndMax)
	defer cancel()
	// A rollback that fails, like one after the commit, leaves nothing to do: the pool closes a connection that is still in
	// a transaction, and with it the lock goes.
	_ = c.tx.Rollback(ctx)
	c.answers.leave(c.key)
}
