package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/evently/evently/store/embedded/filelock"
)

// outputBytesMax is how much of a failed installation's output an error carries.
const outputBytesMax = 4 << 10

// refuseInstall says why Postgres may not be installed here, or nil if it may.
func (h host) refuseInstall(mayInstall bool) error {
	switch policy := h.getenv("EVENTLY_PG_PROVISION"); policy {
	case "never":
		return errors.New("EVENTLY_PG_PROVISION=never")
	case "", "auto":
	default:
		return fmt.Errorf("EVENTLY_PG_PROVISION=%s: want never or auto", policy)
	}
	if !mayInstall {
		return errors.New("the configuration forbids it")
	}
	if _, err := os.Stat(filepath.Join(h.root, "etc/debian_version")); err != nil {
		return errors.New("it knows how to on Debian and Ubuntu only")
	}
	if !h.isRoot {
		return errors.New("it is not run by root")
	}
	return nil
}

// install installs Postgres with apt-get, unless another process does so just now, and searches again.
func (h host) install(ctx context.Context, major int, log *slog.Logger) (Installation, []string, error) {
	locks := filepath.Join(h.root, "run/lock")
	if err := os.MkdirAll(locks, 0o755); err != nil {
		return Installation{}, nil, fmt.Errorf("embedded: %w", err)
	}
	lock, err := filelock.Wait(ctx, filepath.Join(locks, "evently-postgres.lock"))
	if err != nil {
		return Installation{}, nil, fmt.Errorf("embedded: wait for another process that installs PostgreSQL: %w", err)
	}
	found, rejected, err := h.search(ctx, major)
	if err == nil && found.Major == 0 {
		if err = h.aptInstall(ctx, log); err == nil {
			found, rejected, err = h.search(ctx, major)
		}
	}
	return found, rejected, errors.Join(err, lock.Unlock())
}

// aptInstall installs the binaries, and keeps the package from making and starting a server of its own.
func (h host) aptInstall(ctx context.Context, log *slog.Logger) (err error) {
	dir := filepath.Join(h.root, "etc/postgresql-common/createcluster.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	noCluster := filepath.Join(dir, "evently.conf")
	if err := os.WriteFile(noCluster, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	// What the owner of the machine installs later is not our business.
	defer func() { err = errors.Join(err, os.Remove(noCluster)) }()

	start := time.Now()
	log.Info("PostgreSQL is missing: installing it with apt-get, once (EVENTLY_PG_PROVISION=never prevents this)")
	for _, args := range [][]string{
		{"update"},
		{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "postgresql"},
	} {
		if out, err := h.run(ctx, "apt-get", args...); err != nil {
			return fmt.Errorf("embedded: apt-get %s: %w; its output ends:\n%s",
				strings.Join(args, " "), err, out[max(0, len(out)-outputBytesMax):])
		}
	}
	log.Info("PostgreSQL is installed", "took", time.Since(start))
	return nil
}
