package store

import (
	"context"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// logSecuritySQL adds a row for each row of what may follow: a statement that ends in it goes on with a from clause.
const logSecuritySQL = `
insert into security_log (at, user_id, kind, actor, session_id, ip, user_agent, request_id, detail)
select $1::timestamptz, nullif($2::int8, 0), $3::text, nullif($4::int8, 0),
    nullif($5::uuid, '00000000-0000-0000-0000-000000000000'), $6::text, $7::text, $8::text, $9::jsonb`

// securityArgs are $1 to $9 of logSecuritySQL.
func securityArgs(user evently.UserID, kind evently.SecurityKind, origin *evently.Origin, detail map[string]string) []any {
	var column any
	if len(detail) > 0 {
		column = detail
	}
	return []any{
		milliseconds(origin.At), int64(user), string(kind), int64(origin.Actor), [16]byte(origin.Session), origin.IP,
		strings.ToValidUTF8(origin.UserAgent, "?"), // a header of any bytes, cut at any byte
		origin.RequestID, column,
	}
}

// logSecurity adds a row to the security log in a transaction.
func logSecurity(
	ctx context.Context, tx pgx.Tx, user evently.UserID, kind evently.SecurityKind, origin *evently.Origin, detail map[string]string,
) error {
	_, err := tx.Exec(ctx, logSecuritySQL, securityArgs(user, kind, origin, detail)...)
	return err
}

// securityLogSQL is served by security_log_by_user.
const securityLogSQL = `
select id, at, user_id, kind, coalesce(actor, 0), coalesce(session_id, '00000000-0000-0000-0000-000000000000'), ip, user_agent,
    request_id, detail
from security_log
where user_id = $1 and id < $2
order by id desc
limit $3`

// SecurityLog implements evently.Accounts.
func (a *Accounts) SecurityLog(ctx context.Context, user evently.UserID, page evently.Page) (
	[]*evently.SecurityEntry, *evently.Cursor, error,
) {
	before, limit := int64(math.MaxInt64), limitOf(page)
	if page.After != nil {
		before = page.After.Order
	}
	rows, err := a.pool.Query(ctx, securityLogSQL, int64(user), before, limit+1)
	entries, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.SecurityEntry, error) {
		var e evently.SecurityEntry
		var owner, actor int64
		err := row.Scan(&e.ID, &e.At, &owner, &e.Kind, &actor, (*[16]byte)(&e.Session), &e.IP, &e.UserAgent, &e.RequestID, &e.Detail)
		e.At, e.User, e.Actor = milliseconds(e.At), evently.UserID(owner), evently.UserID(actor)
		return &e, err
	})
	if err != nil {
		return nil, nil, failed(err, "read the security log of user %s", user)
	}
	if len(entries) <= limit {
		return entries, nil, nil
	}
	return entries[:limit], &evently.Cursor{Order: entries[limit-1].ID}, nil
}
