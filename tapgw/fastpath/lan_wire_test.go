package fastpath

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// runOn runs a program as if the frame had come in by a device of a namespace.
func runOn(t *testing.T, ns *lab.Namespace, device string, p *ebpf.Program, frame []byte) (code uint32, out []byte) {
	t.Helper()
	const ifindexAt = 40 // in struct __sk_buff
	index, err := ns.Index(device)
	labtest.Must(t, err)
	context := make([]byte, 192)
	binary.NativeEndian.PutUint32(context[ifindexAt:], uint32(index))
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: context}
	labtest.Must(t, ns.Do(func() error { code, err = p.Run(&o); return err }))
	return code, o.DataOut
}

// TestLANFragments: of a fragment's session nothing is known, nor is there one for a first packet, so those that the host
// would route into the TAP go to Go.
func TestLANFragments(t *testing.T) {
	w := newWorld(t, lab.Connect, false, nil)
	labtest.Must(t, w.AttachUpcall(1))
	link, err := w.gateway.Handle().LinkByName("lan0")
	labtest.Must(t, err)
	labtest.Must(t, w.SetHops(uplinks.IPv4, []Hop{{Index: link.Attrs().Index, MTU: 1500}}))
	const internet, onUplink, onLAN, itself = 0x08080808, 0xc6336432, 0x0a000063, 0x0a000001
	for _, c := range []struct {
		name       string
		dst        uint32
		proto      uint8
		word       uint16
		ttl        byte
		forwarding string
		upcalled   bool
	}{
		{"first", internet, packet.ProtoUDP, 0x2000, 64, "1", true},
		{"later", internet, packet.ProtoUDP, 0x2010, 64, "1", true},
		{"last", internet, packet.ProtoTCP, 0x0010, 64, "1", true},
		{"ICMP", internet, packet.ProtoICMP, 0x2000, 64, "1", true},
		{"another protocol", internet, 132, 0x2000, 64, "1", false},
		{"last but one hop", internet, packet.ProtoUDP, 0x2000, 2, "1", true},
		{"expiring", internet, packet.ProtoUDP, 0x2000, 1, "1", false},
		{"whole, of no session yet", internet, packet.ProtoUDP, 0x4000, 64, "1", true},
		{"whole, expiring", internet, packet.ProtoUDP, 0x4000, 1, "1", false},
		{"whole, ICMP", internet, packet.ProtoICMP, 0x4000, 64, "1", false},
		{"whole, within the LAN", onLAN, packet.ProtoUDP, 0x4000, 64, "1", false},
		{"whole, to the host", itself, packet.ProtoUDP, 0x4000, 64, "1", false},
		{"to the uplink's subnet", onUplink, packet.ProtoUDP, 0x2000, 64, "1", false},
		{"within the LAN", onLAN, packet.ProtoUDP, 0x2000, 64, "1", false},
		{"to the host", itself, packet.ProtoUDP, 0x2000, 64, "1", false},
		{"where nothing is forwarded", internet, packet.ProtoUDP, 0x2000, 64, "0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			labtest.Must(t, w.gateway.Sysctl("net/ipv4/ip_forward", c.forwarding))
			f := sample{src: 0x0a000002, dst: c.dst, sport: 1, dport: 2, proto: packet.ProtoUDP, payload: 16}.build()
			copy(f, link.Attrs().HardwareAddr)
			f = summed(put(ip+8, c.ttl)(put(ip+9, c.proto)(fragment(f, c.word))))
			wantCode, want := uint32(codeNext), f
			if c.upcalled {
				wantCode, want = codeHit, labelled(aged(f), tagLAN)
			}
			if code, got := runOn(t, w.gateway, "lan0", w.lan, f); code != wantCode || !bytes.Equal(got, want) {
				t.Errorf("code %d and\n%x, want %d and\n%x", int32(code), got, int32(wantCode), want)
			}
		})
	}
}

// lanEnd is a host of the LAN, and what its packets have left of 64 hops at the other end.
type lanEnd struct {
	ns   *lab.Namespace
	addr string
	port uint16
	ttl  uint8
}

// TestLANOnTheWire: datagrams pass the gateway without its own stack, one hop each way, also through a router that the
// gateway's own routes do not know.
func TestLANOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name       string
		connect    func(near, far lab.End, mtu int) (*lab.Link, error)
		headerless bool
	}{{"Ethernet", lab.Connect, false}, {"header-less", lab.ConnectTUN, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.connect, c.headerless, nil)
			w.bypass(t)
			inner := w.innerHost(t)
			out, in := labtest.Capture(t, w.isp, "eth0"), labtest.Capture(t, w.client, "eth0")
			for _, end := range []lanEnd{{w.client, "10.0.0.2", 5000, 63}, {inner, "10.9.0.2", 5001, 62}} {
				here, there := w.talk(t, end)
				w.mustPass(t, out, here, there, end.ttl)
				w.mustPass(t, in, there, here, 63)
			}
			if n := forwarded(t, w.gateway); n != "0" {
				t.Errorf("the gateway's own stack forwarded %s datagrams", n)
			}
		})
	}
}

