package http

import (
	"sync"
	"time"
)

// While a request is worked on, net/http has a goroutine read its connection, to find out when the client hangs up. That is a system
// call and the sleep and the waking of a thread for requests of which nearly all are answered within milliseconds. The goroutine
// therefore waits at first: it reads when the work has taken some time.

// watchMin is the time that a request has been worked on before its connection is watched. Twice that may have passed.
const watchMin = 200 * time.Millisecond

// vigil is the deadline for reading of a connection, and the wait before it is watched.
type vigil struct {
	deadline

	changed  *sync.Cond // one of what follows, or the deadline
	waiting  bool
	waits    uint64 // that have begun
	overdue  bool   // the last one is to end
	closed   bool
	patience *time.Timer
	awaited  uint64 // the wait that patience runs out for; 0: it does not run
}

// set notes a deadline.
func (v *vigil) set(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting && !t.IsZero() {
		v.overdue = true
		v.changed.Broadcast()
	}
	return v.note(t)
}

// begin prepares for reading. net/http watches a client by reading a single byte, without a deadline.
func (v *vigil) begin(single bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if single && v.noted.IsZero() {
		v.wait()
	}
	return v.prepare()
}

func (v *vigil) wait() {
	if v.changed == nil {
		v.changed = sync.NewCond(&v.mu)
		v.patience = time.AfterFunc(watchMin, v.lose)
		v.patience.Stop()
	}
	v.waits++
	if v.awaited == 0 {
		v.awaited = v.waits
		v.patience.Reset(watchMin)
	}
	v.waiting, v.overdue = true, false
	for !v.overdue && !v.closed {
		v.changed.Wait()
	}
	v.waiting = false
}

// lose is called when patience has run out. It is not set for each wait, but goes on for the newest one.
func (v *vigil) lose() {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.waiting || v.closed:
		v.awaited = 0
	case v.awaited == v.waits:
		v.awaited, v.overdue = 0, true
		v.changed.Broadcast()
	default:
		v.awaited = v.waits
		v.patience.Reset(watchMin)
	}
}

// close ends a wait for good.
func (v *vigil) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	if v.waiting {
		v.changed.Broadcast()
	}
}
