package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

const (
	// netHostsMax bounds the hosts of a network: its block has 254 addresses.
	netHostsMax = 200
	// subnetAttemptsMax bounds the search for a block of addresses that nobody uses.
	subnetAttemptsMax = 50
	// nobody is a link address that no host has. A bridge gives a frame for it to all, and all drop it.
	nobody = "02:00:00:00:00:01"
	// netnsDir is where the ip command keeps namespaces by name.
	netnsDir = "/run/netns"
)

// subnets is the range for tests of networks (RFC 2544), which nothing real uses. A network takes a /24 of it.
var subnets = netip.MustParsePrefix("198.18.0.0/15")

// Net is a network of hosts, each a Linux network namespace, all plugged into one bridge. The test itself is plugged in, too,
// so that it reaches every host whatever it cuts.
//
// What is cut is dropped in silence, as by a pulled cable or a firewall: connections stall, new ones wait for an answer, and
// datagrams are sent and lost. It is done by giving the sender a wrong link address for the receiver, which open connections
// use at once, and heals in the same way.
//
// Its namespaces go when the test ends. Those that a killed test process has left go, with the processes in them, when the
// next one makes its first network.
//
// Only the test's own goroutine may call the methods that change the network.
type Net struct {
	t     testing.TB
	ip    string // path of the command
	name  string // part of the names of its namespaces, and the name of the test's own interface
	block netip.Prefix
	hosts int
}

var (
	netsMade   atomic.Int64
	sweepOnce  sync.Once
	sweepError error
)

// NewNet makes a network of a number of hosts, 1 to 200. It takes Linux, root and the ip command. Root and continuous
// integration (CI is set) have to have all of these, or the test fails; anybody else is told what is missing and gets nil,
// with which a test that is about networks has to return.
func NewNet(t testing.TB, hosts int) *Net {
	t.Helper()
	if hosts < 1 || hosts > netHostsMax {
		t.Fatalf("a network of %d hosts, 1 to %d are possible", hosts, netHostsMax)
	}
	ip, err := ipCommand()
	if err == nil {
		n := &Net{t: t, ip: ip, name: fmt.Sprintf("ev%dx%d", os.Getpid(), netsMade.Add(1)), hosts: hosts}
		sweepOnce.Do(func() { sweepError = n.sweep(true) })
		if err = sweepError; err == nil {
			t.Cleanup(n.remove)
			err = n.build()
		}
		if err == nil {
			return n
		}
	}
	err = fmt.Errorf("no network of %d hosts, which the test is about: %w", hosts, err)
	const remedy = "\nIt takes Linux, root with CAP_SYS_ADMIN and CAP_NET_ADMIN (in a container: --privileged), and the ip command " +
		"(Debian: apt-get install iproute2)."
	if os.Geteuid() == 0 || os.Getenv("CI") != "" {
		t.Fatal(err, remedy)
	}
	t.Log("NOTHING WAS TESTED: "+err.Error(), remedy)
	return nil
}

func ipCommand() (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("there are no network namespaces on %s", runtime.GOOS)
	}
	for _, name := range []string{"ip", "/usr/sbin/ip", "/sbin/ip"} { // the last two are not in everybody's PATH
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no ip command")
}

