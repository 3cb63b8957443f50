package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"time"

	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/hashicorp/memberlist"
)

// meta is what a member tells about itself through the gossip, as JSON of at most memberlist.MetaMaxSize (512) bytes.
type meta struct {
	Cluster string   `json:"cluster"`
	ID      string   `json:"id"`
	Host    string   `json:"host"` // of actor traffic; an IPv6 address is in brackets
	Port    int      `json:"port"`
	Kinds   []string `json:"kinds,omitempty"`
	Start   int64    `json:"start"` // Unix milliseconds
}

func (m meta) encode() ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode member meta: %w", err)
	}
	if len(data) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("encode member meta: %d bytes, at most %d: use fewer or shorter kinds", len(data), memberlist.MetaMaxSize)
	}
	return data, nil
}

// decodeMeta reads the meta of another member. cluster is the name it must have.
func decodeMeta(data []byte, cluster string) (meta, error) {
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return meta{}, fmt.Errorf("decode member meta: %w", err)
	}
	if m.Cluster != cluster {
		return meta{}, fmt.Errorf("member %s is of cluster %q, not %q", m.ID, m.Cluster, cluster)
	}
	if m.ID == "" || m.Host == "" || m.Port < 1 || m.Port > 65535 {
		return meta{}, fmt.Errorf("member meta without id or address: %s", data)
	}
	return m, nil
}

// addr is where the member receives actor messages.
func (m meta) addr() string { return m.Host + ":" + strconv.Itoa(m.Port) }

func (m meta) start() time.Time { return time.UnixMilli(m.Start) }

// proto returns the member in Proto.Actor's terms.
func (m meta) proto() *protocluster.Member {
	return &protocluster.Member{Host: m.Host, Port: int32(m.Port), Id: m.ID, Kinds: m.Kinds}
}

// splitAddr parts an address, keeping the brackets of an IPv6 host so that host + ":" + port joins it again:
// Proto.Actor joins that way.
func splitAddr(addr string) (host string, port int, err error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if port, err = net.LookupPort("tcp", text); err != nil {
		return "", 0, fmt.Errorf("address %s: %w", addr, err)
	}
	return addr[:len(addr)-len(text)-1], port, nil
}
