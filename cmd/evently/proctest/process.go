package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/store/embedded/lifeline"
)

// Bounds on what a process does.
const (
	UpMax   = time.Minute      // until it serves, and any other wait for something that is bound to come
	StopMax = 40 * time.Second // from the signal to its end

	pollEvery = 20 * time.Millisecond
)

// Command is a command line of the program. Its zero value but for Args is useful.
type Command struct {
	Args   []string
	Prefix []string // runs the program, as do ip netns exec NAME; it has to end in exec, so that signals arrive
	Env    []string // beyond PATH and HOME
	Home   string   // HOME; empty: a fresh directory
}

// Process is a process of the program. Its methods can be called concurrently, but for Await.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	read   int // bytes of stdout that Await has looked at

	mu     sync.Mutex
	stdout bytes.Buffer
	text   bytes.Buffer // all output
}

// DataDir is a path of which nothing is there yet, for a data directory that the account that runs Postgres can enter.
func DataDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the test's, which is closed to others
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}

// Launch runs the program with a data directory and free ports. It is killed after the test.
func Launch(t testing.TB, dataDir string, args ...string) *Process {
	t.Helper()
	return Command{Args: args, Env: []string{
		"EVENTLY_DATA_DIR=" + dataDir, "EVENTLY_HTTP_ADDR=127.0.0.1:0", "EVENTLY_ADMIN_ADDR=127.0.0.1:0", "EVENTLY_RATE_LIMIT_AUTH=off",
	}}.Launch(t)
}

// Launch runs the command line. The process is killed after the test.
func (c Command) Launch(t testing.TB) *Process {
	t.Helper()
	if c.Home == "" {
		c.Home = t.TempDir()
	}
	p, err := c.start(Program(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(t, syscall.SIGKILL)
		<-p.exited
		if t.Failed() {
			t.Logf("output of evently %s:\n%s", strings.Join(c.Args, " "), p.Output())
		}
	})
	return p
}

func (c Command) start(program string) (*Process, error) {
	line := slices.Concat(c.Prefix, []string{program}, c.Args)
	p := &Process{cmd: exec.Command(line[0], line[1:]...), exited: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.Home}, c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = output{p, true}, output{p, false}
	err := lifeline.Start(p.cmd, syscall.SIGKILL, func() {
		p.cmd.Wait() //nolint:errcheck // the tests look at State
		close(p.exited)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// output is where a process writes.
type output struct {
	*Process
	standard bool
}

func (o output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.standard {
		o.stdout.Write(text)
	}
	return o.text.Write(text)
}

// Output is all that the process has printed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// PID is the process id. It stays the same when the program starts itself again.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended and all its output has been read.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// State says how the process ended. Call it after Exited only.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// Await returns the match of a line of standard output that is yet to come: one after that which the last call returned.
func (p *Process) Await(t testing.TB, pattern string) (match []string) {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	Eventually(t, UpMax, func() error {
		ended := false
		select {
		case <-p.exited:
			ended = true
		default:
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for {
			line, _, whole := strings.Cut(string(p.stdout.Bytes()[p.read:]), "\n")
			if !whole {
				break
			}
			p.read += len(line) + 1
			if match = expression.FindStringSubmatch(line); match != nil {
				return nil
			}
		}
		if ended {
			t.Fatalf("evently ended before it printed %q", pattern)
		}
		return fmt.Errorf("evently has not printed %q", pattern)
	})
	return match
}

// Logged waits for a match in all that the process has printed and prints.
func (p *Process) Logged(t testing.TB, pattern string) (match []string) {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	Eventually(t, UpMax, func() error {
		if match = expression.FindStringSubmatch(p.Output()); match == nil {
			return fmt.Errorf("not printed: %s", pattern)
		}
		return nil
	})
	return match
}

// Signal sends a signal. A process that has ended does not mind.
func (p *Process) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// Exit waits for the end of the process and returns the exit code, -1 after a signal.
func (p *Process) Exit(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("evently still runs after %s", within)
		return 0
	}
}

// Eventually polls until check returns nil.
func Eventually(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	timeout := time.After(within)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-timeout:
			t.Fatalf("not within %s: %v", within, err)
		case <-tick.C:
		}
	}
}
