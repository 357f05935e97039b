package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// smallMTU is that of an uplink that takes less than the LAN.
const smallMTU = 1400

// TestRFC4787_REQ13_TooBigWithDF: the sender is told the uplink's MTU, about the packet as it knows it.
func TestRFC4787_REQ13_TooBigWithDF(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: smallMTU}}}, "")
	inside, remote := netip.AddrPortFrom(rawHosts[0], 4000), netip.AddrPortFrom(rawRemote, 5300)
	r.udp(inside, remote)
	for _, known := range []bool{true, false} { // with a session, and as the first packet of one
		b := r.datagram(inside, remote, strings.Repeat("x", 1472))
		setDF(b)
		p, err := r.eth.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.ICMP != nil && p.Dst.Addr() == inside.Addr() },
			func() error { sendRaw(t, r.lan, remote.Addr(), b); return nil })
		labtest.Must(t, err)
		quoted := p.ICMP.Payload
		if p.ICMP.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || p.ICMP.Seq != smallMTU || string(quoted[12:28]) != string(b[12:28]) {
			t.Errorf("session %t: told by %s: %v, MTU %d", known, p, p.ICMP.TypeCode, p.ICMP.Seq)
		}
		inside = netip.AddrPortFrom(inside.Addr(), 4001)
	}
	for name, ns := range map[string]*lab.Namespace{"host": r.Gateway, "lan": r.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		t.Log(name)
		awaitPathMTU(t, c, smallMTU)
		labtest.Must(t, c.Close())
	}
}

// setDF forbids cutting a packet.
func setDF(b []byte) {
	b[6] |= 0x40
	whole := append(make([]byte, 14), b...)
	fixHeader(whole)
	copy(b, whole[14:])
}

// TestRFC4787_REQ13a_TooBigWithoutDF: datagrams, and fragments that are too large for the uplink, are cut and leave in order, also
// those of the host, whose transport checksum nobody had computed.
func TestRFC4787_REQ13a_TooBigWithoutDF(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: smallMTU}}}, "")
	expectNone(t, r.Gateway, r.Uplinks[0].Device, func(p *lab.Packet) bool { return p.Outgoing && p.IP != nil && p.IP.Length > smallMTU })
	inside, remote := netip.AddrPortFrom(rawHosts[0], 4000), netip.AddrPortFrom(rawRemote, 5300)
	r.udp(inside, remote)
	payload := strings.Repeat("abcdefghijklmnopqrst", 73)
	all, err := r.Gateway.StartCapture(r.Uplinks[0].Device, func(p *lab.Packet) bool { return p.Outgoing && p.Fragment && p.Dst.Addr() == remote.Addr() })
	labtest.Must(t, err)
	_, err = all.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
		return p.Fragment && p.IP.Flags&layers.IPv4MoreFragments == 0 && p.Dst.Addr() == remote.Addr()
	}, func() error { sendRaw(t, r.lan, remote.Addr(), r.datagram(inside, remote, payload)); return nil })
	labtest.Must(t, err)
	report, err := all.Stop()
	labtest.Must(t, err)
	var whole []byte
	for _, p := range report.Kept {
		if int(p.IP.FragOffset)*8 != len(whole) || p.IP.Id != report.Kept[0].IP.Id {
			t.Fatalf("out of order: %s at %d", p, p.IP.FragOffset*8)
		}
		whole = append(whole, p.IP.Payload...)
	}
	if len(report.Kept) != 2 || len(whole) < 8 || string(whole[8:]) != payload {
		t.Fatalf("%d fragments, %d bytes", len(report.Kept), len(whole))
	}
	for name, ns := range map[string]*lab.Namespace{"host": r.Gateway, "lan": r.lan} {
		conn, err := ns.ListenPacket("udp4", ":0")
		labtest.Must(t, err)
		neverDF(t, conn.(*net.UDPConn))
		for _, n := range []int{1450, 4000, 20000} {
			eventually(t, fmt.Sprintf("%s: an answer of %d bytes", name, n), func() bool { // the server is told the MTU by its first one
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], strings.Repeat("x", n))
				return err == nil
			})
		}
		labtest.Must(t, conn.Close())
		if err := pingLarge(labtest.Context(t), ns, lab.ServerAddrs[0], 4000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRFC4787_REQ13_MTUOfAnotherRouter: what a router behind the uplink tells reaches the sender.
func TestRFC4787_REQ13_MTUOfAnotherRouter(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)}, "")
	handle := w.Uplinks[0].ISP.Handle()
	backbone, err := handle.LinkByName(lab.DeviceBackbone)
	labtest.Must(t, err)
	labtest.Must(t, handle.LinkSetMTU(backbone, 1300))
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		t.Log(name)
		awaitPathMTU(t, c, 1300)
		labtest.Must(t, c.Close())
		_, err = ns.Upload(labtest.Context(t), lab.ServerAddrs[0], 1<<20)
		labtest.Must(t, err)
	}
}

