//go:build unix && !linux

package lifeline

import "syscall"

// signalOnDeath has no counterpart here.
func signalOnDeath(*syscall.SysProcAttr, syscall.Signal) {}
