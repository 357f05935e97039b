package probers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/probe"
	"tapgw/probe/arp"
	"tapgw/probe/bound"
)

const (
	farPing   = "icmp://203.0.113.1"
	farOpen   = "tcp://203.0.113.1:443"
	farClosed = "tcp://203.0.113.1:444"
)

// plan has the default times and the given targets.
func plan(t *testing.T, targets ...string) probe.Plan {
	t.Helper()
	p := probe.DefaultPlan()
	p.Targets = nil
	for _, s := range targets {
		p.Targets = append(p.Targets, parse(t, s))
	}
	return p
}

func TestEveryKindAnswersOnEveryUplink(t *testing.T) {
	l := newLab(t)
	u1, u2 := newUplink(t, l, 1), newUplink(t, l, 2)
	for _, u := range []*uplink{u1, u2} {
		for _, target := range []string{farPing, farPing, farOpen, farClosed, "arp://gateway", "arp://gateway"} {
			rtt, err := u.ask(target)
			if err != nil || rtt <= 0 || rtt > patience {
				t.Errorf("%s by %s: %v, %v", target, u.link.Name, rtt, err)
			}
		}
	}
}

// TestFault15_Blackhole is faults 2 and 15, MW-12: both uplinks ask the same target; only the one that is cut goes down.
func TestFault15_Blackhole(t *testing.T) {
	l := newLab(t)
	u1, u2 := newUplink(t, l, 1), newUplink(t, l, 2)
	p := plan(t, farPing, farOpen)
	v1, v2 := u1.run(p), u2.run(p)
	await(t, v1, true)
	await(t, v2, true)

	labtest.Must(t, l.Uplinks[0].SetFaults(lab.Blackhole))
	v, took := await(t, v1, false)
	t.Logf("seen after %v: %s", took, v.Reason)
	if took > 3*time.Second { // 1.3 s, and what a busy machine adds
		t.Errorf("a blackhole was seen only after %v", took)
	}
	if v.Reason != "no reply from 203.0.113.1, 203.0.113.1:443 (4 rounds)" {
		t.Errorf("reason %q", v.Reason)
	}
	if v := <-v2; !v.Usable {
		t.Errorf("the other uplink: %+v", v)
	}

	labtest.Must(t, l.Uplinks[0].SetFaults())
	if _, took := await(t, v1, true); took > patience {
		t.Errorf("the return was seen only after %v", took)
	}
}

// TestFault15_NoLeak: without a route by its own uplink, no probe gets out by the other one.
func TestFault15_NoLeak(t *testing.T) {
	l := newLab(t)
	labtest.Must(t, l.Uplinks[0].RemoveDefault())
	labtest.Must(t, l.Uplinks[1].ISP.Sysctl("net/ipv4/conf/"+lab.DeviceCustomer+"/rp_filter", "0")) // it would even be answered
	u1, u2 := newUplink(t, l, 1), newUplink(t, l, 2)
	capture := labtest.Capture(t, l.Gateway, u2.link.Name)
	for _, target := range []string{farPing, farOpen} {
		u1.askInVain(target)
	}
	if seen := capture.Report(); seen.IPv4 > 0 {
		t.Errorf("packets of the other uplink: %+v", seen)
	}
	if _, err := u2.ask(farPing); err != nil {
		t.Errorf("the other uplink itself: %v", err)
	}
}

// TestFault10_DroppedICMP: a provider that drops ICMP has not lost the path.
func TestFault10_DroppedICMP(t *testing.T) {
	l := newLab(t)
	labtest.Must(t, l.Internet.Sysctl("net/ipv4/icmp_echo_ignore_all", "1"))
	u1 := newUplink(t, l, 1)
	u1.askInVain(farPing)
	verdicts := u1.run(plan(t, farPing, farOpen))
	for range 4 {
		if v := <-verdicts; !v.Usable {
			t.Errorf("got %+v", v)
		}
	}
}