// forwarded is the number of datagrams that a host's own stack has forwarded.
func forwarded(t *testing.T, ns *lab.Namespace) string {
	t.Helper()
	var snmp []byte
	labtest.Must(t, ns.Do(func() (err error) { snmp, err = os.ReadFile("/proc/thread-self/net/snmp"); return err }))
	lines := strings.Split(string(snmp), "\n")
	at := slices.Index(strings.Fields(lines[0]), "ForwDatagrams")
	if at < 0 {
		t.Fatal("cannot read the number of forwarded datagrams")
	}
	return strings.Fields(lines[1])[at]
}

// bypass makes the LAN one behind hops: 1 on the link, 2 by the client.
func (w *world) bypass(t *testing.T) {
	t.Helper()
	lan, err := w.gateway.Index("lan0")
	labtest.Must(t, err)
	labtest.Must(t, w.SetHops(uplinks.IPv4, []Hop{{Index: lan, MTU: 1500}, {Index: lan, Gateway: inside, MTU: 1500}}))
	labtest.Must(t, w.gateway.Do(func() error { return w.AttachLAN(lan) }))
}

// innerHost puts one behind the client.
func (w *world) innerHost(t *testing.T) *lab.Namespace {
	t.Helper()
	inner := labtest.Namespace(t, "inner")
	_, err := lab.Connect(lab.End{NS: w.client, Device: "inner0", Prefix: netip.MustParsePrefix("10.9.0.1/24")},
		lab.End{NS: inner, Device: "eth0", Prefix: netip.MustParsePrefix("10.9.0.2/24")}, 0)
	labtest.Must(t, err)
	labtest.Must(t, w.client.Sysctl("net/ipv4/ip_forward", "1"))
	addDefault(t, inner, "10.9.0.1", "eth0")
	return inner
}

// talk opens a session of an end of the LAN.
func (w *world) talk(t *testing.T, end lanEnd) (here, there net.Conn) {
	t.Helper()
	addr := netip.MustParseAddr(end.addr)
	s := sample{src: packet.HostOrder(addr), dst: 0xcb007109, sport: end.port, dport: end.port, proto: packet.ProtoUDP}
	tr := w.table.Translation(w.open(t, s.key()))
	w.table.Relabel(func(inside packet.Addr) uint8 {
		if inside.V4()>>16 == 0x0a09 {
			return 2
		}
		return 1
	})
	local, outside := netip.AddrPortFrom(addr, end.port), netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), tr.OutsidePort)
	remote := netip.AddrPortFrom(server, end.port)
	return udp(t, end.ns, local, remote, 1200), udp(t, w.isp, remote, outside, 1200)
}

// mustPass sends a datagram and expects it at the other end, and in a capture with so many hops left.
func (w *world) mustPass(t *testing.T, c *lab.Capture, from, to net.Conn, ttl uint8) {
	t.Helper()
	payload := []byte("from " + from.LocalAddr().String())
	seen, err := c.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return bytes.Equal(p.Payload, payload) },
		func() error { _, err := from.Write(payload); return err })
	labtest.Must(t, err)
	if left := hopsLeft(seen); left != ttl || seen.Problem != "" {
		t.Errorf("%v has %d hops left, want %d; %s", seen, left, ttl, seen.Problem)
	}
	got := make([]byte, 100)
	if n, err := to.Read(got); err != nil || !bytes.Equal(got[:n], payload) {
		t.Errorf("read %q, error %v", got[:n], err)
	}
}

func hopsLeft(p *lab.Packet) uint8 {
	if p.V6 != nil {
		return p.V6.HopLimit
	}
	return p.IP.TTL
}

// TestLANReroute: a session goes on past the host's forwarding until somebody says that routes changed, and after that only
// where the host would still send it into the TAP.
func TestLANReroute(t *testing.T) {
	w := newWorld(t, lab.Connect, false, nil)
	w.bypass(t)
	link, err := w.gateway.Handle().LinkByName("lan0")
	labtest.Must(t, err)
	s := sample{src: 0x0a000002, dst: 0xcb007109, sport: 5000, dport: 5000, proto: packet.ProtoUDP, payload: 16}
	w.open(t, s.key())
	w.table.Relabel(func(packet.Addr) uint8 { return 1 })
	expect := func(when string, want uint32) {
		t.Helper()
		f := s.build()
		copy(f, link.Attrs().HardwareAddr)
		if code, _ := runOn(t, w.gateway, "lan0", w.lan, f); code != want {
			t.Errorf("%s: code %d, want %d", when, int32(code), int32(want))
		}
	}
	now, err := kernelTick()
	labtest.Must(t, err)
	labtest.Must(t, w.SetRerouted(now))
	expect("at first", codeHit)
	prohibit := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 9), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_PROHIBIT}
	labtest.Must(t, w.SetRerouted(now-1))
	labtest.Must(t, w.gateway.Handle().RouteAdd(prohibit))
	expect("not told yet", codeHit)
	labtest.Must(t, w.SetRerouted(now+nat.TickOf(time.Hour)))
	expect("told", codeNext)
	expect("and so it stays", codeNext)
	labtest.Must(t, w.gateway.Handle().RouteDel(prohibit))
	expect("as before", codeHit)
}
