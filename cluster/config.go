package cluster

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// Config describes one member. The zero value of every field but Kinds is useful.
type Config struct {
	// Name is the cluster's name, 1 to 64 bytes. Members of other names are refused. Default "evently".
	Name string

	// GossipAddr is the IP or host and port that memberlist listens on, UDP and TCP (EVENTLY_CLUSTER_ADDR).
	// Port 0 takes a free one. Default 127.0.0.1:0.
	GossipAddr string

	// RemoteAddr is where actor messages are received, TCP (EVENTLY_REMOTE_ADDR). Port 0 takes a free one.
	// Default 127.0.0.1:0.
	RemoteAddr string

	// AdvertiseAddrs are told to other members instead of the two above. Needed behind NAT and when listening on 0.0.0.0.
	// Default: the addresses listened on.
	AdvertiseAddrs Addrs

	// Join lists gossip addresses of members to join (EVENTLY_JOIN), IPs or host names; the own address in it is
	// ignored. Empty: this member starts a cluster. Otherwise Start waits until one of them answers, or with a Quorum of 2
	// or more, which keeps this member from serving alone, returns and tries on.
	Join []string

	// KeyFile holds the key that encrypts the gossip (EVENTLY_CLUSTER_KEY_FILE): 16, 24 or 32 bytes in base64, the same
	// on all members. Default: no encryption, fit for loopback only.
	KeyFile string

	// RemoteTLS protects actor messages; it is used as server and as client, so give it a certificate for the
	// advertised IP, RootCAs, ClientCAs and tls.RequireAndVerifyClientCert. Default: plain text, fit for loopback only.
	RemoteTLS *tls.Config

	// Profile sets how fast a dead member is noticed. Default ProfileLAN.
	Profile Profile

	// Quorum is how many members must be seen before this one activates anything: the majority of an odd number of
	// nodes, 2 of 3, 3 of 5. 0 turns it off, for one node: after a partition both sides would serve. Default 0.
	Quorum int

	// Kinds are the actors this member hosts, by name. A member without kinds hosts none and still locates all.
	Kinds map[string]Kind

	// Messages are what other members may send to actors, besides answers that nobody was there: full names of protobuf messages.
	// All others are ignored, among them Proto.Actor's own, with which anybody who reaches RemoteAddr could stop this member.
	// Default: none.
	Messages []string

	// Logger receives this package's records, memberlist's, and Proto.Actor's of level Warn and above.
	// Default slog.Default().
	Logger *slog.Logger

	// Registerer receives the metrics. Default: they are not registered.
	Registerer prometheus.Registerer
}

// Addrs are the two addresses of a member, host:port each; empty ones fall back to a default.
type Addrs struct {
	Gossip, Remote string
}

// Kind is one sort of actor with an identity.
type Kind struct {
	// Props makes the props of the actor for identity. It must not block and must not locate. A failing actor is stopped
	// and activated again by the next look-up; it is never restarted in place.
	Props func(identity string) *actor.Props

	// Drain is sent to an activation that must go, because its member drains or no longer owns the identity. The actor
	// should answer "moved" to what is queued, finish its writes and stop. The value is shared: it must be immutable.
	// Default: a poison pill, which stops it after the messages queued by then.
	Drain any
}

// Profile is a failure detection speed. Slower ones tolerate longer pauses and use less traffic.
type Profile string

// The profiles, with the time after which the others serve what a killed member did, and the pause of a member that does not
// get it evicted. Measured with three and with five members on one machine of 2 cores, mean and longest of 4:
//
//	go test -run - -bench 'KilledMember|PausedMember' -benchtime 4x ./cluster
const (
	ProfileLAN   Profile = "lan"   // 4.2 s, at most 4.6 s (five members: 4.4 s, 4.8 s); tolerates a pause of 3 s
	ProfileWAN   Profile = "wan"   // about 40 s by its settings; tolerates seconds of delay
	ProfileFast  Profile = "fast"  // 2.0 s, at most 2.1 s (five members: 2.1 s, 2.3 s); tolerates a pause of 1 s
	ProfileLocal Profile = "local" // 5.5 s, at most 6.3 s; loopback, little retransmission
)

