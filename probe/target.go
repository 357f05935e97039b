package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
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

const (
	gatewayHost = "gateway"
	portDNS     = 53
	portHTTP    = 80
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

// validate says what keeps a target from being asked.
func (t Target) validate() error {
	switch t.Kind {
	case ARP, ND:
		if t != (Target{Kind: t.Kind}) {
			return fmt.Errorf("%s asks the gateway of the uplink, and nothing else", t.Kind)
		}
		return nil
	case ICMP, TCP, DNS, HTTP:
	default:
		return fmt.Errorf("%q is no kind of probe", t.Kind)
	}
	switch named := t.Kind == HTTP && t.Name != ""; {
	case !named && !isRemote(t.Addr):
		return fmt.Errorf("%s needs the address of a remote host, not %v", t.Kind, t.Addr)
	case (t.Port == 0) != (t.Kind == ICMP):
		return fmt.Errorf("%s cannot ask port %d", t.Kind, t.Port)
	case t.Kind == DNS && t.Name == "":
		return errors.New("dns needs a name to ask for")
	case t.Kind == HTTP && (t.Path == "" || t.Expect == ""):
		return errors.New("http needs a path, and what to expect there")
	}
	return nil
}

// isRemote reports whether a can be a remote host's: a loopback or group address would never, or falsely, answer.
func isRemote(a netip.Addr) bool {
	return (a.IsGlobalUnicast() || a.Is4() && a.IsLinkLocalUnicast()) && !a.Is4In6() && a.Zone() == ""
}

// String is the target as people write it.
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
