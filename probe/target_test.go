package probe

import (
	"errors"
	"net/netip"
	"testing"
)

func TestTargetsAreValidated(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2620:fe::fe")
	for want, target := range map[string]Target{
		"icmp://192.0.2.1":            {Kind: ICMP, Addr: v4},
		"icmp://2620:fe::fe":          {Kind: ICMP, Addr: v6},
		"tcp://192.0.2.1:443":         {Kind: TCP, Addr: v4, Port: 443},
		"tcp://[2620:fe::fe]:443":     {Kind: TCP, Addr: v6, Port: 443},
		"arp://gateway":               {Kind: ARP},
		"nd://gateway":                {Kind: ND},
		"dns://192.0.2.1/example.org": {Kind: DNS, Addr: v4, Port: 53, Name: "example.org"},
		"dns://[2620:fe::fe]/example.org?answer=192.0.2.1": {Kind: DNS, Addr: v6, Port: 53, Name: "example.org", Answer: v4},
		"dns://192.0.2.1:5353/example.org":                 {Kind: DNS, Addr: v4, Port: 5353, Name: "example.org"},
		"http://example.org/generate_204":                  {Kind: HTTP, Name: "example.org", Port: 80, Path: "/generate_204", Expect: NoContent},
		"http://192.0.2.1:8080/page?expect=success":        {Kind: HTTP, Addr: v4, Port: 8080, Path: "/page", Expect: "success"},
	} {
		if err := target.validate(); err != nil || target.String() != want {
			t.Errorf("%v: %v, want %s", target, err, want)
		}
	}
}

func TestTargetsAreRefused(t *testing.T) {
	v4 := netip.MustParseAddr("192.0.2.1")
	for name, target := range map[string]Target{
		"no kind":          {Addr: v4},
		"unknown kind":     {Kind: "udp", Addr: v4, Port: 53},
		"no address":       {Kind: ICMP},
		"port of a ping":   {Kind: ICMP, Addr: v4, Port: 80},
		"no port":          {Kind: TCP, Addr: v4},
		"another gateway":  {Kind: ARP, Addr: v4},
		"no name":          {Kind: DNS, Addr: v4, Port: 53},
		"no path":          {Kind: HTTP, Addr: v4, Port: 80, Expect: NoContent},
		"nothing expected": {Kind: HTTP, Addr: v4, Port: 80, Path: "/"},
		"no host":          {Kind: HTTP, Port: 80, Path: "/", Expect: NoContent},
	} {
		if err := target.validate(); err == nil {
			t.Errorf("%s: %v is taken", name, target)
		}
	}
	for _, addr := range []string{
		"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "fe80::1", "2001:db8::1%eth0", "::ffff:1.1.1.1",
	} {
		plan := DefaultPlan()
		plan.Targets[0] = Target{Kind: ICMP, Addr: netip.MustParseAddr(addr)}
		if err := plan.Validate(); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: got %v, want ErrPlan", addr, err)
		}
	}
}
