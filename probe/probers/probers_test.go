package probers

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"tapgw/probe"
	"tapgw/probe/arp"
	"tapgw/probe/bound"
)

const (
	farPing   = "icmp://203.0.113.1"
	farOpen   = "tcp://203.0.113.1:443"
	farClosed = "tcp://203.0.113.1:444"
)

// lab is a host with two uplinks u1 and u2, a router behind each, and one far host that both lead to.
type lab struct{ host, isp1, isp2, far *node }

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{host: newNode(t), isp1: newNode(t), isp2: newNode(t), far: newNode(t)}
	wire(l.host, "u1", "10.0.1.2/24", l.isp1, "down", "10.0.1.1/24")
	wire(l.host, "u2", "10.0.2.2/24", l.isp2, "down", "10.0.2.1/24")
	wire(l.far, "f1", "172.16.1.1/24", l.isp1, "core", "172.16.1.2/24")
	wire(l.far, "f2", "172.16.2.1/24", l.isp2, "core", "172.16.2.2/24")
	l.far.address("lo", "203.0.113.1/32")
	l.far.route("10.0.1.0/24", "172.16.1.2", "f1", 0)
	l.far.route("10.0.2.0/24", "172.16.2.2", "f2", 0)
	l.isp1.route("203.0.113.0/24", "172.16.1.1", "core", 0)
	l.isp2.route("203.0.113.0/24", "172.16.2.1", "core", 0)
	l.far.listen("203.0.113.1:443")
	return l
}

func (l *lab) defaults() {
	l.host.route("0.0.0.0/0", "10.0.1.1", "u1", 100)
	l.host.route("0.0.0.0/0", "10.0.2.1", "u2", 200)
}

func (l *lab) uplinks() (*uplink, *uplink) {
	return l.host.uplink("u1", "10.0.1.2", "10.0.1.1"), l.host.uplink("u2", "10.0.2.2", "10.0.2.1")
}

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
	l.defaults()
	u1, u2 := l.uplinks()
	for _, u := range []*uplink{u1, u2} {
		for _, target := range []string{farPing, farPing, farOpen, farClosed, "arp://gateway", "arp://gateway"} {
			rtt, err := u.ask(target)
			if err != nil || rtt <= 0 || rtt > time.Second {
				t.Errorf("%s by %s: %v, %v", target, u.link.Name, rtt, err)
			}
		}
	}
}

// Faults 2 and 15, MW-12: both uplinks ask the same target; only the one that is cut goes down, within three seconds.
func TestBlackholeOfOneUplink(t *testing.T) {
	l := newLab(t)
	l.defaults()
	u1, u2 := l.uplinks()
	p := plan(t, farPing, farOpen)
	v1, v2 := u1.run(p), u2.run(p)
	await(t, v1, true)
	await(t, v2, true)

	l.isp1.sysctl("ipv4/ip_forward", "0")
	v, took := await(t, v1, false)
	t.Logf("seen after %v: %s", took, v.Reason)
	if took > 3*time.Second {
		t.Errorf("a blackhole was seen only after %v", took)
	}
	if v.Reason != "no reply from 203.0.113.1, 203.0.113.1:443 (2 rounds)" {
		t.Errorf("reason %q", v.Reason)
	}
	if v := <-v2; !v.Usable {
		t.Errorf("the other uplink: %+v", v)
	}

	l.isp1.sysctl("ipv4/ip_forward", "1")
	if _, took := await(t, v1, true); took > 10*time.Second {
		t.Errorf("the return was seen only after %v", took)
	}
}

