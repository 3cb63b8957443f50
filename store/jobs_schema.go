package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// The tables of the jobs belong to River, whose migrations come with its library and have numbers of their own. They are carried
// out after those of this package.

// lockJobsSchemaSQL has migrators take turns. The lock ends with the connection at the latest.
const (
	lockJobsSchemaSQL   = `select pg_advisory_lock(7251009364512081)`
	unlockJobsSchemaSQL = `select pg_advisory_unlock(7251009364512081)`
)

// migrateJobs brings the tables of the jobs up to date.
func migrateJobs(ctx context.Context, conn *pgx.Conn, url string, logger *slog.Logger) error {
	if pending, err := pendingJobMigrations(ctx, conn); err != nil || len(pending) == 0 {
		return err
	}
	if _, err := conn.Exec(ctx, lockJobsSchemaSQL); err != nil {
		return failed(err, "lock the schema of the jobs")
	}
	if err := runJobMigrations(ctx, url, logger); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, unlockJobsSchemaSQL); err != nil {
		return failed(err, "unlock the schema of the jobs")
	}
	return nil
}

// runJobMigrations uses a pool because River wants one to give each migration a transaction: some cannot be used in the one they are
// carried out in.
func runJobMigrations(ctx context.Context, url string, logger *slog.Logger) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse database URL: %w", err)
	}
	tune(config.ConnConfig)
	config.ConnConfig.RuntimeParams["lock_timeout"] = "3s" // as in the migrations of this package
	config.MaxConns, config.MinConns, config.MinIdleConns = 1, 0, 0
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return failed(err, "migrate the jobs")
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quietly(logger)})
	if err != nil {
		return fmt.Errorf("migrate the jobs: %w", err)
	}
	done, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return failed(err, "migrate the jobs")
	}
	for _, version := range done.Versions {
		logger.InfoContext(ctx, "migrated the jobs", "version", version.Version, "name", version.Name)
	}
	return nil
}

// errNothingKept has a transaction that only reads rolled back.
var errNothingKept = errors.New("nothing to keep")

// pendingJobMigrations names River's migrations that are not carried out yet, in order. It changes nothing.
func pendingJobMigrations(ctx context.Context, conn *pgx.Conn) (pending []string, err error) {
	migrator, err := rivermigrate.New(riverpgxv5.New(nil), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("look for migrations of the jobs: %w", err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if all, err := migrator.ValidateTx(ctx, tx, nil); err != nil || all.OK {
			return errors.Join(err, errNothingKept)
		}
		for _, migration := range migrator.AllVersions() {
			upto, err := migrator.ValidateTx(ctx, tx, &rivermigrate.ValidateOpts{TargetVersion: migration.Version})
			if err != nil {
				return err
			}
			if !upto.OK {
				pending = append(pending, fmt.Sprintf("jobs %03d %s", migration.Version, migration.Name))
			}
		}
		return errNothingKept
	})
	if err != nil && !errors.Is(err, errNothingKept) {
		return nil, failed(err, "look for migrations of the jobs")
	}
	return pending, nil
}
