package store

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// revokedMax bounds RevokedSessions.
const revokedMax = 100_000

// lockUserSQL has the sign-ins of one user wait for each other, so that each counts the sessions of those before it, and for
// changes of the password and of the role, which revoke the sessions that they find.
const lockUserSQL = `select ` + userColumns + ` from users u where u.user_id = $1 for no key update`

// revokeOldestSQL makes room for one session. It is served by sessions_by_user.
const revokeOldestSQL = `
update sessions set revoked_at = $2
where session_id in (
    select session_id from sessions
    where user_id = $1 and revoked_at is null and expires_at > $2
    order by created_at desc, session_id
    offset $3
)`

const createSessionSQL = `
insert into sessions (session_id, user_id, created_at, last_used_at, expires_at, user_agent, ip, refresh)
values ($1, $2, $3, $4, $5, $6, $7, $8)`

// CreateSession implements evently.Accounts.
func (a *Accounts) CreateSession(
	ctx context.Context, session *evently.Session, refresh [32]byte, hash string, origin *evently.Origin,
) (user *evently.User, wait time.Duration, err error) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if user, err = scanUser(tx.QueryRow(ctx, lockUserSQL, int64(session.User))); err != nil {
			return err
		}
		if user.PasswordHash != hash {
			return evently.ErrPasswordOutdated
		}
		// A failure that is being counted is waited for: whoever guesses learns nothing more once there is a delay.
		if wait, err = signInWait(tx.QueryRow(ctx, lockThrottleSQL, throttleKey(user.Email)), origin.At); err != nil || wait > 0 {
			return err
		}
		signedIn := *origin
		signedIn.Actor, signedIn.Session = user.ID, session.ID
		var batch pgx.Batch
		batch.Queue(forgetFailuresSQL, throttleKey(user.Email))
		batch.Queue(revokeOldestSQL, int64(session.User), milliseconds(session.CreatedAt), evently.SessionsMax-1)
		batch.Queue(createSessionSQL, [16]byte(session.ID), int64(session.User), milliseconds(session.CreatedAt),
			milliseconds(session.LastUsedAt), milliseconds(session.ExpiresAt),
			strings.ToValidUTF8(session.UserAgent, "?"), // a header of any bytes, cut at any byte
			session.IP, refresh[:])
		batch.Queue(logSecuritySQL, securityArgs(user.ID, evently.SecuritySignedIn, &signedIn, nil)...)
		return tx.SendBatch(ctx, &batch).Close()
	})
	switch {
	case errors.Is(err, evently.ErrPasswordOutdated), errors.Is(err, pgx.ErrNoRows):
		return nil, 0, evently.ErrPasswordOutdated
	case err != nil:
		return nil, 0, failed(err, "create session of user %s", session.User)
	case wait > 0:
		return nil, wait, nil
	}
	return user, 0, nil
}

// rotateSessionSQL decides in the row itself. Of several statements with one token the first to lock the row rotates it; the
// others wait, read the row again as it is then, see that their token is spent, and either find the successor that it was given
// or revoke. $1 to $5 are those of the log, $6 the session, $7 the digest, $8 the successors and $9 the end of the grace.
const rotateSessionSQL = `
with rotated as (
    update sessions s set
        refresh      = case when s.refresh = $7 then ($8::bytea[])[1] else s.refresh end,
        spent        = case when s.refresh = $7 then s.refresh else s.spent end,
        spent_at     = case when s.refresh = $7 then $1 else s.spent_at end,
        last_used_at = case when s.refresh = $7 then $1 else s.last_used_at end,
        revoked_at   = case
            when s.refresh = $7 or s.spent = $7 and s.spent_at > $9 and s.refresh = any ($8) then null
            else $1
        end
    where s.session_id = $6 and s.revoked_at is null and s.expires_at > $1
    returning s.user_id, s.session_id, s.refresh, s.revoked_at is not null as revoked
), logged as (
    insert into security_log (at, user_id, kind, session_id, ip, user_agent, request_id)
    select $1::timestamptz, r.user_id, $2::text, r.session_id, $3::text, $4::text, $5::text from rotated r where r.revoked
)
select r.revoked, coalesce(array_position($8::bytea[], r.refresh), 0), ` + userColumns + `
from rotated r join users u using (user_id)`

// RotateSession implements evently.Accounts.
func (a *Accounts) RotateSession(
	ctx context.Context, id evently.SessionID, spent [32]byte, successors [][32]byte, origin *evently.Origin,
) (user *evently.User, successor int, err error) {
	var revoked bool
	row := a.pool.QueryRow(ctx, rotateSessionSQL, milliseconds(origin.At), evently.SecurityRefreshReused, origin.IP,
		strings.ToValidUTF8(origin.UserAgent, "?"), origin.RequestID,
		[16]byte(id), spent[:], byteas(successors), milliseconds(origin.At).Add(-evently.RefreshGrace))
	user, err = scanUser(prefixed{row, []any{&revoked, &successor}})
	if err == nil && revoked {
		return nil, 0, evently.ErrSessionEnded
	}
	user, err = found(user, err, evently.ErrSessionEnded, "rotate session")
	return user, successor - 1, err
}