// Fault 15: without a route by its own uplink, no probe gets out by the other one.
func TestNoLeakByTheOtherUplink(t *testing.T) {
	l := newLab(t)
	l.host.route("0.0.0.0/0", "10.0.2.1", "u2", 0)
	l.far.route("10.0.1.2/32", "172.16.2.2", "f2", 0) // a leaked probe would even be answered
	l.isp2.route("10.0.1.2/32", "10.0.2.2", "down", 0)
	u1, u2 := l.uplinks()
	sent := l.host.link("u2").Attrs().Statistics.TxPackets
	for _, target := range []string{farPing, farOpen} {
		if rtt, err := u1.ask(target); err == nil {
			t.Errorf("%s was answered in %v", target, rtt)
		}
	}
	if n := l.host.link("u2").Attrs().Statistics.TxPackets - sent; n > 0 {
		t.Errorf("%d packets left by the other uplink", n)
	}
	if _, err := u2.ask(farPing); err != nil {
		t.Errorf("the other uplink itself: %v", err)
	}
}

// Fault 10: a provider that drops ICMP has not lost the path.
func TestDroppedICMP(t *testing.T) {
	l := newLab(t)
	l.defaults()
	l.far.sysctl("ipv4/icmp_echo_ignore_all", "1")
	u1, _ := l.uplinks()
	if _, err := u1.ask(farPing); err == nil {
		t.Fatal("the far host still answers pings")
	}
	verdicts := u1.run(plan(t, farPing, farOpen))
	for range 4 {
		if v := <-verdicts; !v.Usable {
			t.Errorf("got %+v", v)
		}
	}
}

// Fault 24: the gateway answers ARP while it passes nothing on; with ARP beside a far target a quorum of both tells.
func TestGatewayAloneIsNotHealth(t *testing.T) {
	l := newLab(t)
	l.defaults()
	l.isp1.sysctl("ipv4/ip_forward", "0")
	u1, _ := l.uplinks()
	if _, err := u1.ask("arp://gateway"); err != nil {
		t.Errorf("the gateway: %v", err)
	}
	p := plan(t, "arp://gateway", farPing)
	p.Quorum = 2
	v, _ := await(t, u1.run(p), false)
	if v.Reason != "no reply from 203.0.113.1 (2 rounds)" {
		t.Errorf("reason %q", v.Reason)
	}
}

// Fault 16: both uplinks have the same subnet, the same gateway and even the same own address.
func TestSameSubnetTwice(t *testing.T) {
	host, isp1, isp2 := newNode(t), newNode(t), newNode(t)
	for dev, isp := range map[string]*node{"u1": isp1, "u2": isp2} {
		wire(host, dev, "192.168.1.2/24", isp, "down", "192.168.1.1/24")
		isp.address("lo", "203.0.113.1/32")
		isp.listen("203.0.113.1:443")
	}
	host.route("0.0.0.0/0", "192.168.1.1", "u1", 100)
	host.route("0.0.0.0/0", "192.168.1.1", "u2", 200)
	u1, u2 := host.uplink("u1", "192.168.1.2", "192.168.1.1"), host.uplink("u2", "192.168.1.2", "192.168.1.1")
	targets := []string{farPing, farOpen, "arp://gateway"}
	for _, target := range targets {
		for _, u := range []*uplink{u1, u2} {
			if _, err := u.ask(target); err != nil {
				t.Errorf("%s by %s: %v", target, u.link.Name, err)
			}
		}
	}
	must(t, isp1.nl.LinkSetARPOff(isp1.link("down")))
	must(t, isp1.nl.LinkSetDown(isp1.link("down"))) // carrier loss on u1
	for _, target := range targets {
		if rtt, err := u1.ask(target); err == nil {
			t.Errorf("%s by the dead uplink was answered in %v", target, rtt)
		}
		if _, err := u2.ask(target); err != nil {
			t.Errorf("%s by u2: %v", target, err)
		}
	}
}