// TestMW11_NewMTUIsTold: a session that moves to an uplink with a smaller MTU has its sender told.
func TestMW11_NewMTUIsTold(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {MTU: smallMTU}}}, preferFirst)
	flows := map[string]net.Conn{}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		defer c.Close()
		awaitPathMTU(t, c, 1500)
		flows[name] = c
	}
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	w.awaitState("wan1", "down")
	for name, c := range flows {
		t.Log(name)
		awaitPathMTU(t, c, smallMTU)
	}
}

// TestMW11_SegmentSize: connections announce, in both directions, what their uplink takes, also when their SYN moves to another;
// not where that is switched off.
func TestMW11_SegmentSize(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {MTU: smallMTU}}}, preferFirst)
	r := rawEnds(t, w)
	second := watchUplink(t, w.Gateway, w.Uplinks[1])
	c := r.talk(4000, 80)
	expectMSS(t, c.say(tSYN, 100, 0, ""), 1460)
	expectMSS(t, c.hear(tSYN|tACK, 900, 101, ""), 1460)
	moved := r.talk(4001, 80)
	expectMSS(t, moved.say(tSYN, 100, 0, ""), 1460)
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	w.awaitState("wan1", "down")
	r.wan, moved.outside = second, netip.AddrPort{}
	expectMSS(t, moved.say(tSYN, 100, 0, ""), smallMTU-40)
	expectMSS(t, moved.hear(tSYN|tACK, 900, 101, ""), smallMTU-40)
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		p, err := second.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.Outgoing && p.TCP != nil && p.TCP.SYN },
			func() error { _, err := ns.WhoAmI(labtest.Context(t), lab.ServerAddrs[0]); return err })
		labtest.Must(t, err)
		t.Log(name)
		expectMSS(t, p, smallMTU-40)
	}
	w.use(preferFirst + "nat: {clamp_mss: false}\n")
	expectMSS(t, r.talk(4002, 80).say(tSYN, 100, 0, ""), 1460)
}

// expectMSS fails the test unless a segment announces a size.
func expectMSS(t testing.TB, p *lab.Packet, want int) {
	t.Helper()
	for _, o := range p.TCP.Options {
		if o.OptionType == layers.TCPOptionKindMSS {
			if got := int(be16(o.OptionData)); got != want {
				t.Errorf("%s announces %d, want %d", p, got, want)
			}
			return
		}
	}
	t.Errorf("%s announces nothing", p)
}

// TestRFC6864_FragmentsOfTwoHosts: the same identification of two inside hosts is not the same outside; that of all fragments of
// a datagram is.
func TestRFC6864_FragmentsOfTwoHosts(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	remote := netip.AddrPortFrom(rawRemote, 5300)
	seen := map[uint16]netip.Addr{}
	for _, host := range rawHosts {
		pieces := fragments(t, netip.AddrPortFrom(host, 4000), remote, 77, strings.Repeat("y", 3000))
		all, err := r.Gateway.StartCapture(r.Uplinks[0].Device, func(p *lab.Packet) bool { return p.Outgoing && p.Fragment })
		labtest.Must(t, err)
		for _, piece := range pieces {
			sendRaw(t, r.lan, remote.Addr(), piece)
		}
		eventually(t, "all fragments", func() bool { return len(all.Report().Kept) == len(pieces) })
		report, err := all.Stop()
		labtest.Must(t, err)
		for _, p := range report.Kept {
			if other, ok := seen[p.IP.Id]; ok && other != host {
				t.Fatalf("fragments of %s and %s have the identification %d", other, host, p.IP.Id)
			}
			seen[p.IP.Id] = host
		}
	}
	if len(seen) != len(rawHosts) {
		t.Errorf("%d identifications of %d datagrams", len(seen), len(rawHosts))
	}
}

// neverDF lets a socket send datagrams that may be cut.
func neverDF(t testing.TB, conn *net.UDPConn) {
	t.Helper()
	labtest.Must(t, onSocket(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}))
}
