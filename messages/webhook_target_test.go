package messages

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/evently/evently"
)

func TestTargets_OnlyHostsOfThePublicInternet(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "93.184.216.34": true, "172.15.255.255": true, "172.32.0.1": true, "100.63.255.255": true, "100.128.0.1": true,
		"2606:2800:220:1::1": true, "2a00:1450:4001:80b::200e": true,
		"::ffff:8.8.8.8": true, "64:ff9b::808:808": true, "2002:808:808::1": true,

		"127.0.0.1": false, "127.255.255.254": false, "0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.168.0.1": false, "169.254.169.254": false, "169.254.0.1": false,
		"100.64.0.1": false, "100.127.255.255": false, "192.0.0.8": false, "192.0.2.1": false, "192.88.99.1": false, "198.18.0.1": false,
		"198.19.255.255": false, "198.51.100.7": false, "203.0.113.7": false, "224.0.0.1": false, "239.255.255.255": false,
		"240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fc00::1": false, "fd12:3456::1": false, "ff02::1": false, "fec0::1": false,
		"100::1": false, "2001:db8::1": false, "2001::1": false, "2001:10::1": false, "3fff::1": false, "5f00::1": false,
		// Private addresses in other clothes.
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false, "::ffff:0.0.0.0": false,
		"::127.0.0.1": false, "::10.0.0.1": false, "::ffff:0:127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::6440:1": false, "64:ff9b:1::808:808": false,
		"2002:7f00:1::1": false, "2002:a00:1::1": false, "2002:a9fe:a9fe::1": false,
		"fe80::1%eth0": false, "2606:2800:220:1::1%eth0": false,
	} {
		address := netip.MustParseAddr(text)
		if got := public(address); got != want {
			t.Errorf("%s: public is %v, want %v", text, got, want)
		}
		var targets Targets
		err := targets.control("tcp", netip.AddrPortFrom(address, 443).String(), nil)
		if got := err == nil; got != want {
			t.Errorf("%s: may be dialled: %v, want %v", text, got, want)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address is public")
	}
	if err := new(Targets).control("unix", "/run/docker.sock", nil); !errors.Is(err, errPrivateAddress) {
		t.Errorf("a socket may be dialled: %v", err)
	}
}

// names is a resolver whose answers the test chooses.
type names struct {
	mu      sync.Mutex
	answers map[string][]string
	asked   int
}

func (n *names) set(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answers == nil {
		n.answers = make(map[string][]string)
	}
	n.answers[name+"."] = addresses
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
}

// serve answers questions as over TCP: each message has its length before it.
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var length [2]byte
		if _, err := readFull(conn, length[:]); err != nil {
			return
		}
		text := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := readFull(conn, text); err != nil {
			return
		}
		var question dnsmessage.Message
		if err := question.Unpack(text); err != nil || len(question.Questions) != 1 {
			return
		}
		packed, err := n.answer(&question).Pack()
		if err != nil {
			return
		}
		if _, err := conn.Write(append([]byte{byte(len(packed) >> 8), byte(len(packed))}, packed...)); err != nil {
			return
		}
	}
}

func readFull(conn net.Conn, into []byte) (n int, err error) {
	for n < len(into) && err == nil {
		var m int
		m, err = conn.Read(into[n:])
		n += m
	}
	return n, err
}

func (n *names) answer(question *dnsmessage.Message) *dnsmessage.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	asked := question.Questions[0]
	reply := &dnsmessage.Message{
		Header: dnsmessage.Header{ID: question.ID, Response: true, RecursionAvailable: true}, Questions: question.Questions,
	}
	addresses, known := n.answers[strings.ToLower(asked.Name.String())]
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range addresses {
		header := dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET}
		switch address := netip.MustParseAddr(text); {
		case address.Is4() && asked.Type == dnsmessage.TypeA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: address.As4()}})
		case address.Is6() && asked.Type == dnsmessage.TypeAAAA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: address.As16()}})
		}
	}
	return reply
}

