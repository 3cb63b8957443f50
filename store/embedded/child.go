package embedded

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/evently/evently/store/embedded/lifeline"
)

// Bounds on processes that do not end by themselves.
const (
	// killAfter is what a process gets between being asked to end at once and SIGKILL. Postgres itself gives its
	// own children 5 s before it kills them.
	killAfter = 10 * time.Second
	// pipeAfter is how long the end of a process waits for grandchildren that still hold its output open.
	pipeAfter = 500 * time.Millisecond
)

// child is a process that ends with this one: by a fast shutdown, which is what an interrupt means to a postmaster.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after the end, and after onExit
	err    error         // of the end; valid once exited is closed
}

// spawn starts cmd. onExit, if any, is called with the outcome when it has ended.
func spawn(cmd *exec.Cmd, onExit func(error)) (*child, error) {
	cmd.WaitDelay = pipeAfter
	c := &child{cmd: cmd, exited: make(chan struct{})}
	err := lifeline.Start(cmd, syscall.SIGINT, func() {
		c.err = cmd.Wait()
		if errors.Is(c.err, exec.ErrWaitDelay) {
			c.err = nil // it did exit well, and its output is complete but for grandchildren's
		}
		if onExit != nil {
			onExit(c.err)
		}
		close(c.exited)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// wait waits for the end of the child and returns its outcome. When ctx ends first, the child's whole group is
// interrupted, then killed.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.exited:
		return c.err
	case <-ctx.Done():
	}
	err := c.signalGroup(syscall.SIGINT)
	select {
	case <-c.exited:
	case <-time.After(killAfter):
		err = errors.Join(err, c.signalGroup(syscall.SIGKILL))
		<-c.exited
	}
	return errors.Join(ctx.Err(), err, c.err)
}

// signal signals the process itself; one that has ended is no error.
func (c *child) signal(sig os.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (c *child) signalGroup(sig syscall.Signal) error {
	if err := syscall.Kill(-c.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
