package peers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently"
)

// redisPostgres takes seats in Redis and then inserts the reservation in Postgres, and answers when both are done. What stands in Redis
// alone is no booking yet: when the insert was refused the seats are given back, and when its outcome is not known they stay taken
// until somebody asks again with the key, which inserts again, or until the hold is past its time.
type redisPostgres struct{ *seats }

func newRedisPostgres(r *resources) *redisPostgres { return &redisPostgres{newSeats(r, false)} }

func (*redisPostgres) schema() string { return changeFunction("bench_redis_change", "", "") }

const (
	redisInsertSQL = insertRow + `values ($1, $2, $3, 0, $4, $5, $6, $7, $8, $9, $9, $10)`

	redisEndedSQL = `
update reservations set status = 3, ended_at = $3, seq = seq + 1 where event_id = $1 and token = any ($2) and status = 0`

	redisChangeSQL = `select ` + reservationColumns + ` from bench_redis_change($1, $2, $3, $4, $5, $6)`
)

func (d *redisPostgres) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	b.seq = d.rows.seq.next()
	known, gone, err := d.hold(ctx, b)
	if len(gone) > 0 {
		if ended := d.expired(ctx, b, gone); ended != nil {
			return nil, errors.Join(ended, d.undo(ctx, b, err))
		}
	}
	switch {
	case err != nil:
		return nil, err
	case known != "":
		return d.again(ctx, b, known)
	}
	err = d.insert(ctx, b)
	switch {
	case err == nil:
		return nil, nil
	case isDuplicate(err): // Redis had forgotten the key
		return d.forgotten(ctx, b)
	case definite(err):
		return nil, errors.Join(err, d.undo(ctx, b, nil))
	}
	return nil, err
}

func (d *redisPostgres) insert(ctx context.Context, b *booking) error {
	_, err := d.rows.pool.Exec(ctx, redisInsertSQL, int64(b.offer.event), int64(b.token), int64(b.user), int16(b.tier), int32(b.quantity), b.price,
		b.at, b.until, int64(b.seq), keyUUID(b.key))
	return err
}

// again answers with what Redis knows of a key once it stands in Postgres, too.
func (d *redisPostgres) again(ctx context.Context, b *booking, text string) (*evently.Reservation, error) {
	o := b.offer
	first, key, err := parse(o, text)
	if err != nil {
		return nil, err
	}
	stored, err := d.rows.known(ctx, o, key)
	if err != nil || stored != nil {
		return stored, err
	}
	// The first request is still under way, or its outcome is not known.
	item := first.Items.At(0)
	err = d.insert(ctx, &booking{
		offer: o, tier: item.Tier, quantity: item.Quantity, price: item.UnitPriceMinor, token: first.ID.Token, user: first.User, key: key,
		at: first.CreatedAt, until: first.ExpiresAt, seq: first.Seq,
	})
	if err != nil && !isDuplicate(err) {
		return nil, err
	}
	if !b.at.Before(first.ExpiresAt) { // and Redis may have sold its seats
		if err := d.expired(ctx, b, []string{strconv.FormatUint(uint64(first.ID.Token), 10)}); err != nil {
			return nil, err
		}
	}
	return d.rows.mustKnow(ctx, o, key)
}

// forgotten gives back seats that were taken for a key that had a reservation, and answers with that.
func (d *redisPostgres) forgotten(ctx context.Context, b *booking) (*evently.Reservation, error) {
	first, err := d.rows.mustKnow(ctx, b.offer, b.key)
	if err != nil || first.ID.Token == b.token {
		return first, err
	}
	return first, d.undo(ctx, b, nil)
}

// compensateMax bounds the giving back of seats, which goes on when the caller has gone.
const compensateMax = 5 * time.Second

// undo gives the seats of a booking back that Redis has held, which it has unless it refused.
func (d *redisPostgres) undo(ctx context.Context, b *booking, refusal error) error {
	if refusal != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), compensateMax)
	defer cancel()
	keys := keysOf(b.offer.event)
	_, err := d.run(ctx, giveScript, []string{keys.seats, keys.live, keys.key(b.key)}, member(b.token, b.tier, b.quantity), b.tier, b.quantity)
	return err
}

// definite reports whether an insert surely has not happened: Postgres refused it, or was not reached.
func definite(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) || pgconn.SafeToRetry(err)
}

// expired writes down which holds have ended in Redis.
func (d *redisPostgres) expired(ctx context.Context, b *booking, gone []string) error {
	tokens := make([]int64, len(gone))
	for i, text := range gone {
		token, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("peers: token %q: %w", text, err)
		}
		tokens[i] = int64(token)
	}
	_, err := d.rows.pool.Exec(ctx, redisEndedSQL, int64(b.offer.event), tokens, b.at)
	return err
}

func (d *redisPostgres) known(ctx context.Context, o *offer, key evently.Key) (*evently.Reservation, error) {
	return d.rows.known(ctx, o, key)
}

// change has Redis keep a hold before Postgres confirms it, and Postgres end a reservation before Redis gives its seats to others: so
// no seat is sold twice, wherever it stops in between.
func (d *redisPostgres) change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	if c.want == confirm {
		return d.confirm(ctx, o, c)
	}
	r, err := d.rows.changeBy(ctx, redisChangeSQL, o, c)
	if err != nil || r.Status != evently.Cancelled {
		return r, err
	}
	item := r.Items.At(0)
	keys := keysOf(o.event)
	_, err = d.run(ctx, giveScript, []string{keys.seats, keys.live}, member(c.token, item.Tier, item.Quantity), item.Tier, item.Quantity)
	return r, err
}

func (d *redisPostgres) confirm(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	r, err := d.rows.changeBy(ctx, redisChangeSQL, o, &change{token: c.token, user: c.user, want: look, at: c.at})
	if err != nil || r.Status != evently.Held {
		return r, err
	}
	item := r.Items.At(0)
	keys := keysOf(o.event)
	kept, err := d.run(ctx, keepScript, []string{keys.seats, keys.live}, member(c.token, item.Tier, item.Quantity), item.Tier, item.Quantity,
		c.at.UnixMilli())
	switch {
	case err != nil:
		return nil, err
	case kept == int64(0):
		r.Status, r.EndedAt = evently.Expired, r.ExpiresAt
		return r, nil
	}
	// If this fails the seats stay taken, and a repetition confirms.
	return d.rows.changeBy(ctx, redisChangeSQL, o, c)
}