func TestTargets_URLsAreChecked(t *testing.T) {
	var known names
	known.set("hooks.example.com", "93.184.216.34", "2606:2800:220:1::1")
	known.set("inside.example.com", "10.0.0.7")
	known.set("both.example.com", "93.184.216.34", "127.0.0.1")
	known.set("mapped.example.com", "64:ff9b::7f00:1")
	known.set("metadata.example.com", "169.254.169.254")
	known.set("empty.example.com")
	open, strict := &Targets{AllowPrivate: true, Resolver: known.resolver()}, &Targets{Resolver: known.resolver()}
	const yes, private, no = "allowed", "allowed where private addresses are", "refused"
	for text, want := range map[string]string{
		"https://hooks.example.com/evently":            yes,
		"https://hooks.example.com":                    yes,
		"https://HOOKS.example.com:8443/a?token=x%20y": yes,
		"https://93.184.216.34/":                       yes,
		"https://[2606:2800:220:1::1]:65535/":          yes,

		"http://hooks.example.com/":              private,
		"https://127.0.0.1/":                     private,
		"https://[::1]:8443/":                    private,
		"https://[::ffff:127.0.0.1]/":            private,
		"https://169.254.169.254/latest/":        private,
		"https://inside.example.com/":            private,
		"https://both.example.com/":              private,
		"https://mapped.example.com/":            private,
		"https://metadata.example.com/":          private,
		"https://nobody.example.com/":            private,
		"https://empty.example.com/":             private,
		"https://2130706433/":                    private, // a name to this resolver, an address to others
		"https://0x7f.0.0.1/":                    private,
		"https://127.1/":                         private,
		"https://hooks.example.com.:443/":        yes,
		"https://hooks.example.com:0/":           no,
		"https://hooks.example.com:65536/":       no,
		"https://hooks.example.com:/":            no,
		"https://hooks.example.com:x/":           no,
		"https://user@hooks.example.com/":        no,
		"https://user:pass@hooks.example.com/":   no,
		"https://@hooks.example.com/":            no,
		"https://hooks.example.com/#part":        no,
		"https://hooks.example.com/#":            no,
		"https://":                               no,
		"https:///path":                          no,
		"https:hooks.example.com":                no,
		"//hooks.example.com/":                   no,
		"/hooks":                                 no,
		"":                                       no,
		"ftp://hooks.example.com/":               no,
		"file:///etc/passwd":                     no,
		"gopher://hooks.example.com/":            no,
		"https://hooks.example.com/a b":          no,
		"https://hooks.example.com/\r\nX: y":     no,
		"https://hooks.example.com/\x00":         no,
		"https://hooks.exämple.com/":             no,
		"https://hooks.example.com%2f@evil/":     no,
		"https://[::1":                           no,
		"https://[fe80::1%25eth0]/":              private,
		"https://hooks.example.com/" + long(1e4): no,
	} {
		for name, targets := range map[string]*Targets{"strict": strict, "open": open} {
			wanted := want == yes || want == private && targets == open
			err := targets.Check(t.Context(), text)
			if (err == nil) != wanted {
				t.Errorf("%s, %.60q: %v, want it %s", name, text, err, want)
			}
			var refusal *evently.Error
			if err != nil && (!errors.As(err, &refusal) || refusal.Code != evently.CodeInvalidRequest || len(refusal.Fields) != 1 ||
				refusal.Fields[0].Field != "url") {
				t.Errorf("%s, %.60q: %v, want the field url named", name, text, err)
			}
		}
	}
	// What is not there and what is private look the same.
	inside, absent := strict.Check(t.Context(), "https://inside.example.com/"), strict.Check(t.Context(), "https://nobody.example.com/")
	if inside.Error() != absent.Error() {
		t.Errorf("%v and %v differ", inside, absent)
	}
}

func long(n int) string { return strings.Repeat("x", n) }