// An ICMP error fails the probe at once and says who sent it.
func TestUnreachable(t *testing.T) {
	l := newLab(t)
	l.defaults()
	u1, _ := l.uplinks()
	began := time.Now()
	_, err := u1.ask("icmp://198.51.100.1") // the provider has no route there
	if err == nil || err.Error() != "network unreachable, says 10.0.1.1" {
		t.Errorf("icmp: %v", err)
	}
	if _, err := u1.ask("tcp://198.51.100.1:80"); err == nil || !strings.Contains(err.Error(), "network is unreachable") {
		t.Errorf("tcp: %v", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

// Fault 55: the device goes and comes back with another index; the same Set serves the new Link.
func TestDeviceReplaced(t *testing.T) {
	l := newLab(t)
	l.defaults()
	u1, _ := l.uplinks()
	targets := []string{farPing, farOpen, "arp://gateway"}
	for _, target := range targets {
		if _, err := u1.ask(target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	must(t, l.host.nl.LinkDel(l.host.link("u1")))
	for _, target := range targets {
		began := time.Now()
		if _, err := u1.ask(target); err == nil || time.Since(began) > 900*time.Millisecond {
			t.Errorf("%s without a device: %v after %v", target, err, time.Since(began))
		}
	}
	wire(l.host, "u1", "10.0.1.2/24", l.isp1, "again", "10.0.1.1/24")
	l.host.route("0.0.0.0/0", "10.0.1.1", "u1", 100)
	u1.link.Index = l.host.link("u1").Attrs().Index
	for _, target := range targets {
		if _, err := u1.ask(target); err != nil {
			t.Errorf("%s after the return: %v", target, err)
		}
	}
}

// Fault 19: an address that is gone fails at once instead of being replaced by another one of the host.
func TestAddressGone(t *testing.T) {
	l := newLab(t)
	l.defaults()
	u1, _ := l.uplinks()
	u1.link.Source = parse(t, "icmp://10.0.1.77").Addr
	for _, target := range []string{farPing, farOpen} {
		if _, err := u1.ask(target); err == nil || !strings.Contains(err.Error(), "cannot assign requested address") {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestLinksThatCannotBeProbed(t *testing.T) {
	var s Set
	usable := probe.Link{Name: "u1", Index: 1, Source: parse(t, "10.0.1.2").Addr, Gateway: parse(t, "10.0.1.1").Addr}
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
	if _, err := s.Probe(t.Context(), usable, probe.Target{Kind: "dns"}); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

// Probing for hours must not pile up sockets: one raw and one packet socket, no connection in TIME_WAIT, none after Close.
func TestSocketsAreReused(t *testing.T) {
	l := newLab(t)
	l.defaults()
	u1, _ := l.uplinks()
	for range 10 {
		for _, target := range []string{farPing, farOpen, farClosed, "arp://gateway"} {
			if _, err := u1.ask(target); err != nil {
				t.Fatalf("%s: %v", target, err)
			}
		}
	}
	for table, want := range map[string]int{"raw": 1, "packet": 1, "tcp": 0} {
		if n := l.host.sockets(table); n != want {
			t.Errorf("%d sockets in %s, want %d", n, table, want)
		}
	}
	must(t, u1.Close())
	for _, table := range []string{"raw", "packet"} {
		if n := l.host.sockets(table); n != 0 {
			t.Errorf("%d sockets in %s after Close", n, table)
		}
	}
}

// Probes under way end when their Set is closed or their context is cancelled.
func TestProbesEndPromptly(t *testing.T) {
	l := newLab(t)
	l.defaults()
	l.isp1.sysctl("ipv4/ip_forward", "0")
	u1, _ := l.uplinks()
	for _, target := range []string{farPing, farOpen} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		if _, err := u1.Probe(ctx, u1.link, parse(t, target)); err == nil || time.Since(began) > 700*time.Millisecond {
			t.Errorf("%s: %v after %v", target, err, time.Since(began))
		}
		cancel()
	}
	ended := make(chan error)
	go func() { _, err := u1.Probe(t.Context(), u1.link, parse(t, farPing)); ended <- err }()
	for {
		must(t, u1.Close())
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
