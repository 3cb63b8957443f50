package main

import "golang.org/x/sys/unix"

// inMemory reports whether a directory is on a file system that has no disk, so that flushing to it costs nothing.
func inMemory(dir string) bool {
	var system unix.Statfs_t
	return unix.Statfs(dir, &system) == nil && (system.Type == unix.TMPFS_MAGIC || system.Type == unix.RAMFS_MAGIC)
}
