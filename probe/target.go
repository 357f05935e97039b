package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Kind is how a target is probed; its text is the scheme of a written target.
type Kind string

// The kinds of probe.
const (
	ICMP Kind = "icmp" // echo request (RFC 792)
	TCP  Kind = "tcp"  // connection set-up (RFC 9293)
	ARP  Kind = "arp"  // resolution of the gateway's address (RFC 826)
	ND   Kind = "nd"   // the same of IPv6 (RFC 4861)
	DNS  Kind = "dns"  // the address of a name (RFC 1035)
	HTTP Kind = "http" // a page (RFC 9110)
)

// gateway reports whether it asks the gateway alone, which may answer while nothing behind it does.
func (k Kind) gateway() bool { return k == ARP || k == ND }

// costs order the kinds by what a probe costs.
var costs = map[Kind]int{DNS: 1, TCP: 2, HTTP: 3}

func (k Kind) cost() int { return costs[k] }

// NoContent is what a page answers that is there to find portals.
const NoContent = "204"

// ErrTarget is wrapped by every error of ParseTarget.
var ErrTarget = errors.New("write icmp://ADDRESS, tcp://ADDRESS:PORT, dns://SERVER/NAME, http://HOST/PATH, arp://gateway or nd://gateway")

const (
	gatewayHost = "gateway"
	portDNS     = 53
	portHTTP    = 80
	maxName     = 253
	maxPath     = 200
)

// Target is something on the far side of an uplink that answers while the uplink works. It is comparable.
type Target struct {
	Kind Kind
	Addr netip.Addr // invalid for ARP and ND, which ask for the gateway of the uplink, and for HTTP of a host with a name
	Port uint16     // of TCP, DNS and HTTP

	Name   string     // that DNS is asked for; of the host of HTTP
	Answer netip.Addr // that a right answer of DNS has; invalid: any that is of the Internet
	Path   string     // of HTTP
	Expect string     // the status, a number, or what the page contains
}

// serves reports whether the target can be asked over a family.
func (t *Target) serves(ipv6 bool) bool {
	switch {
	case t.Kind == ND:
		return ipv6
	case t.Kind == HTTP && !t.Addr.IsValid():
		return true
	}
	return t.Addr.Is6() == ipv6
}

// ParseTarget reads a target as people write it: icmp://ADDRESS, tcp://ADDRESS:PORT, dns://SERVER[:PORT]/NAME[?answer=ADDRESS],
// http://HOST[:PORT]/PATH[?expect=STATUS or TEXT], arp://gateway, nd://gateway, or a bare address, which is pinged.
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
	switch kind := Kind(scheme); kind {
	case ICMP:
		addr, err := parseAddr(rest)
		return Target{Kind: ICMP, Addr: addr}, err
	case TCP:
		addr, port, err := parseServer(rest, 0)
		return Target{Kind: TCP, Addr: addr, Port: port}, err
	case DNS:
		return parseDNS(rest)
	case HTTP:
		return parseHTTP(rest)
	case ARP, ND:
		if rest != gatewayHost {
			return Target{}, errors.New("ask for the gateway")
		}
		return Target{Kind: kind}, nil
	}
	return Target{}, fmt.Errorf("unknown kind %q", scheme)
}

// parseServer reads ADDRESS:PORT, or ADDRESS alone where usual is a port.
func parseServer(s string, usual uint16) (netip.Addr, uint16, error) {
	host, port, err := cutPort(s, usual)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return netip.Addr{}, 0, errors.New("an IPv6 address stands in brackets")
	}
	addr, err := parseAddr(host)
	return addr, port, err
}

func cutPort(s string, usual uint16) (host string, port uint16, err error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		if usual == 0 {
			return "", 0, errors.New("a port is missing")
		}
		return s, usual, nil
	}
	n, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("the port is not a number from 1 to 65535")
	}
	return s[:colon], uint16(n), nil
}

func parseDNS(s string) (Target, error) {
	server, name, _ := strings.Cut(s, "/")
	addr, port, err := parseServer(server, portDNS)
	if err != nil {
		return Target{}, err
	}
	t := Target{Kind: DNS, Addr: addr, Port: port}
	name, answer, wanted := strings.Cut(name, "?answer=")
	if t.Name = name; !isName(name) {
		return Target{}, errors.New("no name to ask for")
	}
	if wanted {
		t.Answer, err = parseAddr(answer)
	}
	return t, err
}

func parseHTTP(s string) (Target, error) {
	server, path, _ := strings.Cut(s, "/")
	host, port, err := cutPort(server, portHTTP)
	if err != nil {
		return Target{}, err
	}
	t := Target{Kind: HTTP, Port: port, Expect: NoContent}
	if isName(host) && strings.ContainsFunc(host, isLetter) {
		t.Name = host
	} else if t.Addr, _, err = parseServer(host, portHTTP); err != nil {
		return Target{}, err
	}
	path, expect, wanted := strings.Cut("/"+path, "?expect=")
	if wanted {
		t.Expect = expect
	}
	t.Path = path
	if len(path) > maxPath || len(t.Expect) > maxPath || t.Expect == "" || !isPrintable(path+t.Expect) || strings.Contains(path, "#") {
		return Target{}, errors.New("not a path, or nothing to expect")
	}
	return t, nil
}

// isName accepts names of hosts (RFC 1123 §2.1), and _ in them.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return !isLetter(r) && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
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
func (t Target) String() string {
	switch s := string(t.Kind) + "://" + t.host(); {
	case t.Kind == DNS && t.Answer.IsValid():
		return s + "/" + t.Name + "?answer=" + t.Answer.String()
	case t.Kind == DNS:
		return s + "/" + t.Name
	case t.Kind == HTTP && t.Expect == NoContent:
		return s + t.Path
	case t.Kind == HTTP:
		return s + t.Path + "?expect=" + t.Expect
	default:
		return s
	}
}

// host names the target for people: an address, an address or name and port, or "gateway".
func (t Target) host() string {
	switch {
	case t.Kind.gateway():
		return gatewayHost
	case t.Kind == HTTP && !t.Addr.IsValid() && t.Port == portHTTP:
		return t.Name
	case t.Kind == HTTP && !t.Addr.IsValid():
		return t.Name + ":" + strconv.Itoa(int(t.Port))
	case t.Kind == TCP, t.Kind == DNS && t.Port != portDNS, t.Kind == HTTP:
		return netip.AddrPortFrom(t.Addr, t.Port).String()
	case t.Kind == DNS && t.Addr.Is6():
		return "[" + t.Addr.String() + "]"
	}
	return t.Addr.String()
}
