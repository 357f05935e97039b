package e2e

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Addresses that routes lead to and no kernel has: all that comes from them is made by the test.
var (
	rawHosts  = []netip.Addr{netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("10.0.0.78")}
	rawRemote = netip.MustParseAddr("203.0.113.99")
	rawOther  = netip.MustParseAddr("203.0.113.98") // nobody's too
)

// rawWorld is a world with one uplink, both ends of whose packets are made by the test.
type rawWorld struct {
	world
	wan, eth *lab.Capture // of the uplink, and of the LAN host's port
	id       uint16       // of the packet sent last
}

// beginRaw makes one.
func beginRaw(t testing.TB, o lab.Options, config string) *rawWorld {
	t.Helper()
	if o.Uplinks == nil {
		o.Uplinks = make([]lab.UplinkOptions, 1)
	}
	return rawEnds(t, begin(t, o, config))
}

// beginRawV6 is beginRaw for a test of IPv6.
func beginRawV6(t testing.TB, o lab.Options, config string) *rawWorld {
	t.Helper()
	if o.Uplinks == nil {
		o.Uplinks = make([]lab.UplinkOptions, 1)
	}
	return rawEnds(t, beginV6(t, o, config))
}

// rawEnds gives a world the addresses of nobody.
func rawEnds(t testing.TB, w world) *rawWorld {
	t.Helper()
	port, err := w.Gateway.Handle().LinkByName(lab.DeviceLAN)
	labtest.Must(t, err)
	host, err := w.lan.Handle().LinkByName(lab.DeviceHost)
	labtest.Must(t, err)
	for _, a := range w.family.rawHosts {
		labtest.Must(t, w.Gateway.Handle().NeighSet(&netlink.Neigh{LinkIndex: port.Attrs().Index, IP: a.AsSlice(),
			HardwareAddr: host.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}))
	}
	for _, a := range []netip.Addr{w.family.rawRemote, w.family.rawOther} {
		labtest.Must(t, w.Internet.Handle().RouteAdd(&netlink.Route{Type: unix.RTN_BLACKHOLE,
			Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}))
	}
	r := &rawWorld{world: w, id: 100}
	r.wan, err = w.Gateway.StartCapture(w.Uplinks[0].Device, nil) // some tests send what is bad on purpose
	labtest.Must(t, err)
	wan := r.wan
	t.Cleanup(func() { _, err := wan.Stop(); labtest.Must(t, err) })
	r.eth = labtest.Capture(t, w.lan, lab.DeviceHost)
	return r
}

// packet makes an IP packet with an identification of its own, which of IPv6 is the flow label.
func (r *rawWorld) packet(src, dst netip.Addr, body ...gopacket.SerializableLayer) []byte {
	r.t.Helper()
	r.id++
	if src.Is6() {
		h := ip6(src, dst)
		h.FlowLabel = uint32(r.id)
		return packetV6(r.t, h, nil, body...)
	}
	h := ip4(src, dst)
	h.Id = r.id
	return frame(r.t, gopacket.Payload(nil), h, body...)
}

// passes sends a packet that was made last and returns how it passes a device, nil when it does not within a time.
func (r *rawWorld) passes(b []byte, from *lab.Namespace, at *lab.Capture, within time.Duration) *lab.Packet {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), within)
	defer cancel()
	_, dst := addressesOf(b)
	outgoing := at == r.wan
	p, err := at.AwaitAfter(ctx, func(p *lab.Packet) bool { return p.Outgoing == outgoing && isCalled(p, b) },
		func() error { sendRaw(r.t.(*testing.T), from, dst, b); return nil })
	if err != nil {
		return nil
	}
	if p.Problem != "" {
		r.t.Errorf("bad packet: %s", p)
	}
	return p
}

// addressesOf are source and destination of an IP packet.
func addressesOf(b []byte) (src, dst netip.Addr) {
	if b[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	}
	return netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
}

// isCalled reports whether a captured packet has the identification of one that was sent.
func isCalled(p *lab.Packet, sent []byte) bool {
	if sent[0]>>4 == 6 {
		return p.V6 != nil && p.V6.FlowLabel == uint32(sent[1]&15)<<16|uint32(be16(sent[2:]))
	}
	return p.IP != nil && p.IP.Id == be16(sent[4:])
}

// out sends a packet from the LAN and returns how it leaves by the uplink.
func (r *rawWorld) out(b []byte) *lab.Packet {
	r.t.Helper()
	p := r.passes(b, r.lan, r.wan, patience)
	if p == nil {
		r.t.Fatalf("a packet from inside did not leave: % x", b)
	}
	return p
}

