package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec" // the tests have an exec of their own
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/evently/evently/store/embedded/lifeline"
)

// Bounds on the processes that are measured.
const (
	benchUpMax   = time.Minute      // until one serves
	benchStopMax = 20 * time.Second // from the signal to its end; then it is killed
	benchTailMax = 20               // last lines of its log that are kept to tell why it failed
	benchLineMax = 1 << 20          // bytes of a line
)

// benchProcess is a process of this program that serves. It ends with this one.
type benchProcess struct {
	cmd    *osexec.Cmd
	addr   string // of its API
	exited chan struct{}

	mu   sync.Mutex
	tail []string // of its log
}

// startBenchProcess returns when the process serves.
func startBenchProcess(ctx context.Context, args, env []string) (*benchProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &benchProcess{cmd: osexec.Command(program, args...), exited: make(chan struct{})}
	p.cmd.Env = env
	// Of a group of its own: a Ctrl-C at the terminal is for this process, which ends the others in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	addr := make(chan string, 1)
	err = lifeline.Start(p.cmd, syscall.SIGKILL, func() {
		p.read(stderr, addr)
		p.cmd.Wait() //nolint:errcheck // the state tells
		close(p.exited)
	})
	if err != nil {
		return nil, err
	}
	up, cancel := context.WithTimeoutCause(ctx, benchUpMax, fmt.Errorf("it does not serve within %s", benchUpMax))
	defer cancel()
	select {
	case p.addr = <-addr:
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("evently %s: %s: %s", strings.Join(args, " "), p.cmd.ProcessState, p.lastWords())
	case <-up.Done():
		err := context.Cause(up)
		if ctx.Err() == nil {
			err = fmt.Errorf("evently %s: %w: %s", strings.Join(args, " "), err, p.lastWords())
		}
		return nil, errors.Join(err, p.stop(context.WithoutCancel(ctx)))
	}
}

// read reads the log, which is JSON, to its end. addr is told the API's address.
func (p *benchProcess) read(log io.Reader, addr chan<- string) {
	serves := false
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, benchLineMax)
	for lines.Scan() {
		p.mu.Lock()
		p.tail = append(p.tail, lines.Text())
		p.tail = slices.Delete(p.tail, 0, max(0, len(p.tail)-benchTailMax))
		p.mu.Unlock()
		var entry struct {
			Message string `json:"msg"`
			Addr    string `json:"http_addr"`
		}
		if !serves && json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Message == servingMessage {
			serves = true
			addr <- entry.Addr
		}
	}
	io.Copy(io.Discard, log) //nolint:errcheck // behind a line that is too long: only so that the process is not stopped by a full pipe
}

// lastWords are the last lines of its log, of which the last tells most.
func (p *benchProcess) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// stop asks the process to end, and makes it. It returns an error if the process has ended before. How it ends now is nobody's
// business: what counts was audited.
func (p *benchProcess) stop(ctx context.Context) error {
	select {
	case <-p.exited:
		return fmt.Errorf("it ended by itself, %s: %s", p.cmd.ProcessState, p.lastWords())
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, benchStopMax)
	defer cancel()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	}
	err := p.signal(syscall.SIGKILL)
	<-p.exited
	return err
}

func (p *benchProcess) signal(signal os.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
