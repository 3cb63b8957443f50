package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Grant lets a role run the program and nothing more: it reads and adds to the journal and the security log, and never changes them; it
// changes the rows of other tables, and no table itself. The caller owns the schema; the role exists and is not its owner. What the role
// could do besides is taken from it. A migration that adds tables calls for another Grant.
//
// The rights are those of the schema of the tables, which has to be in the search_path of both.
func Grant(ctx context.Context, url, role string) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var owns, super bool
		if err := tx.QueryRow(ctx, grantRoleSQL, role).Scan(&owns, &super); err != nil {
			return fmt.Errorf("look for role %s: %w", role, err)
		}
		if strings.HasPrefix(role, "pg_") {
			return fmt.Errorf("role %s is one of Postgres itself: all its members would have what it is granted", role)
		}
		if owns || super {
			return fmt.Errorf("role %s owns the tables, or is a superuser: it may do everything whatever it is granted", role)
		}
		_, err := tx.Exec(ctx, grantSQL, role)
		return err
	})
	if err != nil {
		return failed(err, "grant")
	}
	return nil
}

const (
	grantRoleSQL = `
select pg_has_role(r.oid, c.relowner, 'member'), r.rolsuper
from pg_roles r, pg_class c
where r.rolname = $1 and c.oid = 'journal'::regclass`

	// grantSQL builds statements: rights cannot be parameters. Sequences are those of the jobs; identities need no right.
	grantSQL = `select grant_program($1)`
)
