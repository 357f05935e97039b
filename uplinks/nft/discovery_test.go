package nft

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// everythingHidden hides all that can be hidden of IPv6.
func (w *world) everythingHidden() Wanted {
	wanted := w.wantedV6()
	wanted.Ports = []PortRange{{1, 65535}}
	for i := range wanted.Uplinks {
		wanted.Uplinks[i].Whole = wanted.Uplinks[i].Addresses
	}
	return wanted
}

// TestWholeAddressesOfIPv6AreHidden: but for what never leaves its link.
func TestWholeAddressesOfIPv6AreHidden(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.everythingHidden())
	far, near := w.links(w.isp1, "wan0")
	answers, err := w.isp1.StartCapture("eth0", func(p *lab.Packet) bool {
		return !p.Outgoing && (icmpOf(p.Data) == packet.ICMPv6EchoReply || len(p.Data) > 20 && p.Data[12] == 0x86 && p.Data[20] == unix.IPPROTO_TCP)
	})
	w.must(err)
	w.inject(w.isp1, icmpV6(far, near, isp1AddrV6, hostOnISP1V6, append([]byte{packet.ICMPv6Echo, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 8)...)))
	w.syn(w.isp1, hostOnISP1V6, otherPort)
	w.advertises(answers, w.isp1, solicitation(far, near, isp1AddrV6, hostOnISP1V6, hostOnISP1V6))
	report, err := answers.Stop()
	w.must(err)
	if len(report.Kept) > 0 {
		t.Errorf("the host answered %d packets that it should not have seen", len(report.Kept))
	}
	w.must(r.Apply(w.wantedV6()))
	w.reach(w.isp1, hostOnISP1V6, otherPort, w.listen(w.host, otherPort))
}

// TestPrefixesAreHidden: all that is sent into them, but to addresses of uplinks and what never leaves its link; what is given back
// passes.
func TestPrefixesAreHidden(t *testing.T) {
	w := newWorldV6(t)
	wanted := w.wantedV6()
	for _, address := range []string{hostOnLANV6, hostOnISP1V6} {
		wanted.Prefixes = append(wanted.Prefixes, netip.PrefixFrom(netip.MustParseAddr(address), 61).Masked())
	}
	r := w.apply(wanted)
	far, near := w.links(w.isp1, "wan0")
	answers, err := w.isp1.StartCapture("eth0", func(p *lab.Packet) bool {
		return !p.Outgoing && (icmpOf(p.Data) == packet.ICMPv6EchoReply || len(p.Data) > 20 && p.Data[12] == 0x86 && p.Data[20] == unix.IPPROTO_TCP)
	})
	w.must(err)
	echo := append([]byte{packet.ICMPv6Echo, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 8)...)
	w.inject(w.isp1, icmpV6(far, near, isp1AddrV6, hostOnLANV6, echo))
	w.syn(w.isp1, hostOnLANV6, otherPort)
	w.advertises(answers, w.isp1, solicitation(far, near, isp1AddrV6, hostOnLANV6, hostOnISP1V6))
	report, err := answers.Stop()
	w.must(err)
	if len(report.Kept) > 0 {
		t.Errorf("the host answered %d packets that it should not have seen", len(report.Kept))
	}
	server := w.listenUDP(w.host, otherPort)
	w.inject(w.isp1, datagramV6(far, near, hostOnLANV6, otherPort))
	w.inject(w.isp1, datagramV6(backMAC[:], near, hostOnLANV6, otherPort))
	w.send(w.isp1, hostOnISP1V6, otherPort, "the end")
	for n := 0; ; n++ {
		if got, _ := w.receive(server); got == "the end" {
			if n != 1 {
				t.Errorf("%d datagrams reached the host, want the one given back", n)
			}
			break
		}
	}
	w.must(r.Apply(w.wantedV6()))
	w.reach(w.isp1, hostOnLANV6, otherPort, w.listen(w.host, otherPort))
}

// icmpOf is the type of an ICMPv6 message in a frame, 0 for anything else.
func icmpOf(frame []byte) byte {
	if len(frame) < 55 || frame[12] != 0x86 || frame[20] != unix.IPPROTO_ICMPV6 {
		return 0
	}
	return frame[54]
}

