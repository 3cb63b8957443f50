package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

const installationSQL = `select id::text from installation`

// Installation returns what tells a database from others, a UUID made with its schema. Copies of a database have the same.
func Installation(ctx context.Context, pool *pgxpool.Pool) (id string, err error) {
	if err := pool.QueryRow(ctx, installationSQL).Scan(&id); err != nil {
		return "", failed(err, "read the installation")
	}
	return id, nil
}
