package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Accounts stores users, sessions, one-time codes and the security log in Postgres.
type Accounts struct {
	pool *pgxpool.Pool
	mail MailQueue
}

var _ evently.Accounts = (*Accounts)(nil)

// NewAccounts returns the accounts of a database. mail may be nil in a program that issues no one-time codes.
func NewAccounts(pool *pgxpool.Pool, mail MailQueue) *Accounts { return &Accounts{pool, mail} }

const createUserSQL = `
insert into users (user_id, email, name, role, password_hash, email_verified, created_at)
values ($1, $2, $3, $4, $5, $6, $7)`

// CreateUser implements evently.Accounts.
func (a *Accounts) CreateUser(ctx context.Context, user *evently.User, code *evently.OneTimeCode, origin *evently.Origin) error {
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue(createUserSQL, int64(user.ID), user.Email, user.Name, user.Role, user.PasswordHash,
			user.EmailVerified, milliseconds(user.CreatedAt))
		batch.Queue(logSecuritySQL, securityArgs(user.ID, evently.SecurityRegistered, origin, nil)...)
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil || code == nil {
			return err
		}
		_, err := a.issue(ctx, tx, user.ID, code, origin)
		return err
	})
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

// collect gives all rows of a query, or the error of either.
func collect[T any](rows pgx.Rows, err error, scan pgx.RowToFunc[T]) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// usersSQL is served by users_by_age. A filter for a text reads users until the page is full.
const usersSQL = `
select ` + userColumns + `
from users u
where (u.created_at, u.user_id) < ($1, $2) and ($3::int2 is null or u.role = $3)
  and ($4 = '' or folded(u.email) like (select folded($4)) or folded(u.name) like (select folded($4)))
order by u.created_at desc, u.user_id desc
limit $5`

// Users implements evently.Accounts.
func (a *Accounts) Users(ctx context.Context, filter evently.UserFilter, page evently.Page) ([]*evently.User, *evently.Cursor, error) {
	before, id, limit := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, int64(math.MaxInt64), limitOf(page)
	if page.After != nil {
		before = pgtype.Timestamptz{Time: time.UnixMilli(page.After.Order), Valid: true}
		id = int64(page.After.Token)
	}
	rows, err := a.pool.Query(ctx, usersSQL, before, id, filter.Role, containing(filter.Text), limit+1)
	users, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.User, error) { return scanUser(row) })
	if err != nil {
		return nil, nil, failed(err, "list users")
	}
	if len(users) <= limit {
		return users, nil, nil
	}
	users = users[:limit]
	last := users[limit-1]
	return users, &evently.Cursor{Order: last.CreatedAt.UnixMilli(), Token: evently.Token(last.ID)}, nil
}

// lockAdminsSQL has changes of roles wait for each other: there always is an administrator. It is served by users_admins.
const lockAdminsSQL = `select user_id from users where role = 2 order by user_id for no key update`

const changeRoleSQL = `
update users u set role = $2
from (select user_id, role from users where user_id = $1 for no key update) before
where u.user_id = before.user_id
returning before.role, ` + userColumns

// ChangeRole implements evently.Accounts.
func (a *Accounts) ChangeRole(ctx context.Context, id evently.UserID, role evently.Role, origin *evently.Origin) (
	user *evently.User, revoked []evently.SessionID, err error,
) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, lockAdminsSQL)
		admins, err := collect(rows, err, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		if role != evently.RoleAdmin && len(admins) == 1 && admins[0] == int64(id) {
			return evently.ErrLastAdmin
		}
		var before evently.Role
		if user, err = scanUser(prefixed{tx.QueryRow(ctx, changeRoleSQL, int64(id), role), []any{&before}}); err != nil || before == role {
			return err
		}
		if revoked, err = revokeAll(ctx, tx, id, evently.SessionID{}, origin.At); err != nil {
			return err
		}
		return logSecurity(ctx, tx, id, evently.SecurityRoleChanged, origin,
			map[string]string{"from": before.String(), "to": role.String(), "sessions": count(revoked)})
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, evently.ErrNotFound
	case errors.Is(err, evently.ErrLastAdmin):
		return nil, nil, err
	case err != nil:
		return nil, nil, failed(err, "change the role of user %s", id)
	}
	return user, revoked, nil
}
