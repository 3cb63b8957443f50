package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/embedded"
)

// Pauses between attempts to reach the database.
const (
	reachPauseMin = 250 * time.Millisecond // doubles with each attempt
	reachPauseMax = 5 * time.Second
)

func (c *Config) embedded(log *slog.Logger) embedded.Config {
	return embedded.Config{DataDir: filepath.Join(c.DataDir, postgresDir), NoProvision: c.PGProvision == never, Log: log}
}

// refuseEmbedded returns a usage error unless the data directory has an embedded database.
func (c *Config) refuseEmbedded() error {
	if c.Env == production {
		return usageError{errors.New("database_url is not set: the embedded database is not for production")}
	}
	if err := c.resolveDataDir(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, postgresDir)); errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("database_url is not set, and there is no embedded database in %s (`evently up` makes one)", c.DataDir)}
	} else if err != nil {
		return err
	}
	return nil
}

// checkDatabaseURL returns a usage error when the URL cannot be read.
func (c *Config) checkDatabaseURL() error {
	if _, err := store.ConnConfig(c.DatabaseURL); err != nil { // pgx leaves the password out of it
		return usageError{fmt.Errorf("database_url: %w", err)}
	}
	return nil
}

// reach calls act until it finds the database, for as long as the settings allow.
func (c *Config) reach(ctx context.Context, log *slog.Logger, act func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	for pause := reachPauseMin; ; pause = min(2*pause, reachPauseMax) {
		err := act(ctx)
		if !errors.Is(err, evently.ErrUnavailable) {
			return err
		}
		log.Warn("the database cannot be reached; trying again", "pause", pause, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-limit.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("no database within start_timeout (%s): %w", short(c.StartTimeout), err)
		}
	}
}

// prepareDatabase brings the schema up to date, or says what to do, and opens the pool.
func (c *Config) prepareDatabase(ctx context.Context, url string, log *slog.Logger) (pool *pgxpool.Pool, err error) {
	err = c.reach(ctx, log, func(ctx context.Context) error {
		status, err := store.MigrationStatus(ctx, url)
		switch {
		case err != nil:
			return err
		case len(status.Pending) > 0 && c.Migrate == never:
			return fmt.Errorf("the database lacks %d migrations and migrate is never: run `evently migrate up`", len(status.Pending))
		}
		if err := store.Migrate(ctx, url, log); err != nil {
			return err
		}
		pool, err = store.Open(ctx, url, store.PoolOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := store.CheckDurability(ctx, pool); err != nil {
		if c.Env == production {
			pool.Close()
			return nil, err
		}
		log.Warn("not for production", "error", err)
	}
	return pool, nil
}