// outsideOf is where a packet from outside is sent: nobody else could send one of the provider's.
func (r *rawWorld) outsideOf(b []byte) *lab.Namespace {
	if src, _ := addressesOf(b); src == r.family.provider(r.Uplinks[0]) {
		return r.Uplinks[0].ISP
	}
	return r.Internet
}

// in sends a packet from the Internet and returns how it comes to the LAN.
func (r *rawWorld) in(b []byte) *lab.Packet {
	r.t.Helper()
	p := r.passes(b, r.outsideOf(b), r.eth, patience)
	if p == nil {
		r.t.Fatalf("a packet from outside did not arrive: % x", b)
	}
	return p
}

// dropped sends a packet from the Internet that must not come to the LAN.
func (r *rawWorld) dropped(what string, b []byte) {
	r.t.Helper()
	if p := r.passes(b, r.outsideOf(b), r.eth, 300*time.Millisecond); p != nil {
		r.t.Errorf("%s arrived: %s", what, p)
	}
}

// udp opens a session of a raw host and returns its outside endpoint.
func (r *rawWorld) udp(inside, remote netip.AddrPort) (outside netip.AddrPort, sent *lab.Packet) {
	r.t.Helper()
	sent = r.out(r.datagram(inside, remote, "hello"))
	return sent.Src, sent
}

// datagram makes a UDP packet.
func (r *rawWorld) datagram(src, dst netip.AddrPort, payload string) []byte {
	r.t.Helper()
	return r.packet(src.Addr(), dst.Addr(), &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(payload))
}

// talk is one TCP conversation between a raw host and the raw remote.
type talk struct {
	*rawWorld
	inside, remote, outside netip.AddrPort
}

// flags of TCP segments.
const (
	tFIN = 1 << iota
	tSYN
	tRST
	_
	tACK
)

// talk begins a conversation without sending anything.
func (r *rawWorld) talk(insidePort, remotePort uint16) *talk {
	return &talk{rawWorld: r, inside: netip.AddrPortFrom(r.family.rawHosts[0], insidePort), remote: netip.AddrPortFrom(r.family.rawRemote, remotePort)}
}

func (c *talk) segment(src, dst netip.AddrPort, flags uint8, seq, ack uint32, payload string) []byte {
	c.t.Helper()
	tcp := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: seq, Ack: ack, Window: 30000,
		FIN: flags&tFIN != 0, SYN: flags&tSYN != 0, RST: flags&tRST != 0, ACK: flags&tACK != 0}
	if flags&tSYN != 0 {
		tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}}
	}
	return c.packet(src.Addr(), dst.Addr(), tcp, gopacket.Payload(payload))
}

// say sends a segment of the inside, which must come out with the same numbers.
func (c *talk) say(flags uint8, seq, ack uint32, payload string) *lab.Packet {
	c.t.Helper()
	p := c.out(c.segment(c.inside, c.remote, flags, seq, ack, payload))
	if p.TCP == nil || p.TCP.Seq != seq || p.TCP.Ack != ack || string(p.Payload) != payload {
		c.t.Fatalf("a segment left as %s", p)
	}
	if c.outside.IsValid() && p.Src != c.outside {
		c.t.Fatalf("a segment left from %s instead of %s", p.Src, c.outside)
	}
	c.outside = p.Src
	return p
}

// hear sends a segment of the remote, which must arrive with the same numbers.
func (c *talk) hear(flags uint8, seq, ack uint32, payload string) *lab.Packet {
	c.t.Helper()
	p := c.in(c.segment(c.remote, c.outside, flags, seq, ack, payload))
	if p.TCP == nil || p.Dst != c.inside || p.TCP.Seq != seq || p.TCP.Ack != ack || string(p.Payload) != payload {
		c.t.Fatalf("a segment arrived as %s", p)
	}
	return p
}

// connect is the handshake: the inside sends on from 101, the remote from 901.
func (c *talk) connect() *talk {
	c.t.Helper()
	c.say(tSYN, 100, 0, "")
	c.hear(tSYN|tACK, 900, 101, "")
	c.say(tACK, 101, 901, "")
	c.expect("established")
	return c
}

// expect fails the test unless the session is listed in a state.
func (c *talk) expect(state string) {
	c.t.Helper()
	if s, ok := c.session("tcp", c.inside.Port()); !ok || s.State != state {
		c.t.Fatalf("the session is %q (%t), want %s", s.State, ok, state)
	}
}