// run runs the ip command in a namespace, "" for the test's own, with commands one a line.
func (n *Net) run(namespace string, commands ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command(n.ip, args...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s < %q: %w: %s", strings.Join(args, " "), strings.Join(commands, "; "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (n *Net) hub() string { return "evently-" + n.name + "-hub" }

func (n *Net) namespace(host int) string {
	if host < 0 || host >= n.hosts {
		n.t.Fatalf("host %d of %d", host, n.hosts)
	}
	return fmt.Sprintf("evently-%s-h%d", n.name, host)
}

// build makes the bridge in a namespace of its own, where no firewall of the machine sees what it passes on. All is removed
// with the namespaces.
func (n *Net) build() error {
	if err := n.run("", "netns add "+n.hub(), fmt.Sprintf("link add %s type veth peer name test netns %s", n.name, n.hub())); err != nil {
		return err
	}
	if err := n.run(n.hub(), "link add bridge type bridge", "link set bridge up", "link set test master bridge up"); err != nil {
		return err
	}
	if err := n.takeSubnet(); err != nil {
		return err
	}
	for host := range n.hosts {
		if err := n.plug(host); err != nil {
			return err
		}
	}
	return nil
}

// plug makes a host and connects it.
func (n *Net) plug(host int) error {
	namespace, port := n.namespace(host), fmt.Sprintf("h%d", host)
	if err := n.run("", "netns add "+namespace); err != nil {
		return err
	}
	if err := n.run(namespace, fmt.Sprintf("link add eth0 type veth peer name %s netns %s", port, n.hub()),
		fmt.Sprintf("address add %s/%d dev eth0", n.IP(host), n.block.Bits()), "link set lo up", "link set eth0 up"); err != nil {
		return err
	}
	return n.run(n.hub(), fmt.Sprintf("link set %s master bridge up", port))
}

// takeSubnet gives the test's interface addresses in a block that no other interface of the machine has a route to. It looks
// again afterwards: another test process may have taken the same one meanwhile.
func (n *Net) takeSubnet() error {
	for range subnetAttemptsMax {
		base := subnets.Addr().As4()
		base[1] += byte(rand.IntN(2))
		base[2] = byte(rand.IntN(256))
		n.block = netip.PrefixFrom(netip.AddrFrom4(base), 24)
		if taken, err := n.taken(); err != nil {
			return err
		} else if taken {
			continue
		}
		if err := n.run("", fmt.Sprintf("address add %s/%d dev %s", n.TestIP(), n.block.Bits(), n.name),
			fmt.Sprintf("address add %s/32 dev %s", n.ServiceIP(), n.name), fmt.Sprintf("link set %s up", n.name)); err != nil {
			return err
		}
		if taken, err := n.taken(); err != nil || !taken {
			return err
		}
		if err := n.run("", "address flush dev "+n.name); err != nil {
			return err
		}
	}
	return fmt.Errorf("no block of %s is free, after %d attempts", subnets, subnetAttemptsMax)
}

// taken says whether there is a route by another interface to a part of the block, but for the default route.
func (n *Net) taken() (bool, error) {
	out, err := exec.Command(n.ip, "-4", "-o", "route", "show", "table", "all").Output()
	if err != nil {
		return false, fmt.Errorf("ip route show: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if strings.Contains(line, " dev "+n.name+" ") || len(words) == 0 {
			continue
		}
		to := words[0]
		if _, err := strconv.Atoi(to[:1]); err != nil && len(words) > 1 { // a type, as in: local 127.0.0.1
			to = words[1]
		}
		if !strings.Contains(to, "/") {
			to += "/32"
		}
		if route, err := netip.ParsePrefix(to); err == nil && route.Bits() > 0 && route.Overlaps(n.block) {
			return true, nil
		}
	}
	return false, nil
}

func (n *Net) address(last int) string {
	address := n.block.Addr().As4()
	address[3] = byte(last)
	return netip.AddrFrom4(address).String()
}

// TestIP is the address of the test itself. No host is ever cut off from it.
func (n *Net) TestIP() string { return n.address(1) }

// ServiceIP is a second address of the test, for services that hosts lose when they are isolated, such as a way to Postgres.
func (n *Net) ServiceIP() string { return n.address(2) }

// IP is the address of a host, which are numbered from 0.
func (n *Net) IP(host int) string { return n.address(10 + host) }

// Exec is what to put before a command line to have it run on a host: it replaces itself by the command, so that the process
// id is the same. Everything but the network is shared with the test.
func (n *Net) Exec(host int) []string { return []string{n.ip, "netns", "exec", n.namespace(host)} }

// Cut cuts two hosts from each other.
func (n *Net) Cut(a, b int) {
	n.t.Helper()
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay drops what a host sends to others, which still reach it.
func (n *Net) CutOneWay(from int, to ...int) {
	n.t.Helper()
	addresses := make([]string, len(to))
	for i, host := range to {
		addresses[i] = n.IP(host)
	}
	n.lose(from, addresses...)
}

// Split cuts the network in two: the hosts given, and all others.
func (n *Net) Split(side ...int) {
	n.t.Helper()
	in := make([]bool, n.hosts)
	for _, host := range side {
		in[host] = true
	}
	for host := range n.hosts {
		var others []int
		for other := range n.hosts {
			if in[other] != in[host] {
				others = append(others, other)
			}
		}
		n.CutOneWay(host, others...)
	}
}

// Isolate cuts a host from all others, and from ServiceIP.
func (n *Net) Isolate(host int) {
	n.t.Helper()
	n.Split(host)
	n.lose(host, n.ServiceIP())
}

// lose has the host send packets for some addresses to nobody.
func (n *Net) lose(host int, addresses ...string) {
	n.t.Helper()
	if len(addresses) == 0 {
		return
	}
	commands := make([]string, len(addresses))
	for i, address := range addresses {
		commands[i] = fmt.Sprintf("neighbour replace %s lladdr %s dev eth0 nud permanent", address, nobody)
	}
	if err := n.run(n.namespace(host), commands...); err != nil {
		n.t.Fatal(err)
	}
}

// Heal undoes all cuts.
func (n *Net) Heal() {
	n.t.Helper()
	for host := range n.hosts {
		if err := n.run(n.namespace(host), "neighbour flush dev eth0 nud permanent"); err != nil {
			n.t.Fatal(err)
		}
	}
}

// remove ends the network. Processes that still run on a host are an error of the test.
func (n *Net) remove() {
	names, err := n.namespaces()
	if err != nil {
		n.t.Error(err)
	}
	for name, owner := range names {
		if owner != n.name {
			continue
		}
		killed, err := n.removeNamespace(name)
		if err != nil {
			n.t.Error(err)
		}
		if len(killed) > 0 {
			n.t.Errorf("the processes %v still ran in %s, and were killed", killed, name)
		}
	}
	// The kernel removes it with the other end, but at its leisure, and the addresses shall be free now.
	if err := n.run("", "link delete "+n.name); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		n.t.Error(err)
	}
}

// ours matches the names of namespaces of networks: the network's own name, with the process id of its owner in it.
var ours = regexp.MustCompile(`^evently-(ev([0-9]+)x[0-9]+)-h`)

// namespaces are those of all networks of this machine, with the network's name.
func (n *Net) namespaces() (map[string]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	found := make(map[string]string)
	for _, entry := range entries {
		if match := ours.FindStringSubmatch(entry.Name()); match != nil {
			found[entry.Name()] = match[1]
		}
	}
	return found, nil
}

// sweep removes the networks of processes that are no more. Before this process has made one, first, those that have its id
// belong to an earlier process. If another id was given anew the network stays until that process ends.
func (n *Net) sweep(first bool) error {
	names, err := n.namespaces()
	if err != nil {
		return err
	}
	for name := range names {
		pid, err := strconv.Atoi(ours.FindStringSubmatch(name)[2])
		if err != nil {
			return err
		}
		gone := errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || pid == os.Getpid() && first
		if !gone {
			continue
		}
		if _, err := n.removeNamespace(name); err != nil {
			return err
		}
	}
	return nil
}

// removeNamespace kills what runs in a namespace and deletes it. That another process has deleted it meanwhile is fine.
func (n *Net) removeNamespace(name string) (killed []int, err error) {
	path := filepath.Join(netnsDir, name)
	out, err := exec.Command(n.ip, "netns", "pids", name).Output()
	if err != nil {
		return nil, absent(path, fmt.Errorf("ip netns pids %s: %w", name, err))
	}
	for _, word := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return killed, fmt.Errorf("ip netns pids %s: %w", name, err)
		}
		if pid == os.Getpid() {
			return killed, fmt.Errorf("this process itself runs in %s", name)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return killed, fmt.Errorf("kill %d in %s: %w", pid, name, err)
		}
		killed = append(killed, pid)
	}
	if err := n.run("", "netns delete "+name); err != nil {
		return killed, absent(path, err)
	}
	return killed, nil
}

// absent is err, unless there is no such file.
func absent(path string, err error) error {
	if _, gone := os.Stat(path); errors.Is(gone, os.ErrNotExist) {
		return nil
	}
	return err
}
