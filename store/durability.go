package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// durabilitySQL reads the settings that decide whether a commit survives a crash of the server.
const durabilitySQL = `select name, setting from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit')`

// DurabilityError says which settings of a server let it lose commits that it has acknowledged.
type DurabilityError struct{ Settings []string }

func (e *DurabilityError) Error() string {
	return fmt.Sprintf("the database can lose acknowledged bookings: it runs with %s", strings.Join(e.Settings, ", "))
}

// CheckDurability returns a *DurabilityError when a commit of this connection's role need not survive a crash.
func CheckDurability(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, durabilitySQL)
	if err != nil {
		return failed(err, "read the settings of durability")
	}
	var off []string
	var name, setting string
	if _, err = pgx.ForEachRow(rows, []any{&name, &setting}, func() error {
		if setting == "off" {
			off = append(off, name+"=off")
		}
		return nil
	}); err != nil {
		return failed(err, "read the settings of durability")
	}
	if len(off) > 0 {
		return &DurabilityError{off}
	}
	return nil
}
