//go:build !linux

package peers

import "syscall"

// diesWithParent has no means here: a parent that is killed leaves the server behind.
func diesWithParent(*syscall.SysProcAttr) {}
