package messages

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/evently/evently"
)

// Targets decides where webhooks may be sent to.
//
// Whoever registers a URL has this server make requests, from inside its network. So addresses that are not of the public
// internet are refused, unless AllowPrivate: when a URL is registered, and each time that a connection is made, for the
// address that is really dialled. What a name means may have changed in between, or differ from question to question.
type Targets struct {
	// AllowPrivate allows all addresses, and http beside https. Default: public addresses and https alone.
	AllowPrivate bool
	// Resolver looks names up. Default: net.DefaultResolver.
	Resolver *net.Resolver
}

// lookUpMax bounds the look-up of a name when a URL is registered.
const lookUpMax = 3 * time.Second

// Check returns an *evently.Error with CodeInvalidRequest that names the field url when nothing may be sent to a URL, or nil. It looks
// the host up; one that has no address now is refused with the same words as one that must not be called, so that nobody
// learns the names of a private network here.
func (t *Targets) Check(ctx context.Context, text string) error {
	host, fault := t.parse(text)
	if fault == "" && !t.AllowPrivate {
		fault = t.lookUp(ctx, host)
	}
	if fault != "" {
		return evently.FieldErrors{{Field: "url", Message: fault}}.Err()
	}
	return nil
}

// parse returns the host of a URL, or what is wrong with it.
func (t *Targets) parse(text string) (host, fault string) {
	if len(text) > evently.WebhookURLBytesMax {
		return "", fmt.Sprintf("must have at most %d bytes", evently.WebhookURLBytesMax)
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return "", "must be written in ASCII, without blanks"
		}
	}
	target, err := url.Parse(text)
	switch {
	case err != nil || target.Opaque != "" || target.Hostname() == "":
		return "", "must be a URL such as https://example.com/hooks"
	case target.Scheme != "https" && (target.Scheme != "http" || !t.AllowPrivate):
		return "", "must begin with https://"
	case target.User != nil:
		return "", "must not have a user name or a password"
	case strings.Contains(text, "#"):
		return "", "must not have a fragment"
	case strings.HasSuffix(target.Host, ":"):
		return "", "must not have an empty port"
	}
	if port := target.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "must have a port from 1 to 65535"
		}
	}
	return target.Hostname(), ""
}

const faultHost = "must have a host with a public address"

func (t *Targets) lookUp(ctx context.Context, host string) (fault string) {
	ctx, cancel := context.WithTimeout(ctx, lookUpMax)
	defer cancel()
	resolver := t.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip", host) // an address is its own
	if err != nil || len(addresses) == 0 {
		return faultHost
	}
	for _, address := range addresses {
		if !public(address) {
			return faultHost
		}
	}
	return ""
}

// errPrivateAddress: a connection was refused before it was made.
var errPrivateAddress = errors.New("the address is not a public one")

// control is for net.Dialer.Control: it sees each address that is about to be dialled.
func (t *Targets) control(_, address string, _ syscall.RawConn) error {
	if t.AllowPrivate {
		return nil
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil || !public(target.Addr()) {
		return errPrivateAddress
	}
	return nil
}

// Addresses of the IANA special-purpose registries that lead elsewhere than to one host of the public internet.
var (
	special = prefixes(
		"0.0.0.0/8",       // this network
		"100.64.0.0/10",   // shared by the customers of a carrier
		"192.0.0.0/24",    // protocols
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // relays of 6to4
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"240.0.0.0/4",     // reserved, broadcast
		"2001::/23",       // protocols, Teredo among them
		"2001:db8::/32",   // documentation
		"3fff::/20",       // documentation
	)
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // an IPv4 address in the last 4 bytes
	sixToFour     = netip.MustParsePrefix("2002::/16")    // an IPv4 address in the 4 bytes that follow
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// public reports whether an address is that of a host in the public internet, whatever way it is written in.
func public(address netip.Addr) bool {
	if !address.IsValid() || address.Zone() != "" {
		return false
	}
	address = address.Unmap()
	bytes := address.As16()
	switch {
	case address.Is4():
	case nat64.Contains(address):
		return public(netip.AddrFrom4([4]byte(bytes[12:])))
	case sixToFour.Contains(address):
		return public(netip.AddrFrom4([4]byte(bytes[2:6])))
	case !globalUnicast.Contains(address):
		return false
	}
	for _, prefix := range special {
		if prefix.Contains(address) {
			return false
		}
	}
	return address.IsGlobalUnicast() && !address.IsPrivate()
}
