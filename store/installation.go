package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// databaseSQL tells a database from others of the same server, from its copies there, and from those that were made apart.
const databaseSQL = `
select i.id::text || ' ' || d.oid from installation i cross join pg_database d where d.datname = current_database()`

// serverIdentitySQL tells a server from others, and from those that its dumps are restored on. Its physical replicas, one of which
// may take its place, have the same.
const serverIdentitySQL = `select system_identifier::text from pg_control_system()`

const insufficientPrivilege = "42501"

// Installation returns what tells a database from all others: its own id, which its copies have too, its place in its server, and
// the server's identity, where the role may read that. It has 32 hexadecimal digits.
func Installation(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var database, server string
	if err := pool.QueryRow(ctx, databaseSQL).Scan(&database); err != nil {
		return "", failed(err, "read the installation")
	}
	err := pool.QueryRow(ctx, serverIdentitySQL).Scan(&server)
	if denied := new(pgconn.PgError); err != nil && (!errors.As(err, &denied) || denied.Code != insufficientPrivilege) {
		return "", failed(err, "read the server's identity")
	}
	digest := sha256.Sum256(fmt.Append(nil, database, " ", server))
	return hex.EncodeToString(digest[:16]), nil
}
