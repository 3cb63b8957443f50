package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// revokedMax bounds RevokedSessions.
const revokedMax = 100_000

// Accounts stores users and sessions in Postgres.
type Accounts struct{ pool *pgxpool.Pool }

var _ evently.Accounts = (*Accounts)(nil)

// NewAccounts returns the accounts of a database.
func NewAccounts(pool *pgxpool.Pool) *Accounts { return &Accounts{pool} }

const createUserSQL = `
insert into users (user_id, email, name, role, password_hash, email_verified, created_at)
values ($1, $2, $3, $4, $5, $6, $7)`

// CreateUser implements evently.Accounts.
func (a *Accounts) CreateUser(ctx context.Context, user *evently.User) error {
	_, err := a.pool.Exec(ctx, createUserSQL, int64(user.ID), user.Email, user.Name, user.Role, user.PasswordHash,
		user.EmailVerified, milliseconds(user.CreatedAt))
	if violates(err, "users_email_key") {
		return evently.ErrEmailTaken
	}
	if err != nil {
		return failed(err, "create user %s", user.ID)
	}
	return nil
}

// violates reports whether err says that a row breaks a constraint.
func violates(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.ConstraintName == constraint
}

const userColumns = `u.user_id, u.email, u.name, u.role, u.password_hash, u.email_verified, u.created_at`

// The primary key and the unique index on email serve these.
const (
	userSQL        = `select ` + userColumns + ` from users u where u.user_id = $1`
	userByEmailSQL = `select ` + userColumns + ` from users u where u.email = $1`
)

// User implements evently.Accounts.
func (a *Accounts) User(ctx context.Context, id evently.UserID) (*evently.User, error) {
	user, err := scanUser(a.pool.QueryRow(ctx, userSQL, int64(id)))
	return found(user, err, evently.ErrNotFound, "read user %s", id)
}

// UserByEmail implements evently.Accounts.
func (a *Accounts) UserByEmail(ctx context.Context, email string) (*evently.User, error) {
	user, err := scanUser(a.pool.QueryRow(ctx, userByEmailSQL, email))
	return found(user, err, evently.ErrNotFound, "read user by e-mail address")
}

func scanUser(row pgx.Row) (*evently.User, error) {
	var user evently.User
	var id int64
	err := row.Scan(&id, &user.Email, &user.Name, &user.Role, &user.PasswordHash, &user.EmailVerified, &user.CreatedAt)
	user.ID, user.CreatedAt = evently.UserID(id), milliseconds(user.CreatedAt)
	return &user, err
}

// found gives the result of a query for one row, or absent when there was none.
func found[T any](result *T, err, absent error, format string, args ...any) (*T, error) {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, absent
	case err != nil:
		return nil, failed(err, format, args...)
	}
	return result, nil
}

// lockUserSQL has the sign-ins of one user wait for each other, so that each counts the sessions of those before it.
const lockUserSQL = `select from users where user_id = $1 for no key update`

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
func (a *Accounts) CreateSession(ctx context.Context, session *evently.Session, refresh [32]byte) error {
	var batch pgx.Batch // one transaction
	batch.Queue(lockUserSQL, int64(session.User))
	batch.Queue(revokeOldestSQL, int64(session.User), milliseconds(session.CreatedAt), evently.SessionsMax-1)
	batch.Queue(createSessionSQL, [16]byte(session.ID), int64(session.User), milliseconds(session.CreatedAt),
		milliseconds(session.LastUsedAt), milliseconds(session.ExpiresAt),
		strings.ToValidUTF8(session.UserAgent, "?"), // a header of any bytes, cut at any byte
		session.IP, refresh[:])
	if err := a.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return failed(err, "create session of user %s", session.User)
	}
	return nil
}

// rotateSessionSQL decides in the row itself. Of several statements with one token the first to lock the row rotates it;
// the others wait, read the row again as it is then, see that their token is spent, and revoke.
const rotateSessionSQL = `
update sessions s set
    refresh      = case when s.refresh = $2 then $3 else s.refresh end,
    last_used_at = case when s.refresh = $2 then $4 else s.last_used_at end,
    revoked_at   = case when s.refresh = $2 then null else $4 end
from users u
where s.session_id = $1 and s.revoked_at is null and s.expires_at > $4 and u.user_id = s.user_id
returning s.revoked_at is not null, ` + userColumns

// RotateSession implements evently.Accounts.
func (a *Accounts) RotateSession(
	ctx context.Context, id evently.SessionID, spent, fresh [32]byte, now time.Time,
) (*evently.User, error) {
	var revoked bool
	row := a.pool.QueryRow(ctx, rotateSessionSQL, [16]byte(id), spent[:], fresh[:], milliseconds(now))
	user, err := scanUser(prefixed{row, &revoked})
	if err == nil && revoked {
		return nil, evently.ErrSessionEnded
	}
	return found(user, err, evently.ErrSessionEnded, "rotate session")
}

// prefixed is a row with one more column in front.
type prefixed struct {
	pgx.Row
	first any
}

func (p prefixed) Scan(dest ...any) error { return p.Row.Scan(append([]any{p.first}, dest...)...) }

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
	if err != nil {
		return nil, failed(err, "list sessions of user %s", user)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*evently.Session, error) {
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

const revokeSessionSQL = `
update sessions set revoked_at = $3
where session_id = $1 and user_id = $2 and revoked_at is null and expires_at > $3`

// RevokeSession implements evently.Accounts.
func (a *Accounts) RevokeSession(ctx context.Context, user evently.UserID, id evently.SessionID, now time.Time) error {
	tag, err := a.pool.Exec(ctx, revokeSessionSQL, [16]byte(id), int64(user), milliseconds(now))
	if err != nil {
		return failed(err, "revoke session of user %s", user)
	}
	if tag.RowsAffected() == 0 {
		return evently.ErrNotFound
	}
	return nil
}

// revokedSessionsSQL is served by sessions_by_revocation. Beyond the limit the latest count: their access tokens live longest.
const revokedSessionsSQL = `select session_id from sessions where revoked_at >= $1 order by revoked_at desc limit $2`

// RevokedSessions implements evently.Accounts. A revocation carries the clock of the node that made it, and shows when it
// commits: ask again from some seconds before the last question.
func (a *Accounts) RevokedSessions(ctx context.Context, since time.Time) ([]evently.SessionID, error) {
	rows, err := a.pool.Query(ctx, revokedSessionsSQL, milliseconds(since), revokedMax)
	if err != nil {
		return nil, failed(err, "list revoked sessions")
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (id evently.SessionID, err error) {
		err = row.Scan((*[16]byte)(&id))
		return id, err
	})
	if err != nil {
		return nil, failed(err, "list revoked sessions")
	}
	return list, nil
}