// icmpV6 is a frame with a message whose checksum is still missing.
func icmpV6(from, to net.HardwareAddr, source, dst string, message []byte) []byte {
	src, addr := netip.MustParseAddr(source), netip.MustParseAddr(dst)
	sum := packet.PseudoHeader(packet.AddrOf(src), packet.AddrOf(addr), unix.IPPROTO_ICMPV6, len(message))
	binary.BigEndian.PutUint16(message[2:], ^packet.Fold(packet.Sum(sum, message)))
	f := append(append(slices.Clone(to), from...), 0x86, 0xdd, 0x60, 0, 0, 0)
	f = append(binary.BigEndian.AppendUint16(f, uint16(len(message))), unix.IPPROTO_ICMPV6, 255)
	return append(append(append(f, src.AsSlice()...), addr.AsSlice()...), message...)
}

// solicitation asks a neighbour at an address of its own, as whoever has its link-layer address does, for the target (RFC 4861 §7.3).
func solicitation(from, to net.HardwareAddr, source, dst, target string) []byte {
	m := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return icmpV6(from, to, source, dst, append(append(m, 1, 1), from...))
}

// advertises has a neighbour of the host ask, and waits for the answer.
func (w *world) advertises(answers *lab.Capture, ns *lab.Namespace, ask []byte) {
	w.t.Helper()
	_, err := answers.AwaitAfter(labtest.Context(w.t), func(p *lab.Packet) bool { return !p.Outgoing && icmpOf(p.Data) == 136 },
		func() error { w.inject(ns, ask); return nil })
	w.must(err)
}

// TestNeighbourDiscoveryIsNeverHidden: whatever is hidden and turns back, addresses are found, and routers heard.
func TestNeighbourDiscoveryIsNeverHidden(t *testing.T) {
	w := newWorldV6(t)
	w.must(w.host.Sysctl("net/ipv6/conf/wan0/accept_ra", "2"))
	wanted := w.everythingHidden()
	lan, err := w.host.Index("lan0")
	w.must(err)
	wanted.Turned = []Turned{{Name: "lan0", Index: lan, GiveBackMAC: backMAC}}
	wanted.Uplinks[0].Insides = []netip.Addr{netip.MustParseAddr(lanAddrV6)}
	wanted.AddressesV6 = []netip.Addr{netip.MustParseAddr("fd00:73::1")}
	w.apply(wanted)

	for _, end := range []struct {
		ns                     *lab.Namespace
		device, source, target string
	}{{w.isp1, "wan0", isp1AddrV6, hostOnISP1V6}, {w.lan, "lan0", lanAddrV6, hostOnLANV6}} {
		far, near := w.links(end.ns, end.device)
		answers, err := end.ns.StartCapture("eth0", nil)
		w.must(err)
		t.Cleanup(func() { _, _ = answers.Stop() })
		w.advertises(answers, end.ns, solicitation(far, near, end.source, hostOnISP1V6, end.target))
	}
	server := w.listenUDP(w.isp1, 9)
	w.send(w.host, isp1AddrV6, 9, "resolved")
	if got, _ := w.receive(server); got != "resolved" {
		t.Errorf("received %q", got)
	}
	w.advertised()
}

// advertised has the first provider advertise a prefix, and waits until the host has an address of it.
func (w *world) advertised() {
	w.t.Helper()
	changes, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	defer close(done)
	w.must(w.host.Do(func() error { return netlink.AddrSubscribe(changes, done) }))
	far, _ := w.links(w.isp1, "wan0")
	m := []byte{134, 0, 0, 0, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0}
	m = append(m, netip.MustParseAddr("2001:db8:9::").AsSlice()...)
	w.inject(w.isp1, icmpV6(far, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, w.linkLocal(w.isp1), "ff02::1", m))
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			w.t.Fatal("the advertised prefix did not come to the host")
		case c := <-changes:
			if strings.HasPrefix(c.LinkAddress.IP.String(), "2001:db8:9:") {
				return
			}
		}
	}
}

// linkLocal is the address of a namespace's device on its link.
func (w *world) linkLocal(ns *lab.Namespace) string {
	w.t.Helper()
	l, err := ns.Handle().LinkByName("eth0")
	w.must(err)
	list, err := ns.Handle().AddrList(l, unix.AF_INET6)
	w.must(err)
	for _, a := range list {
		if a.IP.IsLinkLocalUnicast() {
			return a.IP.String()
		}
	}
	w.t.Fatal("no link-local address")
	return ""
}
