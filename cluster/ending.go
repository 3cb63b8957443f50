package cluster

import (
	"errors"
	"sync"
)

// Why a member stopped serving, from Node.Err; and why a look-up failed, from Node.Locate.
var (
	// ErrStopped: the member was stopped.
	ErrStopped error = final("cluster: member stopped")
	// ErrEvicted: others took this member for dead; it can come back only as a new process.
	ErrEvicted error = final("cluster: member evicted by others")
	// ErrMinority: this member had a quorum and lost it; it can come back only as a new process.
	ErrMinority error = final("cluster: member lost its quorum")
	// ErrDraining: this member owns the identity but activates nothing any more.
	ErrDraining = errors.New("cluster: member is draining")
	// ErrNoOwner: no quorum was reached yet, or no member hosts the kind.
	ErrNoOwner error = final("cluster: no member can own the identity")
	// ErrNoAnswer: the owner refused the identity, which it does while its view differs, or did not answer.
	ErrNoAnswer = errors.New("cluster: the owner did not activate the identity")
)

// final is an error of a look-up for which it is no use to try again soon. Callers that do not know this package see it by the method.
type final string

// Error implements error.
func (f final) Error() string { return string(f) }

// Final is true.
func (final) Final() bool { return true }

// ending is the end of a member's service and its reason. It happens once.
type ending struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newEnding() *ending { return &ending{done: make(chan struct{})} }

func (e *ending) end(err error) {
	e.once.Do(func() {
		e.err = err
		close(e.done)
	})
}

// cause returns the reason, or nil before the end.
func (e *ending) cause() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}
