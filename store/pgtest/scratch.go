package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/embedded/filelock"
)

// workshop is the directory that all test processes of an account share on this machine. It is used with its
// lock held: to make scratch directories, to remove those of the dead, and to make and copy templates.
type workshop string

// inWorkshop runs work with the lock held.
func inWorkshop(ctx context.Context, work func(workshop) error) error {
	shop, err := openWorkshop()
	if err != nil {
		return err
	}
	lock, err := filelock.Wait(ctx, filepath.Join(string(shop), "lock"))
	if err != nil {
		return fmt.Errorf("wait for other test processes: %w", err)
	}
	err = shop.sweep()
	if err == nil {
		err = work(shop)
	}
	return errors.Join(err, lock.Unlock())
}

// places are directories for temporary files, best first. Memory comes first, unless the user chose: making the many
// small files of a database is what tests wait for, and on a disk that can take ten times as long.
func places() []string {
	places := []string{os.TempDir(), "/tmp", "/var/tmp"}
	const memory = "/dev/shm"
	var room syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memory, &room) == nil &&
		int64(room.Bavail)*int64(room.Bsize) >= memoryFreeMin { //nolint:unconvert // the types differ between systems
		places = append([]string{memory}, places...)
	}
	return slices.Compact(places)
}

// memoryFreeMin is the free room in bytes from which files are kept in memory. A test takes some 100 MB.
const memoryFreeMin = 4 << 30

// openWorkshop finds a place that the account that runs Postgres can enter.
func openWorkshop() (workshop, error) {
	var reasons []error
	for _, temp := range places() {
		if err := embedded.Reachable(temp); err != nil {
			reasons = append(reasons, err)
			continue
		}
		dir := filepath.Join(temp, "evently-pgtest-"+strconv.Itoa(os.Geteuid()))
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			reasons = append(reasons, err)
			continue
		}
		info, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		// In /tmp anybody may have made it, to have us run what they like.
		if !info.IsDir() || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			reasons = append(reasons, fmt.Errorf("%s is not a directory of this account: remove it", dir))
			continue
		}
		return workshop(dir), os.Chmod(dir, 0o755) // whatever the umask
	}
	return "", errors.Join(reasons...)
}

// scratch is a directory for one test or suite. Its lock tells other processes that it is in use.
type scratch struct {
	path string
	lock *filelock.Lock
}

func (s *scratch) dir() string     { return filepath.Join(s.path, "dir") }
func (s *scratch) dataDir() string { return filepath.Join(s.path, "data") }

// lockOf is beside the scratch, so that it is held until the scratch is gone.
func lockOf(path string) string {
	return filepath.Join(filepath.Dir(path), "lock-"+filepath.Base(path))
}

func newScratch(ctx context.Context) (made *scratch, err error) {
	err = inWorkshop(ctx, func(shop workshop) error {
		made, err = shop.newScratch()
		return err
	})
	return made, err
}

func (w workshop) newScratch() (*scratch, error) {
	path, err := os.MkdirTemp(string(w), scratchPattern)
	if err != nil {
		return nil, err
	}
	lock, err := filelock.Try(lockOf(path))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	made := &scratch{path: path, lock: lock}
	if err := errors.Join(os.Mkdir(made.dir(), 0o755), os.Chmod(made.dir(), 0o755), os.Chmod(path, 0o755)); err != nil {
		return nil, errors.Join(err, made.remove())
	}
	return made, nil
}

func (s *scratch) remove() error {
	return errors.Join(os.RemoveAll(s.path), os.Remove(lockOf(s.path)), s.lock.Unlock())
}

const scratchPattern = "run-*"

// sweep removes what killed test processes left, once their servers have ended, too.
func (w workshop) sweep() error {
	paths, err := filepath.Glob(filepath.Join(string(w), scratchPattern))
	if err != nil {
		return err
	}
	for _, path := range paths {
		lock, err := filelock.Try(lockOf(path))
		if errors.Is(err, filelock.ErrHeld) {
			continue
		}
		if err != nil {
			return err
		}
		stale := &scratch{path: path, lock: lock}
		busy, err := stale.serves()
		if err == nil && !busy {
			err = stale.remove()
		} else {
			err = errors.Join(err, lock.Unlock())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serves tells whether a server still runs on the scratch's data directory or one that a test made in Dir.
func (s *scratch) serves() (bool, error) {
	dirs, err := filepath.Glob(filepath.Join(s.dir(), "*"))
	if err != nil {
		return false, err
	}
	for _, dir := range append(dirs, s.dir(), s.dataDir()) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue // not a data directory: a test put a file there
		}
		if busy, err := embedded.InUse(dir); busy || err != nil {
			return busy, err
		}
	}
	return false, nil
}
