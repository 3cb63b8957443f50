// Package lifeline starts processes that end with this one, however that ends.
package lifeline

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd, which the kernel signals when this process dies; where it cannot (elsewhere than on Linux) the child is left behind.
// When it has started, attend runs in a goroutine of its own and has to return no sooner than cmd.Wait.
func Start(cmd *exec.Cmd, signal syscall.Signal, attend func()) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	signalOnDeath(cmd.SysProcAttr, signal)
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the *thread* that forked ends. Locked to this goroutine, it lasts until the child has been
		// waited for, and ends with it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			attend()
		}
	}()
	return <-started
}
