package proctest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// restartAfter is the pause before the supervisor starts a process again, like systemd's RestartSec.
const restartAfter = 200 * time.Millisecond

// outputMax bounds what is shown of one process of a failed test, in bytes. It is the end that counts.
const outputMax = 64 << 10

// Member is a node of a Cluster, at the same addresses for its whole life. A supervisor starts its process again whenever that
// ends unasked. Its methods are for the test's own goroutine.
type Member struct {
	Server
	Number int
	Host   string // its IP
	Gossip string // its address for gossip, host:port
	Relay  *Relay // between it and Postgres, if Config.Relayed

	command Command
	program string

	mu          sync.Mutex
	processes   []*Process    // all there were, the last one maybe still running
	unstartable error         // why the supervisor could not start one
	asked       chan struct{} // closed: to end is what the process shall do; nil: nothing is supervised
	supervision sync.WaitGroup
}

// Start starts the process, which must not run. It does not wait: see Ready.
func (m *Member) Start(t testing.TB) {
	t.Helper()
	if m.asked != nil {
		t.Fatalf("node %d runs already", m.Number)
	}
	p, err := m.start()
	if err != nil {
		t.Fatal(err)
	}
	m.asked = make(chan struct{})
	m.supervision.Go(func() { m.supervise(p, m.asked) })
}

func (m *Member) start() (*Process, error) {
	p, err := m.command.start(m.program)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.unstartable = err
		return nil, err
	}
	m.processes = append(m.processes, p)
	return p, nil
}

// supervise starts the process again, as often as it takes, until it is asked to end.
func (m *Member) supervise(p *Process, asked <-chan struct{}) {
	for {
		select {
		case <-p.exited:
		case <-asked:
			return
		}
		select {
		case <-time.After(restartAfter):
		case <-asked:
			return
		}
		next, err := m.start()
		if err == nil {
			p = next
		}
	}
}

// Process is the last one that was started.
func (m *Member) Process() *Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.processes[len(m.processes)-1]
}

// Starts is how many processes there were. One that starts itself again stays the same process.
func (m *Member) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.processes)
}

// Output is all that its processes have printed.
func (m *Member) Output() (text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.processes {
		text += p.Output()
	}
	return text
}

// unsupervised ends the supervision: what the process does from now on is what it was asked.
func (m *Member) unsupervised() *Process {
	if m.asked != nil {
		close(m.asked)
		m.supervision.Wait()
		m.asked = nil
	}
	return m.Process()
}

// Stop asks the node to leave and waits until it has: as does systemctl stop.
func (m *Member) Stop(t testing.TB) {
	t.Helper()
	p := m.unsupervised()
	p.Signal(t, syscall.SIGTERM)
	if exit := p.Exit(t, StopMax); exit != ExitOK {
		t.Errorf("node %d: exit %d after SIGTERM, want %d", m.Number, exit, ExitOK)
	}
}

// Kill ends the process without a word, and the supervisor's care, as when a machine goes down.
func (m *Member) Kill(t testing.TB) {
	t.Helper()
	p := m.unsupervised()
	p.Signal(t, syscall.SIGKILL)
	p.Exit(t, StopMax)
}

// Crash ends the process without a word. The supervisor starts it again.
func (m *Member) Crash(t testing.TB) {
	t.Helper()
	p := m.Process()
	p.Signal(t, syscall.SIGKILL)
	p.Exit(t, StopMax)
}

// Pause stops the process where it is, as does a machine that is moved to another host.
func (m *Member) Pause(t testing.TB) {
	t.Helper()
	m.Process().Signal(t, syscall.SIGSTOP)
}

// Resume lets a paused process go on, which does not know that it was paused.
func (m *Member) Resume(t testing.TB) {
	t.Helper()
	m.Process().Signal(t, syscall.SIGCONT)
}

// Ready waits until the node would be in a load balancer's set.
func (m *Member) Ready(t testing.TB) {
	t.Helper()
	Eventually(t, UpMax, func() error { return m.Probe(t.Context(), "/readyz") })
}

// ID is the node's id in the cluster. Every start has a new one.
func (m *Member) ID(t testing.TB) string {
	t.Helper()
	var info struct{ Node string }
	Eventually(t, UpMax, func() error {
		status, text, err := get(t.Context(), m.API+"/info")
		if err == nil {
			err = json.Unmarshal(text, &info)
		}
		if err != nil || status != http.StatusOK || info.Node == "" {
			return fmt.Errorf("/info: status %d: %s (%w)", status, text, err)
		}
		return nil
	})
	return info.Node
}

// end kills what is left and shows what a failed test may want to know.
func (m *Member) end(t testing.TB) {
	if m.Starts() == 0 {
		return
	}
	p := m.unsupervised()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.exited
	if t.Failed() {
		text := m.Output()
		t.Logf("node %d, %d processes, last failure to start one: %v; output ends:\n%s",
			m.Number, m.Starts(), m.unstartable, text[max(0, len(text)-outputMax):])
	}
}
