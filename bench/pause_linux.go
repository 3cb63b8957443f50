package bench

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late timers may be: the runtime waits for them in whole milliseconds.
const timerSlack = 2 * time.Millisecond

// pause waits for a time, to some 0.1 ms, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	ends := time.Now().Add(d)
	if d > timerSlack {
		timer := time.NewTimer(d - timerSlack)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	for d = time.Until(ends); d > 0; d = time.Until(ends) {
		left := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&left, nil) // interrupted by a signal: the loop goes on
	}
}