const (
	defaultName = "evently"
	defaultAddr = "127.0.0.1:0"
	nameBytes   = 64 // the longest Config.Name
)

// validate returns the configuration with its defaults filled in, or all that is wrong with it.
func (c Config) validate() (Config, error) {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.GossipAddr == "" {
		c.GossipAddr = defaultAddr
	}
	if c.RemoteAddr == "" {
		c.RemoteAddr = defaultAddr
	}
	if c.Profile == "" {
		c.Profile = ProfileLAN
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Kinds = maps.Clone(c.Kinds)
	var wrong []error
	if len(c.Name) > nameBytes {
		wrong = append(wrong, fmt.Errorf("name of %d bytes, at most %d", len(c.Name), nameBytes))
	}
	if c.Quorum < 0 {
		wrong = append(wrong, fmt.Errorf("quorum %d is negative", c.Quorum))
	}
	for name, kind := range c.Kinds {
		if name == "" || kind.Props == nil {
			wrong = append(wrong, fmt.Errorf("kind %q needs a name and Props", name))
		}
	}
	for _, seed := range c.Join {
		if _, _, err := splitAddr(seed); err != nil {
			wrong = append(wrong, fmt.Errorf("seed: %w", err))
		}
	}
	wrong = append(wrong,
		validAddr("gossip", c.GossipAddr, c.AdvertiseAddrs.Gossip),
		validAddr("remote", c.RemoteAddr, c.AdvertiseAddrs.Remote))
	if _, err := c.Profile.memberlist(); err != nil {
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return c, fmt.Errorf("cluster config: %w", err)
	}
	return c, nil
}

func validAddr(use, listen, advertise string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("%s address: %w", use, err)
	}
	if ip := net.ParseIP(host); advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("%s address %s needs an advertised address that others can reach", use, listen)
	}
	if advertise != "" {
		if host, port, err := net.SplitHostPort(advertise); err != nil || host == "" || port == "0" {
			return fmt.Errorf("advertised %s address %q is not host:port", use, advertise)
		}
	}
	return nil
}

// memberlist returns the library's settings for the profile.
func (p Profile) memberlist() (*memberlist.Config, error) {
	switch p {
	case ProfileLAN:
		conf := quickConfig()
		conf.TCPTimeout = 2 * time.Second
		conf.ProbeInterval = 600 * time.Millisecond
		conf.ProbeTimeout = 300 * time.Millisecond
		return conf, nil
	case ProfileWAN:
		conf := memberlist.DefaultWANConfig()
		conf.TCPTimeout = 6 * time.Second
		return conf, nil
	case ProfileLocal:
		return memberlist.DefaultLocalConfig(), nil
	case ProfileFast:
		conf := quickConfig()
		conf.TCPTimeout = time.Second
		conf.ProbeInterval = 300 * time.Millisecond
		conf.ProbeTimeout = 150 * time.Millisecond
		conf.GossipInterval = 100 * time.Millisecond
		conf.PushPullInterval = 10 * time.Second
		return conf, nil
	default:
		return nil, fmt.Errorf("profile %q is none of lan, wan, fast, local", p)
	}
}

// quickConfig bounds what memberlist adds for large clusters and slow members: a suspect of whom too few others are suspicious,
// as on the smaller side of a partition, counts as dead after twice the usual wait, not 6 times, and a member that doubts itself
// probes 3 times slower, not 8.
func quickConfig() *memberlist.Config {
	conf := memberlist.DefaultLANConfig()
	conf.SuspicionMaxTimeoutMult = 2
	conf.AwarenessMaxMultiplier = 3
	return conf
}

// readKey returns the gossip key in the file, or nil when there is no file.
func readKey(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("gossip key in %s: %w", path, err)
	}
	if err := memberlist.ValidateKey(key); err != nil {
		return nil, fmt.Errorf("gossip key in %s: %w", path, err)
	}
	return key, nil
}
