package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// issueCodeSQL replaces the code unless the last one is younger than $6, or a full list's first one younger than $7. sent_at
// keeps the last $5.
const issueCodeSQL = `
insert into one_time_codes as c (user_id, purpose, mac, expires_at, sent_at)
values ($1, $2, $3, $4, array[$8::timestamptz])
on conflict (user_id, purpose) do update set
    mac = excluded.mac, expires_at = excluded.expires_at, tries = 0, used_at = null,
    sent_at = (c.sent_at || excluded.sent_at)[greatest(cardinality(c.sent_at) - $5::int4 + 2, 1):]
where c.sent_at[cardinality(c.sent_at)] <= $6 and (cardinality(c.sent_at) < $5 or c.sent_at[1] <= $7)`

// issue stores a code and has it mailed, unless one was a short time ago.
func (a *Accounts) issue(
	ctx context.Context, tx pgx.Tx, user evently.UserID, code *evently.OneTimeCode, origin *evently.Origin,
) (issued bool, err error) {
	at := milliseconds(origin.At)
	tag, err := tx.Exec(ctx, issueCodeSQL, int64(user), code.Mail.Purpose, code.MAC[:], milliseconds(code.Mail.ExpiresAt),
		evently.CodesHourlyMax, at.Add(-evently.CodePause), at.Add(-time.Hour), at)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	err = logSecurity(ctx, tx, user, evently.SecurityCodeSent, origin, map[string]string{"purpose": code.Mail.Purpose.String()})
	if err == nil && a.mail != nil {
		err = a.mail.EnqueueCode(ctx, tx, &code.Mail)
	}
	return err == nil, err
}

// IssueCode implements evently.Accounts.
func (a *Accounts) IssueCode(ctx context.Context, user evently.UserID, code *evently.OneTimeCode, origin *evently.Origin) (
	issued bool, err error,
) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		issued, err = a.issue(ctx, tx, user, code, origin)
		return err
	})
	if err != nil {
		return false, failed(err, "issue a code to user %s", user)
	}
	return issued, nil
}

// spendCodeSQL counts a try, in the row: tries at the same time wait for each other, and each sees what is left.
const spendCodeSQL = `
update one_time_codes set tries = tries + 1, used_at = case when mac = any ($3) then $4::timestamptz end
where user_id = $1 and purpose = $2 and used_at is null and expires_at > $4 and tries < $5
returning used_at is not null`

// spend tries a code, and has act carried out in the same transaction when it is right. It returns ErrInvalidCode when it is not;
// the try counts nonetheless.
func (a *Accounts) spend(
	ctx context.Context, user evently.UserID, purpose evently.CodePurpose, macs [][32]byte, at time.Time, act func(tx pgx.Tx) error,
) error {
	var right bool
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, spendCodeSQL, int64(user), purpose, byteas(macs), milliseconds(at), evently.CodeTriesMax)
		if err := row.Scan(&right); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if !right {
			return nil
		}
		return act(tx)
	})
	switch {
	case err != nil:
		return failed(err, "spend a code of user %s", user)
	case !right:
		return evently.ErrInvalidCode
	}
	return nil
}

const verifyEmailSQL = `update users u set email_verified = true where u.user_id = $1 returning ` + userColumns

// VerifyEmail implements evently.Accounts.
func (a *Accounts) VerifyEmail(ctx context.Context, id evently.UserID, macs [][32]byte, origin *evently.Origin) (
	user *evently.User, err error,
) {
	err = a.spend(ctx, id, evently.VerifyEmailCode, macs, origin.At, func(tx pgx.Tx) error {
		if user, err = scanUser(tx.QueryRow(ctx, verifyEmailSQL, int64(id))); err != nil {
			return err
		}
		return logSecurity(ctx, tx, id, evently.SecurityEmailVerified, origin, nil)
	})
	if err != nil {
		return nil, err
	}
	return user, nil
}

const (
	resetPasswordSQL = `update users set password_hash = $2, email_verified = true where user_id = $1 returning email`
	voidCodeSQL      = `update one_time_codes set used_at = $3 where user_id = $1 and purpose = $2 and used_at is null`
)

// ResetPassword implements evently.Accounts.
func (a *Accounts) ResetPassword(ctx context.Context, id evently.UserID, macs [][32]byte, hash string, origin *evently.Origin) (
	revoked []evently.SessionID, err error,
) {
	err = a.spend(ctx, id, evently.ResetPasswordCode, macs, origin.At, func(tx pgx.Tx) error {
		var email string
		if err := tx.QueryRow(ctx, resetPasswordSQL, int64(id), hash).Scan(&email); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, forgetFailuresSQL, throttleKey(email)); err != nil {
			return err
		}
		revoked, err = a.afterPassword(ctx, tx, id, evently.SecurityPasswordReset, evently.SessionID{}, origin)
		return err
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// afterPassword ends what is older than a new password: a code to reset it, and all sessions but one, which may be zero.
func (a *Accounts) afterPassword(
	ctx context.Context, tx pgx.Tx, user evently.UserID, kind evently.SecurityKind, but evently.SessionID, origin *evently.Origin,
) (revoked []evently.SessionID, err error) {
	if _, err := tx.Exec(ctx, voidCodeSQL, int64(user), evently.ResetPasswordCode, milliseconds(origin.At)); err != nil {
		return nil, err
	}
	if revoked, err = revokeAll(ctx, tx, user, but, origin.At); err != nil {
		return nil, err
	}
	return revoked, logSecurity(ctx, tx, user, kind, origin, map[string]string{"sessions": count(revoked)})
}

const changePasswordSQL = `update users set password_hash = $3 where user_id = $1 and password_hash = $2`

// ChangePassword implements evently.Accounts.
func (a *Accounts) ChangePassword(ctx context.Context, user evently.UserID, old, hash string, origin *evently.Origin) (
	revoked []evently.SessionID, err error,
) {
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, changePasswordSQL, int64(user), old, hash)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return evently.ErrPasswordOutdated
		}
		revoked, err = a.afterPassword(ctx, tx, user, evently.SecurityPasswordChanged, origin.Session, origin)
		return err
	})
	switch {
	case errors.Is(err, evently.ErrPasswordOutdated):
		return nil, err
	case err != nil:
		return nil, failed(err, "change the password of user %s", user)
	}
	return revoked, nil
}

// sweepCodesSQL is served by one_time_codes_by_expiry.
const sweepCodesSQL = `
delete from one_time_codes c
using (select user_id, purpose from one_time_codes where expires_at < $1 order by expires_at limit $2) old
where c.user_id = old.user_id and c.purpose = old.purpose and c.expires_at < $1`