// TestFault24_GatewayAlone: the gateway answers ARP while it passes nothing on; that counts for nothing without a far target.
func TestFault24_GatewayAlone(t *testing.T) {
	l := newLab(t)
	labtest.Must(t, l.Uplinks[0].SetFaults(lab.Blackhole))
	u1 := newUplink(t, l, 1)
	if _, err := u1.ask("arp://gateway"); err != nil {
		t.Errorf("the gateway: %v", err)
	}
	p := plan(t, "arp://gateway", farPing)
	v, _ := await(t, u1.run(p), false)
	if v.Reason != "no reply from 203.0.113.1 (4 rounds)" {
		t.Errorf("reason %q", v.Reason)
	}
}

// Fault 16: both uplinks have the same subnet, the same gateway and even the same own address.
func TestSameSubnetTwice(t *testing.T) {
	l := labtest.Build(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {Twin: 1}}})
	labtest.Must(t, l.Uplinks[1].Renumber(l.Uplinks[0].Link.Near.Prefix, l.Uplinks[0].Link.Far.Prefix))
	for _, u := range l.Uplinks { // each provider has the target inside, because there is no way back to two equal addresses
		lo, err := u.ISP.Handle().LinkByName("lo")
		labtest.Must(t, err)
		labtest.Must(t, u.ISP.Handle().AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(lab.ServerAddrs[0].AsSlice())}))
		listen(t, u.ISP)
	}
	u1, u2 := newUplink(t, l, 1), newUplink(t, l, 2)
	targets := []string{farPing, farOpen, "arp://gateway"}
	for _, target := range targets {
		for _, u := range []*uplink{u1, u2} {
			if _, err := u.ask(target); err != nil {
				t.Errorf("%s by %s: %v", target, u.link.Name, err)
			}
		}
	}
	labtest.Must(t, l.Uplinks[0].Link.Cut())
	for _, target := range targets {
		u1.askInVain(target)
		if _, err := u2.ask(target); err != nil {
			t.Errorf("%s by u2: %v", target, err)
		}
	}
}

