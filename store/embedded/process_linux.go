package embedded

import (
	"fmt"
	"os"
	"path/filepath"
)

// interruptOrphan has nothing to do: the kernel has done it.
func interruptOrphan(int) error { return nil }

// leftover tells whether postmaster.pid is certainly stale, given that no server of ours runs. Postgres takes
// any process of its account with that number for a server, and numbers repeat, in containers all the time.
// A postmaster works in its data directory, so one that somebody started by hand is seen by that.
func leftover(pid int, pgdata string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return true
	}
	resolved, err := filepath.EvalSymlinks(pgdata)
	return err == nil && cwd != resolved
}
