//go:build !linux

package store

import "syscall"

// limitUnacknowledged does nothing: other systems have no such setting, and their keepalives alone find a dead peer.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
