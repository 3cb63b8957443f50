package store

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged makes the kernel break a TCP connection when sent data stays unacknowledged for userTimeout;
// otherwise it tries for 15 minutes.
func limitUnacknowledged(_, _ string, conn syscall.RawConn) error {
	var err error
	if controlErr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}
