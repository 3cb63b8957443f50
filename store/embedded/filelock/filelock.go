// Package filelock is an advisory lock between processes (flock) on a file that stays where it is.
//
// The lock belongs to the open file, not to the process: a child that inherits the file holds the lock
// too, and the kernel frees it when the last holder is gone, however it died.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ErrHeld says that somebody else holds the lock.
var ErrHeld = errors.New("filelock: held by another")

// retryEvery is the pause between two attempts of Wait. flock can block by itself, but not under a context.
const retryEvery = 5 * time.Millisecond

// Lock is a held lock. It is not safe for concurrent use.
type Lock struct{ file *os.File }

// Try takes the lock on path, making the file (mode 0600) if needed. It returns ErrHeld if another has it.
func Try(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("filelock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = ErrHeld
		}
		return nil, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
	}
	// A holder that removes the file, or a cleaner of temporary directories, would leave us with the lock of
	// a file nobody else can find: that is not a lock.
	mine, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("filelock: %w", errors.Join(err, file.Close()))
	}
	if found, err := os.Stat(path); err != nil || !os.SameFile(mine, found) {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = ErrHeld
		}
		return nil, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
	}
	return &Lock{file: file}, nil
}

// Wait takes the lock on path as soon as it is free. It returns ErrHeld and the context's error when ctx ends first.
func Wait(ctx context.Context, path string) (*Lock, error) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		lock, err := Try(path)
		if !errors.Is(err, ErrHeld) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-retry.C:
		}
	}
}

// File is the locked file, to be inherited by a child process.
func (l *Lock) File() *os.File { return l.file }

// Unlock frees the lock for everybody, children that inherited it included.
func (l *Lock) Unlock() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}

// Leave gives up this process's share. The lock stays held for as long as a child that inherited it lives.
func (l *Lock) Leave() error { return l.file.Close() }