// An ICMP error fails the probe at once and says who sent it.
func TestUnreachable(t *testing.T) {
	l := newLab(t)
	u1 := newUplink(t, l, 1)
	began := time.Now()
	_, err := u1.ask("icmp://192.0.2.1") // nobody has a route there
	if err == nil || err.Error() != "network unreachable, says 198.51.100.6" {
		t.Errorf("icmp: %v", err)
	}
	if _, err := u1.ask("tcp://192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "network is unreachable") {
		t.Errorf("tcp: %v", err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("took %v", took)
	}
}

// Fault 55: the device goes and comes back with another index; the same Set serves the new Link.
func TestDeviceReplaced(t *testing.T) {
	l := newLab(t)
	u1 := newUplink(t, l, 1)
	targets := []string{farPing, farOpen, "arp://gateway"}
	for _, target := range targets {
		if _, err := u1.ask(target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	labtest.Must(t, l.Uplinks[0].Unplug())
	for _, target := range targets {
		began := time.Now()
		if _, err := u1.ask(target); err == nil || time.Since(began) > patience/2 {
			t.Errorf("%s without a device: %v after %v", target, err, time.Since(began))
		}
	}
	labtest.Must(t, l.Uplinks[0].Replug())
	u1.find()
	for _, target := range targets {
		if _, err := u1.ask(target); err != nil {
			t.Errorf("%s after the return: %v", target, err)
		}
	}
}

// Fault 19: an address that is gone fails at once instead of being replaced by another one of the host.
func TestAddressGone(t *testing.T) {
	l := newLab(t)
	u1 := newUplink(t, l, 1)
	u1.link.Source = netip.MustParseAddr("100.64.1.77")
	for _, target := range []string{farPing, farOpen} {
		if _, err := u1.ask(target); err == nil || !strings.Contains(err.Error(), "cannot assign requested address") {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestLinksThatCannotBeProbed(t *testing.T) {
	var s Set
	usable := probe.Link{Name: "wan1", Index: 1, Source: netip.MustParseAddr("100.64.1.2"), Gateway: netip.MustParseAddr("100.64.1.1")}
	for _, c := range []struct {
		name, target string
		spoil        func(*probe.Link)
		want         error
	}{
		{"header-less", "arp://gateway", func(l *probe.Link) { l.HeaderLess = true }, arp.ErrHeaderLess},
		{"no gateway", "arp://gateway", func(l *probe.Link) { l.Gateway = probe.Link{}.Gateway }, arp.ErrNoGateway},
		{"no interface", "arp://gateway", func(l *probe.Link) { l.Index = 0 }, bound.ErrLink},
		{"no interface", farPing, func(l *probe.Link) { l.Index = 0 }, bound.ErrLink},
		{"no address", farOpen, func(l *probe.Link) { l.Source = probe.Link{}.Source }, bound.ErrLink},
	} {
		link := usable
		c.spoil(&link)
		if _, err := s.Probe(t.Context(), link, parse(t, c.target)); !errors.Is(err, c.want) {
			t.Errorf("%s, %s: %v", c.name, c.target, err)
		}
	}
	if _, err := s.Probe(t.Context(), usable, probe.Target{Kind: "smoke"}); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

// Probing for hours must not pile up sockets: one raw and one packet socket, no connection in TIME_WAIT, none after Close.
func TestSocketsAreReused(t *testing.T) {
	l := newLab(t)
	u1 := newUplink(t, l, 1)
	for range 10 {
		for _, target := range []string{farPing, farOpen, farClosed, "arp://gateway"} {
			if _, err := u1.ask(target); err != nil {
				t.Fatalf("%s: %v", target, err)
			}
		}
	}
	for table, want := range map[string]int{"raw": 1, "packet": 1, "tcp": 0} {
		if n := u1.sockets(table); n != want {
			t.Errorf("%d sockets in %s, want %d", n, table, want)
		}
	}
	labtest.Must(t, u1.Close())
	for _, table := range []string{"raw", "packet"} {
		if n := u1.sockets(table); n != 0 {
			t.Errorf("%d sockets in %s after Close", n, table)
		}
	}
}

// Probes under way end when their Set is closed or their context is cancelled.
func TestProbesEndPromptly(t *testing.T) {
	l := newLab(t)
	labtest.Must(t, l.Uplinks[0].SetFaults(lab.Blackhole))
	u1 := newUplink(t, l, 1)
	for _, target := range []string{farPing, farOpen} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		if _, err := u1.Probe(ctx, u1.link, parse(t, target)); err == nil || time.Since(began) > patience/2 {
			t.Errorf("%s: %v after %v", target, err, time.Since(began))
		}
		cancel()
	}
	ended := make(chan error)
	go func() { _, err := u1.Probe(t.Context(), u1.link, parse(t, farPing)); ended <- err }()
	for {
		labtest.Must(t, u1.Close())
		select {
		case err := <-ended:
			if !errors.Is(err, bound.ErrClosed) && !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond): // the probe had not begun to wait; close again
		}
	}
}

// TestIPv6: targets of IPv6 are asked from the uplink's own address of that family, by that uplink alone.
func TestIPv6(t *testing.T) {
	l := labtest.Build(t, lab.Options{IPv6: true})
	listen(t, l.Internet)
	u1, u2 := newUplink(t, l, 1), newUplink(t, l, 2)
	for i, u := range []*uplink{u1, u2} {
		u.link.Source = l.Uplinks[i].AddrV6()
		for _, target := range []string{"icmp://[2606:4700:4700::1111]", "tcp://[2620:fe::fe]:443", "tcp://[2620:fe::fe]:99"} {
			if rtt, err := u.ask(target); err != nil || rtt <= 0 || rtt > patience {
				t.Errorf("%s by %s: %v, %v", target, u.link.Name, rtt, err)
			}
		}
		if _, err := u.ask("icmp://[2001:db8:ffff::1]"); err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("an address that nobody has: %v", err)
		}
	}
	labtest.Must(t, l.Uplinks[0].Link.Cut())
	u1.askInVain("icmp://[2606:4700:4700::1111]")
	if _, err := u2.ask("icmp://[2606:4700:4700::1111]"); err != nil {
		t.Errorf("by the other uplink: %v", err)
	}
}

// known starts what the lab knows of names and pages, and lies where it is told to.
func known(t *testing.T, n *lab.Namespace, z lab.Zone, page http.Handler, resolvers ...netip.Addr) {
	t.Helper()
	for _, at := range resolvers {
		names, err := lab.StartNames(n, at, z)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, names.Close()) })
	}
	servers, err := lab.StartHTTP(n, lab.PortHTTP, page)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
}

// TestNamesAndPages: names are asked for and pages fetched over both families by each uplink, and the gateway's address resolved.
func TestNamesAndPages(t *testing.T) {
	l := labtest.Build(t, lab.Options{IPv6: true})
	known(t, l.Internet, lab.Known, lab.NewHandler(), lab.ProbeTargets[0], lab.ProbeTargetsV6[0])
	for i, at := range l.Uplinks {
		u := newUplink(t, l, i+1)
		targets := map[bool][]string{
			false: {"dns://1.1.1.1/one.one.one.one?answer=1.1.1.1", "dns://1.1.1.1/one.one.one.one", "http://203.0.113.1/generate_204"},
			true:  {"dns://[2606:4700:4700::1111]/one.one.one.one?answer=2606:4700:4700::1111", "http://[2001:db8:f::1]/generate_204", "nd://gateway"},
		}
		for _, ipv6 := range []bool{false, true} {
			list := targets[ipv6]
			if ipv6 {
				u.link.Source, u.link.Gateway = at.AddrV6(), at.NextHopV6()
			}
			for _, target := range append(list, "http://cp.cloudflare.com/generate_204") {
				if rtt, err := u.ask(target); err != nil || rtt <= 0 || rtt > patience {
					t.Errorf("%s by %s: %v, %v", target, u.link.Name, rtt, err)
				}
			}
		}
		labtest.Must(t, at.Link.Cut())
		u.askInVain("nd://gateway")
		u.askInVain("http://cp.cloudflare.com/generate_204")
		labtest.Must(t, at.Link.Mend())
	}
}

// TestFault14_LyingNames and fault 13: what a portal answers is wrong, and says where it is.
func TestFault14_LyingNames(t *testing.T) {
	l := newLab(t)
	portal := http.RedirectHandler("http://10.1.1.1/login?from=you", http.StatusFound)
	lies := lab.Zone{"one.one.one.one": {"10.1.1.1"}, "example.org": {"192.168.3.4"}, "cp.cloudflare.com": {"203.0.113.2"}}
	known(t, l.Internet, lies, portal, lab.ProbeTargets[0])
	u := newUplink(t, l, 1)
	for target, want := range map[string]probe.WrongError{
		"dns://1.1.1.1/one.one.one.one?answer=1.1.1.1": {What: "says 10.1.1.1 for one.one.one.one, not 1.1.1.1"},
		"dns://1.1.1.1/example.org":                    {What: "says 192.168.3.4 for example.org, which is not on the Internet"},
		"dns://1.1.1.1/nobody.example":                 {What: "says that there is no nobody.example"},
		"http://cp.cloudflare.com/generate_204": {
			What: "redirected to http://10.1.1.1/login?from=you", Portal: "http://10.1.1.1/login?from=you"},
	} {
		_, err := u.ask(target)
		if wrong := (*probe.WrongError)(nil); !errors.As(err, &wrong) || *wrong != want {
			t.Errorf("%s: %v, want %v", target, err, want)
		}
	}
}
