package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// throttleKey is what failed sign-ins with an address are counted under. A digest bounds what a made-up address takes up.
func throttleKey(email string) [16]byte {
	sum := sha256.Sum256([]byte(email))
	return [16]byte(sum[:16])
}

const (
	throttleSQL     = `select free_at from sign_in_throttles where key = $1`
	lockThrottleSQL = throttleSQL + ` for update`
)

// signInWait reads how long sign-ins are refused, out of the row of one of these statements.
func signInWait(row pgx.Row, now time.Time) (time.Duration, error) {
	var freeAt time.Time
	if err := row.Scan(&freeAt); errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return max(freeAt.Sub(milliseconds(now)), 0), nil
}

// SignInWait implements evently.Accounts.
func (a *Accounts) SignInWait(ctx context.Context, email string, now time.Time) (time.Duration, error) {
	wait, err := signInWait(a.pool.QueryRow(ctx, throttleSQL, throttleKey(email)), now)
	if err != nil {
		return 0, failed(err, "read the delay of sign-ins")
	}
	return wait, nil
}

// failSignInSQL counts in the row, so that failures at the same time each count, and none while there is a delay. $1 to $9 are
// those of logSecuritySQL. A failure that brings a delay is logged with it, and refusals until then are not: however many come.
const failSignInSQL = `
with counted as (
    insert into sign_in_throttles as t (key, failures, free_at) values ($10, 1, $1)
    on conflict (key) do update set
        failures = case when t.free_at <= $11 then 1 else t.failures + 1 end,
        free_at  = case
            when t.free_at <= $11 or t.failures + 1 < $12::int4 then $1
            else $1 + least($14::interval, $13::interval * power(2, least(t.failures + 1 - $12, 20)))
        end
    where t.free_at <= $1
    returning t.free_at
), logged as (` + logSecuritySQL + ` from counted
    union all
    select $1, nullif($2, 0), $15, null, null, $6, $7, $8, jsonb_build_object('seconds', extract(epoch from free_at - $1)::int8::text)
    from counted where free_at > $1
)
select count(*) from counted`

// FailSignIn implements evently.Accounts.
func (a *Accounts) FailSignIn(ctx context.Context, email string, user evently.UserID, origin *evently.Origin) (time.Duration, error) {
	at, key := milliseconds(origin.At), throttleKey(email)
	var counted int
	row := a.pool.QueryRow(ctx, failSignInSQL, append(securityArgs(user, evently.SecuritySignInFailed, origin, nil),
		key, at.Add(-evently.SignInMemory), evently.SignInFailuresMax, evently.SignInDelayMin, evently.SignInDelayMax,
		evently.SecuritySignInThrottled)...)
	if err := row.Scan(&counted); err != nil {
		return 0, failed(err, "count a failed sign-in")
	}
	if counted > 0 {
		return 0, nil
	}
	return a.SignInWait(ctx, email, at)
}

const forgetFailuresSQL = `delete from sign_in_throttles where key = $1`

// sweepThrottlesSQL is served by sign_in_throttles_by_age.
const sweepThrottlesSQL = `
delete from sign_in_throttles
where key = any (array(select key from sign_in_throttles where free_at < $1 order by free_at limit $2)) and free_at < $1`
