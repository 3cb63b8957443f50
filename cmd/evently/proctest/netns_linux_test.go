package proctest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// arrives bounds what is not cut, on a busy machine.
	arrives = 10 * time.Second
	// lost is how long something is missed for that does not arrive.
	lost = 100 * time.Millisecond
)

// on runs f on a host. The sockets that it makes stay there.
func (n *Net) on(t *testing.T, host int, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	namespace, err := os.Open(filepath.Join(netnsDir, n.namespace(host)))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("enter %s: %v", namespace.Name(), err)
	}
	failed := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("return from %s: %v", namespace.Name(), err)
	}
	runtime.UnlockOSThread() // not after a failure: nothing else may run on that thread
	if failed != nil {
		t.Fatal(failed)
	}
}

// echo answers on TCP, on a free port of an address, until the test ends.
func echo(t *testing.T, ip string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(t, listener)
	return listener.Addr().String()
}

func serveEcho(t *testing.T, listener net.Listener) {
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go io.Copy(conn, conn) //nolint:errcheck // the other end sees what is missing
		}
	}()
}

func (n *Net) echoOn(t *testing.T, host int) (address string) {
	t.Helper()
	n.on(t, host, func() error {
		listener, err := net.Listen("tcp", n.IP(host)+":0")
		if err == nil {
			serveEcho(t, listener)
			address = listener.Addr().String()
		}
		return err
	})
	return address
}

func (n *Net) dialFrom(t *testing.T, host int, address string, within time.Duration) (conn net.Conn, err error) {
	t.Helper()
	n.on(t, host, func() error {
		conn, err = net.DialTimeout("tcp", address, within)
		return nil
	})
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func (n *Net) mustDialFrom(t *testing.T, host int, address string) net.Conn {
	t.Helper()
	conn, err := n.dialFrom(t, host, address, arrives)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// answers says whether something that is sent on the connection is echoed in time.
func answers(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

func (n *Net) packets(t *testing.T, host int) (conn net.PacketConn) {
	t.Helper()
	n.on(t, host, func() (err error) {
		conn, err = net.ListenPacket("udp", n.IP(host)+":0")
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// sent says whether a datagram arrives. Sending it is never an error: it is lost in silence.
func sent(t *testing.T, from, to net.PacketConn, within time.Duration) bool {
	t.Helper()
	if _, err := from.WriteTo([]byte("!"), to.LocalAddr()); err != nil {
		t.Fatalf("send to %s: %v", to.LocalAddr(), err)
	}
	if err := to.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, _, err := to.ReadFrom(make([]byte, 1))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func TestNet_CutsInSilenceAndHeals(t *testing.T) {
	n := NewNet(t, 3)
	if n == nil {
		return
	}
	addresses := []string{n.echoOn(t, 0), n.echoOn(t, 1), n.echoOn(t, 2)}
	open := map[string]net.Conn{
		"0 to 1": n.mustDialFrom(t, 0, addresses[1]), "1 to 0": n.mustDialFrom(t, 1, addresses[0]), "2 to 1": n.mustDialFrom(t, 2, addresses[1]),
	}
	for host, address := range addresses {
		conn, err := net.DialTimeout("tcp", address, arrives)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		open[fmt.Sprintf("test to %d", host)] = conn
	}
	service := echo(t, n.ServiceIP())
	open["0 to the service"] = n.mustDialFrom(t, 0, service)
	packets := []net.PacketConn{n.packets(t, 0), n.packets(t, 1), n.packets(t, 2)}

	// expect says which connections still answer; the others stall, and new ones get no answer, not even a refusal.
	expect := func(state string, stalled ...string) {
		t.Helper()
		for name, conn := range open {
			wanted := true
			for _, one := range stalled {
				wanted = wanted && one != name
			}
			within := arrives
			if !wanted {
				within = lost
			}
			if err := answers(conn, within); wanted && err != nil || !wanted && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: connection %s: %v; stalled ones are %q", state, name, err, stalled)
			}
		}
	}
	arrive := func(state string, from, to int, want bool) {
		t.Helper()
		within := arrives
		if !want {
			within = lost
		}
		if got := sent(t, packets[from], packets[to], within); got != want {
			t.Errorf("%s: datagram from %d to %d arrived: %v, want %v", state, from, to, got, want)
		}
	}
	// healed waits until connections that had stalled go on: TCP tries again at growing intervals.
	healed := func() {
		t.Helper()
		n.Heal()
		for name, conn := range open {
			if err := conn.SetDeadline(time.Now().Add(UpMax)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(".")); err != nil {
				t.Fatal(err)
			}
			for last := make([]byte, 1); last[0] != '.'; {
				if _, err := io.ReadFull(conn, last); err != nil {
					t.Fatalf("healed: connection %s: %v", name, err)
				}
			}
		}
	}

	expect("whole")
	n.CutOneWay(0, 1)
	arrive("cut one way", 0, 1, false)
	arrive("cut one way", 1, 0, true)
	arrive("cut one way", 0, 2, true)
	expect("cut one way", "0 to 1", "1 to 0") // answers get lost, too
	if _, err := n.dialFrom(t, 0, addresses[1], lost); !isTimeout(err) {
		t.Errorf("a new connection that is cut off: %v, want no answer at all", err)
	}
	healed()
	arrive("healed", 0, 1, true)

	n.Cut(1, 0)
	arrive("cut", 0, 1, false)
	arrive("cut", 1, 0, false)
	arrive("cut", 2, 0, true)
	expect("cut", "0 to 1", "1 to 0")
	healed()

	n.Split(0, 2)
	arrive("split", 0, 2, true)
	arrive("split", 0, 1, false)
	arrive("split", 1, 2, false)
	expect("split", "0 to 1", "1 to 0", "2 to 1")
	healed()

	n.Isolate(0)
	arrive("isolated", 1, 2, true)
	arrive("isolated", 1, 0, false)
	arrive("isolated", 0, 2, false)
	expect("isolated", "0 to 1", "1 to 0", "0 to the service")
	healed()
	expect("healed")
}

// The namespaces of a test process that was killed, and what runs in them, are removed by the next one. Those of a living one stay.
func TestNet_RemovesWhatAKilledTestLeft(t *testing.T) {
	own := NewNet(t, 1)
	if own == nil {
		return
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := &Net{t: t, ip: own.ip, name: fmt.Sprintf("ev%dx1", dead.Process.Pid), hosts: 2}
	t.Cleanup(left.remove) // in case that it is not swept
	if err := left.build(); err != nil {
		t.Fatal(err)
	}
	line := append(left.Exec(1), "cat")
	node := exec.Command(line[0], line[1:]...)
	stdin, err := node.StdinPipe() // it waits for input
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, UpMax, func() error { // it is on its host before it is killed
		out, err := exec.Command(left.ip, "netns", "pids", left.namespace(1)).Output()
		if err == nil && len(out) == 0 {
			err = errors.New("no process on the host")
		}
		return err
	})
	if err := own.sweep(false); err != nil {
		t.Fatal(err)
	}
	if err := node.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process on the host ended with %v", err)
	}
	names, err := own.namespaces()
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for namespace, network := range names {
		if network == left.name {
			t.Errorf("%s is left", namespace)
		}
		if network == own.name {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d namespaces of the living network, want a host and the hub", kept)
	}
}
