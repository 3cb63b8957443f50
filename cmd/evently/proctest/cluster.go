package proctest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Config describes a cluster. All fields but Nodes have a useful zero value.
type Config struct {
	Nodes    int                     // at least 1
	Quorum   int                     // 0: the majority
	Profile  string                  // of failure detection; "": fast
	Hosts    []string                // the IP of each node; nil: loopback addresses that nobody else uses
	Prefix   func(node int) []string // runs the program of a node, as do ip netns exec NAME; nil: nothing
	Postgres *Postgres               // nil: one of the cluster's own
	Relayed  bool                    // each node reaches Postgres by a Relay of its own
	Database func(node int) string   // the URL of a node's way to Postgres; nil: the direct one, or that of its Relay
	TLS      bool                    // messages between nodes are encrypted, and both sides known by certificates
	Args     []string                // further settings of all nodes; they win
}

// The ports of every node.
const (
	apiPort        = "8080"
	operationsPort = "8081"
	gossipPort     = "7946"
	remotePort     = "7947"
)

// Cluster is some nodes over one Postgres, which know each other's addresses.
type Cluster struct {
	Members   []*Member
	Postgres  *Postgres
	GossipKey string // the file that all members have it from
}

// Start starts a cluster, all nodes at the same time, and waits until it is whole. It ends with the test.
func Start(t testing.TB, config Config) *Cluster {
	t.Helper()
	c := New(t, config)
	for _, m := range c.Members {
		m.Start(t)
	}
	c.Whole(t, UpMax)
	return c
}

// New makes a cluster whose nodes are yet to be started.
func New(t testing.TB, config Config) *Cluster {
	t.Helper()
	if config.Quorum == 0 {
		config.Quorum = config.Nodes/2 + 1
	}
	if config.Profile == "" {
		config.Profile = "fast"
	}
	if config.Hosts == nil {
		config.Hosts = Loopbacks(t, config.Nodes, apiPort, operationsPort, gossipPort, remotePort)
	}
	if len(config.Hosts) != config.Nodes {
		t.Fatalf("%d hosts for %d nodes", len(config.Hosts), config.Nodes)
	}
	c := &Cluster{Postgres: config.Postgres, GossipKey: gossipKey(t)}
	if c.Postgres == nil {
		c.Postgres = StartPostgres(t)
	}
	shared := slices.Concat([]string{
		"serve", "--cluster-profile=" + config.Profile, fmt.Sprint("--cluster-quorum=", config.Quorum), "--cluster-key-file=" + c.GossipKey,
		"--jwt-secret=pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2", "--log-format=json", "--admin-email=ops@example.org",
		"--admin-password=Kd7-tulip-Vq2-harbour", "--rate-limit-book=off", "--rate-limit-auth=off",
	}, config.Args)
	if config.TLS {
		shared = append(shared, certificates(t, config.Hosts)...)
	}
	for number, host := range config.Hosts {
		at := func(port string) string { return net.JoinHostPort(host, port) }
		m := &Member{
			Server: Server{
				API: "http://" + at(apiPort), Operations: "http://" + at(operationsPort),
				Email: "ops@example.org", Password: "Kd7-tulip-Vq2-harbour",
			},
			Number: number, Host: host, Gossip: at(gossipPort), program: Program(t), command: Command{Home: t.TempDir()},
		}
		database := c.Postgres.DSN()
		if config.Relayed {
			m.Relay = NewRelay(t, "127.0.0.1:0", database)
			database = m.Relay.DSN()
		}
		if config.Database != nil {
			database = config.Database(number)
		}
		if config.Prefix != nil {
			m.command.Prefix = config.Prefix(number)
		}
		var join []string
		for other, host := range config.Hosts {
			if other != number {
				join = append(join, net.JoinHostPort(host, gossipPort))
			}
		}
		m.command.Args = slices.Concat(shared[:1], []string{
			"--http-addr=" + at(apiPort), "--admin-addr=" + at(operationsPort), "--cluster-addr=" + m.Gossip, "--remote-addr=" + at(remotePort),
			"--join=" + strings.Join(join, ","), "--database-url=" + database, "--data-dir=" + filepath.Join(m.command.Home, "data"),
		}, shared[1:])
		c.Members = append(c.Members, m)
		t.Cleanup(func() { m.end(t) })
	}
	return c
}

// hostAttemptsMax bounds the search for addresses that nobody uses.
const hostAttemptsMax = 100

// Loopbacks returns addresses of 127.0.0.0/8 at which nobody listens on the ports, so that nodes of tests that run at the same
// time do not meet. Only Linux has them all.
func Loopbacks(t testing.TB, count int, ports ...string) (hosts []string) {
	t.Helper()
	for range hostAttemptsMax {
		host := fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
		if !slices.Contains(hosts, host) && free(t, host, ports) {
			hosts = append(hosts, host)
		}
		if len(hosts) == count {
			return hosts
		}
	}
	t.Fatalf("%d loopback addresses found, %d wanted; on macOS and BSD more have to be configured", len(hosts), count)
	return nil
}

func free(t testing.TB, host string, ports []string) bool {
	t.Helper()
	for _, port := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Logf("not used: %v", err)
			return false
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// gossipKey writes a fresh key to a file.
func gossipKey(t testing.TB) (path string) {
	t.Helper()
	var key [32]byte
	rand.Read(key[:])
	path = filepath.Join(t.TempDir(), "gossip-key")
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(key[:])), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Servers are the addresses of members, all of the cluster's if none are given.
func (c *Cluster) Servers(members ...*Member) (servers []*Server) {
	if members == nil {
		members = c.Members
	}
	for _, m := range members {
		servers = append(servers, &m.Server)
	}
	return servers
}

// Whole waits until each of the members, all of the cluster's if none are given, is ready and sees just them, and returns how
// long that took.
func (c *Cluster) Whole(t testing.TB, within time.Duration, members ...*Member) time.Duration {
	t.Helper()
	if members == nil {
		members = c.Members
	}
	began := time.Now()
	Eventually(t, within, func() error {
		for _, m := range members {
			seen, err := m.ReadMetric(t.Context(), "evently_cluster_members")
			if err == nil && int(seen) != len(members) {
				err = fmt.Errorf("sees %v members of %d", seen, len(members))
			}
			if err == nil {
				err = m.Probe(t.Context(), "/readyz")
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", m.Number, err)
			}
		}
		return nil
	})
	return time.Since(began)
}

// Owner is the member with the most event actors.
func (c *Cluster) Owner(t testing.TB) (owner *Member, events int) {
	t.Helper()
	for _, m := range c.Members {
		if serves := int(m.Metric(t, "evently_event_actors")); serves > events {
			owner, events = m, serves
		}
	}
	if owner == nil {
		t.Fatal("no node serves an event: the test would show nothing")
	}
	return owner, events
}