// byteas is the column form of digests.
func byteas(digests [][32]byte) [][]byte {
	list := make([][]byte, len(digests))
	for i := range digests {
		list[i] = digests[i][:]
	}
	return list
}

// sessionsSQL is served by sessions_by_user.
const sessionsSQL = `
select session_id, user_id, created_at, last_used_at, expires_at, user_agent, ip
from sessions
where user_id = $1 and revoked_at is null and expires_at > $2
order by created_at desc, session_id
limit $3`

// Sessions implements evently.Accounts.
func (a *Accounts) Sessions(ctx context.Context, user evently.UserID, now time.Time) ([]*evently.Session, error) {
	rows, err := a.pool.Query(ctx, sessionsSQL, int64(user), now, evently.SessionsMax)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.Session, error) {
		var s evently.Session
		var owner int64
		err := row.Scan((*[16]byte)(&s.ID), &owner, &s.CreatedAt, &s.LastUsedAt, &s.ExpiresAt, &s.UserAgent, &s.IP)
		s.User = evently.UserID(owner)
		for _, t := range []*time.Time{&s.CreatedAt, &s.LastUsedAt, &s.ExpiresAt} {
			*t = milliseconds(*t)
		}
		return &s, err
	})
	if err != nil {
		return nil, failed(err, "list sessions of user %s", user)
	}
	return list, nil
}

// revokeSessionSQL has the parameters of logSecuritySQL first; $2 is the user and $1 the time.
const revokeSessionSQL = `
with revoked as (
    update sessions set revoked_at = $1
    where session_id = $10 and user_id = $2 and revoked_at is null and expires_at > $1
    returning 1
)` + logSecuritySQL + ` from revoked`

// RevokeSession implements evently.Accounts.
func (a *Accounts) RevokeSession(ctx context.Context, user evently.UserID, id evently.SessionID, origin *evently.Origin) error {
	kind, detail := evently.SecuritySignedOut, map[string]string(nil)
	if id != origin.Session {
		kind, detail = evently.SecuritySessionRevoked, map[string]string{"target": hex.EncodeToString(id[:])}
	}
	tag, err := a.pool.Exec(ctx, revokeSessionSQL, append(securityArgs(user, kind, origin, detail), [16]byte(id))...)
	if err != nil {
		return failed(err, "revoke session of user %s", user)
	}
	if tag.RowsAffected() == 0 {
		return evently.ErrNotFound
	}
	return nil
}

// revokeAllSQL is served by sessions_by_user.
const revokeAllSQL = `
update sessions set revoked_at = $3
where user_id = $1 and session_id <> $2 and revoked_at is null and expires_at > $3
returning session_id`

// revokeAll ends the live sessions of a user but one, which may be zero.
func revokeAll(ctx context.Context, tx pgx.Tx, user evently.UserID, but evently.SessionID, at time.Time) ([]evently.SessionID, error) {
	rows, err := tx.Query(ctx, revokeAllSQL, int64(user), [16]byte(but), milliseconds(at))
	return collect(rows, err, scanSessionID)
}

func scanSessionID(row pgx.CollectableRow) (id evently.SessionID, err error) {
	err = row.Scan((*[16]byte)(&id))
	return id, err
}

// count is the number of sessions as a detail of the security log.
func count(sessions []evently.SessionID) string { return strconv.Itoa(len(sessions)) }

// RevokeOtherSessions implements evently.Accounts.
func (a *Accounts) RevokeOtherSessions(ctx context.Context, user evently.UserID, origin *evently.Origin) (
	revoked []evently.SessionID, err error,
) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if revoked, err = revokeAll(ctx, tx, user, origin.Session, origin.At); err != nil || len(revoked) == 0 {
			return err
		}
		return logSecurity(ctx, tx, user, evently.SecuritySignedOutOthers, origin, map[string]string{"sessions": count(revoked)})
	})
	if err != nil {
		return nil, failed(err, "revoke the other sessions of user %s", user)
	}
	return revoked, nil
}

// revokedSessionsSQL is served by sessions_by_revocation. Beyond the limit the latest count: their access tokens live longest.
const revokedSessionsSQL = `select session_id from sessions where revoked_at >= $1 order by revoked_at desc limit $2`

// RevokedSessions implements evently.Accounts. A revocation carries the clock of the node that made it, and shows when it
// commits: ask again from some seconds before the last question.
func (a *Accounts) RevokedSessions(ctx context.Context, since time.Time) ([]evently.SessionID, error) {
	rows, err := a.pool.Query(ctx, revokedSessionsSQL, milliseconds(since), revokedMax)
	list, err := collect(rows, err, scanSessionID)
	if err != nil {
		return nil, failed(err, "list revoked sessions")
	}
	return list, nil
}
