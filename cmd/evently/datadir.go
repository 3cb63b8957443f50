package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evently/evently/store/embedded/filelock"
)

// Names in the data directory.
const (
	postgresDir       = "postgres"
	jwtSecretFile     = "jwt-secret"
	adminPasswordFile = "admin-password"
	nodeLockFile      = "node.lock"
)

// resolveDataDir makes the path absolute.
func (c *Config) resolveDataDir() (err error) {
	if c.DataDir == "" {
		return usageError{errors.New("data_dir is not set, and there is no home directory to put it into")}
	}
	c.DataDir, err = filepath.Abs(c.DataDir)
	return err
}

// makeDataDir makes the data directory. Root's must be open to the account that runs Postgres; what is secret in it is not.
func (c *Config) makeDataDir() error {
	if err := c.resolveDataDir(); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755
	}
	if err := os.MkdirAll(c.DataDir, mode); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

// lockDataDir keeps other nodes out of the data directory until the lock is given back or this process ends.
func (c *Config) lockDataDir() (*filelock.Lock, error) {
	lock, err := filelock.Try(filepath.Join(c.DataDir, nodeLockFile))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, fmt.Errorf("another evently runs on %s: stop it, or choose another directory with --data-dir", c.DataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return lock, nil
}
