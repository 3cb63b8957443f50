//go:build unix && !linux

package embedded

import (
	"errors"
	"syscall"
)

// interruptOrphan asks the server of a dead owner for a fast shutdown.
func interruptOrphan(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// leftover leaves the judgement on a postmaster.pid to Postgres.
func leftover(int, string) bool { return false }
