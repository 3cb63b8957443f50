package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// reach is whether the writers of a journal get connections. They connect when there is something to write only, and keep
// what they have: a server that takes no more connections need not be noticed by anybody else.
type reach struct {
	failingSince atomic.Pointer[time.Time] // nil: the last attempt worked
}

func (r *reach) note(err error) {
	if err == nil {
		r.failingSince.Store(nil)
		return
	}
	now := time.Now()
	r.failingSince.CompareAndSwap(nil, &now)
}

// FailingSince returns since when the journal gets no connections to write, or the zero time if it got the last one it wanted.
func (j *Journal) FailingSince() time.Time {
	if since := j.reach.failingSince.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// Check returns nil unless the journal gets no connections to write. If it got none the last time, Check tries again.
func (j *Journal) Check(ctx context.Context) error {
	if j.reach.failingSince.Load() == nil {
		return nil
	}
	conn, err := pgconn.ConnectConfig(ctx, j.writers[0].connect.Config.Copy())
	if err == nil {
		err = conn.Close(ctx)
	}
	j.reach.note(err)
	if err != nil {
		return failed(err, "connect to write")
	}
	return nil
}
