package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently/store/embedded/filelock"
)

// Bounds on waiting for other processes.
const (
	// ownerReadyMax is how long a second owner waits for the first to be ready, or to be gone.
	ownerReadyMax = 30 * time.Second
	// orphanEndMax is how long Start waits for the server of a dead owner, which writes a last checkpoint.
	orphanEndMax = time.Minute
	// pollEvery is the pause between two looks at another process.
	pollEvery = 5 * time.Millisecond
	// probeMax bounds one attempt to connect.
	probeMax = time.Second
)

// ErrInUse is what every InUseError is.
var ErrInUse = errors.New("embedded: the data directory is in use by another process")

// InUseError says that another process owns DataDir, and how to reach its server.
type InUseError struct {
	DataDir string
	DSN     string // answered just now; empty if the owner was not ready within 30 s or the caller's context
}

// Error does not name the DSN, which may hold a password.
func (e *InUseError) Error() string {
	if e.DSN == "" {
		return fmt.Sprintf("%v: %s, whose server does not answer yet", ErrInUse, e.DataDir)
	}
	return fmt.Sprintf("%v: %s, whose server can be used", ErrInUse, e.DataDir)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// own takes the data directory, or returns an InUseError. It waits while the present owner starts or stops.
func (d dataDir) own(ctx context.Context) (*filelock.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerReadyMax)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		lock, err := filelock.Try(d.ownerLock())
		if err == nil {
			// What a killed owner said of its server is no longer true.
			if err := removeIfThere(d.ownerDSN()); err != nil {
				return nil, errors.Join(err, lock.Unlock())
			}
			return lock, nil
		}
		if !errors.Is(err, filelock.ErrHeld) {
			return nil, fmt.Errorf("embedded: own %s: %w", string(d), err)
		}
		dsn, err := d.liveDSN(ctx)
		if err != nil {
			return nil, err
		}
		if dsn != "" {
			return nil, &InUseError{DataDir: string(d), DSN: dsn}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(&InUseError{DataDir: string(d)}, ctx.Err())
		case <-poll.C:
		}
	}
}

// liveDSN is the DSN that the owner published, provided its server answers, else empty: the file may be that of a
// killed owner, which the present one has not removed yet.
func (d dataDir) liveDSN(ctx context.Context) (string, error) {
	dsn, err := os.ReadFile(d.ownerDSN())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("embedded: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	conn, err := pgx.Connect(ctx, string(dsn))
	if hasCode(err, tooManyConnections) {
		return string(dsn), nil
	}
	if err != nil {
		return "", nil // not up: the caller looks again
	}
	return string(dsn), conn.Close(ctx)
}

// Running waits until a process owns dataDir and its server answers, and returns that server's DSN. It fails when ctx ends.
func Running(ctx context.Context, dataDir string) (dsn string, err error) {
	dir, err := dataDirAt(dataDir)
	if err != nil {
		return "", err
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		if dsn, err := dir.liveDSN(ctx); dsn != "" || err != nil {
			return dsn, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("embedded: no server runs on %s: %w", dataDir, ctx.Err())
		case <-poll.C:
		}
	}
}

// publish writes the DSN at once, so that nobody reads half of it.
func (d dataDir) publish(dsn string) error {
	next := d.ownerDSN() + ".new"
	if err := replaceFile(next, dsn, 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, d.ownerDSN()); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return nil
}

// InUse tells whether a process owns dataDir or a process of a server on it still runs.
func InUse(dataDir string) (bool, error) {
	dir, err := dataDirAt(dataDir)
	if err != nil {
		return false, err
	}
	for _, path := range []string{dir.ownerLock(), dir.serverLock()} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		lock, err := filelock.Try(path)
		if errors.Is(err, filelock.ErrHeld) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if err := lock.Unlock(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// replaceFile writes a new file in the place of path, never through a link that somebody put there.
func replaceFile(path, content string, mode os.FileMode) error {
	if err := removeIfThere(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	_, err = file.WriteString(content)
	if err := errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("embedded: %w", err)
	}
	return nil
}

// SQLSTATEs that are told apart.
const (
	tooManyConnections = "53300"
	noSuchDatabase     = "3D000"
)

func hasCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}
