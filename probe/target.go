package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Kind is how a target is probed; its text is the scheme of a written target.
type Kind string

// The kinds of probe.
const (
	ICMP Kind = "icmp" // echo request (RFC 792)
	TCP  Kind = "tcp"  // connection set-up (RFC 9293)
	ARP  Kind = "arp"  // resolution of the gateway's address (RFC 826)
)

// gateway reports whether it asks the gateway alone, which may answer while nothing behind it does.
func (k Kind) gateway() bool { return k == ARP }

// cost orders the kinds by what a probe costs.
func (k Kind) cost() int {
	if k == TCP {
		return 1
	}
	return 0
}

// ErrTarget is wrapped by every error of ParseTarget.
var ErrTarget = errors.New("write icmp://ADDRESS, tcp://ADDRESS:PORT or arp://gateway")

const arpGateway = "gateway"

// Target is something on the far side of an uplink that answers while the uplink works. It is comparable.
type Target struct {
	Kind Kind
	Addr netip.Addr // invalid for ARP, which asks for the gateway of the uplink
	Port uint16     // valid for TCP
}

// ParseTarget reads a target as people write it: icmp://ADDRESS, tcp://ADDRESS:PORT, arp://gateway, or a bare address,
// which is pinged.
func ParseTarget(s string) (Target, error) {
	t, err := parseTarget(s)
	if err != nil {
		return Target{}, fmt.Errorf("probe target %q: %w: %w", s, err, ErrTarget)
	}
	return t, nil
}

func parseTarget(s string) (Target, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = string(ICMP), s
	}
	switch Kind(scheme) {
	case ICMP:
		addr, err := parseAddr(rest)
		return Target{Kind: ICMP, Addr: addr}, err
	case TCP:
		return parseTCP(rest)
	case ARP:
		if rest != arpGateway {
			return Target{}, errors.New("ARP asks only for the gateway")
		}
		return Target{Kind: ARP}, nil
	}
	return Target{}, fmt.Errorf("unknown kind %q", scheme)
}

func parseTCP(s string) (Target, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		return Target{}, errors.New("a port is missing")
	}
	if _, err := parseAddr(s[:colon]); err != nil {
		return Target{}, err
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return Target{}, errors.New("the port is not a number from 1 to 65535")
	}
	return Target{Kind: TCP, Addr: ap.Addr(), Port: ap.Port()}, nil
}

// parseAddr accepts what can be a remote host: a loopback or group address would never, or falsely, answer. IPv6 may stand in
// brackets.
func parseAddr(s string) (netip.Addr, error) {
	inner, opened := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	a, err := netip.ParseAddr(inner)
	switch {
	case err != nil || opened != closed || opened && a.Is4():
		return netip.Addr{}, errors.New("not an IP address (names are not looked up)")
	case a.Is4In6(), a.Zone() != "", a.IsLinkLocalUnicast() && a.Is6():
		return netip.Addr{}, errors.New("not an address of the Internet")
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, errors.New("not the address of a remote host")
	}
	return a, nil
}

// String is the written form that ParseTarget reads.
func (t Target) String() string { return string(t.Kind) + "://" + t.host() }

// host names the target for people: an address, an address and port, or "gateway".
func (t Target) host() string {
	switch t.Kind {
	case TCP:
		return netip.AddrPortFrom(t.Addr, t.Port).String()
	case ARP:
		return arpGateway
	default:
		return t.Addr.String()
	}
}
