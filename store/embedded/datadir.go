package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/evently/evently/store/embedded/filelock"
)

// dataDir is Config.DataDir, absolute. The package comment describes its content.
type dataDir string

func dataDirAt(path string) (dataDir, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("embedded: %w", err)
	}
	return dataDir(absolute), nil
}

func (d dataDir) file(name string) string { return filepath.Join(string(d), name) }
func (d dataDir) pgdata() string          { return d.file("pgdata") }
func (d dataDir) pidFile() string         { return filepath.Join(d.pgdata(), "postmaster.pid") }
func (d dataDir) ownerLock() string       { return d.file("owner.lock") }
func (d dataDir) ownerDSN() string        { return d.file("owner.dsn") }
func (d dataDir) serverLock() string      { return d.file("server.lock") }

// unfinished is the name pattern of directories that initdb works in.
const unfinished = "initdb-*"

// create makes the directory and its missing parents so that other accounts can enter them, whatever the umask.
func (d dataDir) create() error {
	var missing []string
	for dir := string(d); ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return fmt.Errorf("embedded: %w", err)
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		// Another process may be making the same directories: then they are as we want them, or soon will be.
		if err := os.Mkdir(missing[i], 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("embedded: %w", err)
		}
		if err := os.Chmod(missing[i], 0o755); err != nil {
			return fmt.Errorf("embedded: %w", err)
		}
	}
	return nil
}

// major is the major version that made pgdata, or 0 if there is none yet.
func (d dataDir) major() (int, error) {
	if _, err := os.Stat(d.file("PG_VERSION")); err == nil {
		return 0, fmt.Errorf("embedded: %s is itself the data directory of a Postgres server: choose another one, "+
			"or move its content to %s", string(d), d.pgdata())
	}
	version, err := os.ReadFile(filepath.Join(d.pgdata(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(d.pgdata()); errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, fmt.Errorf("embedded: %s has no PG_VERSION, so it is damaged or not Postgres' at all: "+
			"restore it from a backup, or move it away to start empty", d.pgdata())
	}
	if err != nil {
		return 0, fmt.Errorf("embedded: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(version)))
	if err != nil {
		return 0, fmt.Errorf("embedded: %s/PG_VERSION: %w", d.pgdata(), err)
	}
	return major, nil
}

// VersionError says that DataDir was made by another major version of Postgres than the one at hand.
// Nothing was changed.
type VersionError struct {
	DataDir   string // as in Config, absolute
	Major     int    // of the data
	Installed Installation
}

func (e *VersionError) Error() string {
	pgdata := dataDir(e.DataDir).pgdata()
	return fmt.Sprintf(`embedded: %[1]s was made by PostgreSQL %[2]d, but what is installed is %[3]s (%[4]s); nothing was changed.
Either install PostgreSQL %[2]d beside it (or set EVENTLY_PG_BIN to its binaries), or take the data over (1 to 3 as the owner of %[1]s):
  1. with the binaries of %[2]d:  pg_ctl -w -D '%[1]s' -o "-c listen_addresses='' -c unix_socket_permissions=0700 -k /tmp -p 54329" start
  2. with the newer pg_dump:  umask 077; pg_dump -h /tmp -p 54329 -U evently -Fc -f /tmp/evently.dump evently
  3. with the binaries of %[2]d:  pg_ctl -w -D '%[1]s' stop
  4. move it away, not delete it:  mv '%[1]s' '%[1]s.%[2]d'
  5. start Evently, which makes a new one, and:  pg_restore --clean --if-exists -d "$(cat '%[5]s')" /tmp/evently.dump`,
		pgdata, e.Major, e.Installed.Version, e.Installed.BinDir, dataDir(e.DataDir).ownerDSN())
}

// initdb makes pgdata. What a killed predecessor left unfinished is removed: it never held data.
func (d dataDir) initdb(ctx context.Context, cfg Config, inst Installation, acc account, log *serverLog) (err error) {
	leftovers, err := filepath.Glob(d.file(unfinished))
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	for _, dir := range leftovers {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("embedded: remove what an earlier initdb left: %w", err)
		}
	}
	dir, err := os.MkdirTemp(string(d), unfinished)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := acc.give(dir); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	args := []string{
		"-D", dir, "-U", superuser, "--auth-local=trust", "--auth-host=reject",
		"--locale=C", "-E", "UTF8", "--data-checksums", "--no-instructions",
	}
	if cfg.UnsafeNoFsync {
		args = append(args, "--no-sync")
	}
	if err := d.runInitdb(ctx, acc, filepath.Join(inst.BinDir, "initdb"), args, log); err != nil {
		return fmt.Errorf("embedded: initdb of %s as %s: %w; its output:\n%s", string(d), acc.name, err, log)
	}
	if err := os.Rename(dir, d.pgdata()); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return syncDir(string(d))
}

func (d dataDir) runInitdb(ctx context.Context, acc account, initdb string, args []string, log *serverLog) error {
	// initdb holds the server's lock for as long as it or a child of it lives, so a successor waits for its end.
	lock, err := d.lockServer(ctx)
	if err != nil {
		return err
	}
	cmd := acc.command(string(d), initdb, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append(cmd.ExtraFiles, lock.File())
	running, err := spawn(cmd, nil)
	if err == nil {
		err = running.wait(ctx)
	}
	return errors.Join(err, lock.Leave())
}

// lockServer waits until no process of a former server runs.
func (d dataDir) lockServer(ctx context.Context) (*filelock.Lock, error) {
	lock, err := filelock.Try(d.serverLock())
	if !errors.Is(err, filelock.ErrHeld) {
		return lock, err
	}
	pid, err := d.serverPID()
	if err != nil {
		return nil, err
	}
	if pid != 0 {
		if err := interruptOrphan(pid); err != nil {
			return nil, fmt.Errorf("embedded: interrupt the former server (pid %d): %w", pid, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, orphanEndMax)
	defer cancel()
	lock, err = filelock.Wait(ctx, d.serverLock())
	if err != nil {
		return nil, fmt.Errorf("embedded: the processes of a former server of %s (its pid was %d) have not ended: %w", string(d), pid, err)
	}
	return lock, nil
}

// serverPID is the first line of postmaster.pid, or 0 if there is none.
func (d dataDir) serverPID() (int, error) {
	lines, err := d.pidLines()
	if err != nil || len(lines) == 0 {
		return 0, err
	}
	pid, err := strconv.Atoi(lines[0])
	if err != nil {
		return 0, nil // being written, or damaged by a crash of the machine: Postgres says so if it minds
	}
	return pid, nil
}

// pidLines are the lines of postmaster.pid: 1 is the pid, 8 the state.
func (d dataDir) pidLines() ([]string, error) {
	content, err := os.ReadFile(d.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n"), nil
}

// removeStalePID is called with the server's lock held.
func (d dataDir) removeStalePID() error {
	pid, err := d.serverPID()
	if err != nil || pid == 0 || !leftover(pid, d.pgdata()) {
		return err
	}
	if err := os.Remove(d.pidFile()); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
