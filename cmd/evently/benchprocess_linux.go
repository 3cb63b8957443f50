package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent makes the kernel kill the process when the thread that starts it ends: that thread has to live as long.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// inMemory reports whether a directory is on a file system that has no disk, so that flushing to it costs nothing.
func inMemory(dir string) bool {
	var system unix.Statfs_t
	return unix.Statfs(dir, &system) == nil && (system.Type == unix.TMPFS_MAGIC || system.Type == unix.RAMFS_MAGIC)
}
