package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/embedded/filelock"
)

const (
	benchDirPrefix      = "evently-bench-"
	benchDirTriesMax    = 10
	benchDatabasePrefix = "evently_bench_"
)

// benchDir is a temporary directory of a bench. A lock beside it tells others that it is in use, until it is gone.
type benchDir struct {
	path string
	lock *filelock.Lock
}

func benchLockOf(path string) string { return path + ".lock" }

// newBenchDir makes a directory that the account that runs Postgres can enter.
func newBenchDir() (*benchDir, error) {
	for try := 1; ; try++ {
		d, err := makeBenchDir(filepath.Join(os.TempDir(), fmt.Sprintf("%s%x", benchDirPrefix, random64())))
		if !errors.Is(err, filelock.ErrHeld) || try == benchDirTriesMax {
			return d, err
		}
	}
}

func makeBenchDir(path string) (*benchDir, error) {
	lock, err := filelock.Try(benchLockOf(path)) // it comes first: somebody who sweeps may have had it in between
	if err != nil {
		return nil, err
	}
	d := &benchDir{path, lock}
	if err := os.Mkdir(path, 0o755); err != nil { // what is there is somebody else's
		return nil, errors.Join(err, d.unlock())
	}
	if err := os.Chmod(path, 0o755); err != nil { // whatever the umask
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// remove leaves the lock's file to the next sweep where the directory cannot be removed.
func (d *benchDir) remove() error {
	if err := os.RemoveAll(d.path); err != nil {
		return errors.Join(err, d.lock.Unlock())
	}
	return d.unlock()
}

func (d *benchDir) unlock() error {
	return errors.Join(os.Remove(benchLockOf(d.path)), d.lock.Unlock())
}

// sweepBenchDirs removes directories that benches of this account have left that were killed, once their Postgres has ended.
func sweepBenchDirs() error {
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), benchLockOf(""))
		path := filepath.Join(os.TempDir(), name)
		if !found || !strings.HasPrefix(name, benchDirPrefix) || !own(benchLockOf(path), 0) {
			continue
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) && !own(path, fs.ModeDir) {
			continue
		}
		lock, err := filelock.Try(benchLockOf(path))
		if errors.Is(err, filelock.ErrHeld) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		dead := &benchDir{path, lock}
		busy, err := embedded.InUse(filepath.Join(dead.path, postgresDir))
		if err == nil && !busy {
			err = dead.remove()
		} else {
			err = errors.Join(err, lock.Unlock())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// own reports whether there is a file of a type, itself and not a link to it, that belongs to this account.
func own(path string, kind fs.FileMode) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == kind && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}

const (
	benchRightsSQL = `
select rolname, rolsuper or rolcreatedb, rolsuper or exists (
    select from pg_roles p where p.rolname = 'pg_checkpoint' and pg_has_role(current_user, p.oid, 'usage')
) from pg_roles where rolname = current_user`
	benchDatabasesSQL = `select datname from pg_database where starts_with(datname, $1) order by datname`
)

// inspectPostgres looks at somebody else's server before it is used: whether it lets databases be made and checkpoints be taken, and
// what others have left there. That may be of a bench that runs, so that it stays.
func inspectPostgres(ctx context.Context, server *pgxpool.Pool, warn func(string)) (checkpoints bool, err error) {
	var role string
	var creates bool
	if err := server.QueryRow(ctx, benchRightsSQL).Scan(&role, &creates, &checkpoints); err != nil {
		return false, fmt.Errorf("database-url: %w", err)
	}
	if !creates {
		return false, fmt.Errorf("database-url: role %s may not make databases: alter role %[1]s createdb", role)
	}
	if !checkpoints {
		warn(fmt.Sprintf("role %s may take no checkpoints, so that one design may pay for what another one wrote: grant pg_checkpoint to %[1]s",
			role))
	}
	rows, err := server.Query(ctx, benchDatabasesSQL, benchDatabasePrefix)
	if err != nil {
		return false, fmt.Errorf("database-url: %w", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("database-url: %w", err)
	}
	if len(left) > 0 {
		warn(fmt.Sprintf("%d databases of another bench are there. If none runs there now, it was killed: drop database %s with (force), and so on",
			len(left), left[0]))
	}
	return checkpoints, nil
}
