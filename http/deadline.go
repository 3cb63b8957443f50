package http

import (
	"errors"
	"os"
	"sync"
	"time"
)

// net/http sets the deadlines of a connection some eight times in a request. Each costs a change of the runtime's timers, and is of no
// effect unless the client is slow or gone. A connection therefore notes a later deadline and leaves its timer as it is. A timer that
// runs out too early is set to what was noted then, and what it interrupted goes on. So no deadline is late.

// deadline is one of a connection, for reading or for writing.
type deadline struct {
	arm func(time.Time) error // sets the timer of the connection

	mu    sync.Mutex
	noted time.Time // zero: none
	armed time.Time // what the timer is set to, never later than noted; zero: none
	kept  time.Time // what it was set to before it interrupted something
	busy  bool      // there is something under way for the timer to interrupt
}

// bygone is later than a deadline that is there to interrupt at once, and earlier than all others.
var bygone = time.Now()

// interrupts reports whether nothing may go on or begin.
func (d *deadline) interrupts() bool { return !d.noted.IsZero() && d.noted.Before(bygone) }

// set notes a deadline.
func (d *deadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.note(t)
}

func (d *deadline) note(t time.Time) error {
	d.noted = t
	switch {
	case t.IsZero(), !d.armed.IsZero() && !t.Before(d.armed): // the timer comes early enough
		return nil
	case d.interrupts() && !d.busy: // begin comes early enough
		return nil
	case !d.armed.Before(bygone):
		d.kept = d.armed
	}
	d.armed = t
	return d.arm(t)
}

// begin prepares for reading or writing: a timer that has interrupted is set as it was before.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.prepare()
}

func (d *deadline) prepare() error {
	if d.interrupts() {
		return os.ErrDeadlineExceeded
	}
	d.busy = true
	if d.armed.IsZero() || !d.armed.Before(bygone) {
		return nil
	}
	d.armed = d.kept
	if d.kept.IsZero() || !d.noted.IsZero() && d.noted.Before(d.kept) {
		d.armed = d.noted
	}
	return d.arm(d.armed)
}

// end is the end of what began.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
}

// early reports whether an error is that of a timer before its time, which has then been set anew: go on.
func (d *deadline) early(err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.noted.IsZero() && !time.Now().Before(d.noted) {
		return false
	}
	d.armed = d.noted
	return d.arm(d.noted) == nil
}

// SetDeadline implements net.Conn.
func (c *connection) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *connection) SetReadDeadline(t time.Time) error { return c.reading.set(t) }

// SetWriteDeadline implements net.Conn.
func (c *connection) SetWriteDeadline(t time.Time) error { return c.writing.set(t) }

// Read implements net.Conn.
func (c *connection) Read(p []byte) (n int, err error) {
	if err := c.reading.begin(len(p) == 1); err != nil {
		return 0, err
	}
	defer c.reading.end()
	for {
		if n, err = c.Conn.Read(p); n > 0 || !c.reading.early(err) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *connection) Write(p []byte) (n int, err error) {
	if err := c.writing.begin(); err != nil {
		return 0, err
	}
	defer c.writing.end()
	for {
		written, err := c.Conn.Write(p[n:])
		if n += written; n == len(p) || !c.writing.early(err) {
			return n, err
		}
	}
}
