package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Numbers of extension headers (RFC 8200 §4).
const (
	nextHopByHop    = 0
	nextRouting     = 43
	nextFragment    = 44
	nextDestination = 60
)

// Extension headers that change nothing for a translator, and one that does.
var (
	padOptions        = []byte{0, 1, 4, 0, 0, 0, 0} // one PadN option
	hopByHopPad       = extension{nextHopByHop, padOptions}
	destinationPad    = extension{nextDestination, padOptions}
	routingFinished   = extension{nextRouting, []byte{0, 253, 0, 0, 0, 0, 0}} // no segments are left
	atomicFragment    = extension{nextFragment, []byte{0, 0, 0, 0, 0, 0, 9}}  // RFC 6946
	routingUnfinished = extension{nextRouting, []byte{0, 253, 1, 0, 0, 0, 0}} // RFC 5095
)

var chains = map[string][]extension{
	"hop-by-hop options":  {hopByHopPad},
	"destination options": {destinationPad},
	"routing header":      {routingFinished},
	"atomic fragment":     {atomicFragment}, // the host's connection tracking takes the header away
	"several":             {hopByHopPad, destinationPad, routingFinished, destinationPad},
}

// extended is a datagram with extension headers.
func (r *rawWorld) extended(src, dst netip.AddrPort, chain []extension, payload string) []byte {
	r.t.Helper()
	r.id++
	h := ip6(src.Addr(), dst.Addr())
	h.FlowLabel = uint32(r.id)
	return packetV6(r.t, h, chain, udpBetween(src, dst), gopacket.Payload(payload))
}

// chainOf is the extension headers of a captured packet, with what names the next of each.
func chainOf(p *lab.Packet) []byte {
	ip := p.Data[len(p.Data)-int(p.V6.Length):]
	return ip[:len(ip)-len(p.Segment)]
}

// TestIPv6ExtensionHeaders: packets with extension headers are translated as any, both ways, and the headers stay as they
// are; with a way to go left they are dropped.
func TestIPv6ExtensionHeaders(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	remote, port := netip.AddrPortFrom(r.family.rawRemote, 5300), uint16(4000)
	for name, chain := range chains {
		port++
		inside := netip.AddrPortFrom(r.family.rawHosts[0], port)
		for _, payload := range []string{"the first", "the second"} {
			b := r.extended(inside, remote, chain, payload)
			sent := r.out(b)
			if sent.Src.Addr() != r.Uplinks[0].AddrV6() || sent.UDP == nil || string(sent.Payload) != payload ||
				!bytes.Contains(b, chainOf(sent)) {
				t.Fatalf("%s: left as %s", name, sent)
			}
			back := r.extended(remote, sent.Src, chain, payload)
			got := r.in(back)
			if got.Dst != inside || got.UDP == nil || string(got.Payload) != payload || !bytes.Contains(back, chainOf(got)) {
				t.Errorf("%s: arrived as %s", name, got)
			}
		}
	}
	outside, _ := r.udp(netip.AddrPortFrom(r.family.rawHosts[0], 4000), remote)
	r.dropped("with a segment left", r.extended(remote, outside, []extension{routingUnfinished}, "elsewhere"))
	b := r.extended(netip.AddrPortFrom(r.family.rawHosts[0], 4000), remote, []extension{routingUnfinished}, "elsewhere")
	if p := r.passes(b, r.lan, r.wan, 300*time.Millisecond); p != nil {
		t.Errorf("with a segment left: %s left", p)
	}
}

// TestIPv6ExtensionHeadersToTheHost: packets with extension headers that are no session's reach the host's services, on ports
// in the pool and outside it, and its stack answers what nobody serves.
func TestIPv6ExtensionHeadersToTheHost(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	remote, own := netip.AddrPortFrom(r.family.rawRemote, 5300), r.Uplinks[0].AddrV6()
	for _, port := range []uint16{portBelow, portInside, portEphemeral} {
		serveUDP(t, r.Gateway, netip.AddrPortFrom(own, port))
		for name, chain := range chains {
			payload := fmt.Sprint(name, " to ", port)
			b := r.extended(remote, netip.AddrPortFrom(own, port), chain, payload)
			_, err := r.wan.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
				return p.Outgoing && p.UDP != nil && p.Src == netip.AddrPortFrom(own, port) && p.Dst == remote && string(p.Payload) == payload
			}, func() error { sendRaw(t, r.Internet, own, b); return nil })
			if err != nil {
				t.Errorf("no answer to %s: %v", payload, err)
			}
		}
	}
	for _, port := range []uint16{portBelow + 1, portInside + 1} { // nobody's
		b := r.extended(remote, netip.AddrPortFrom(own, port), []extension{destinationPad}, "is anybody there")
		_, err := r.wan.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
			return p.Outgoing && p.ICMPv6 != nil && p.Dst.Addr() == remote.Addr() &&
				p.ICMPv6.TypeCode == unreachableV6(layers.ICMPv6CodePortUnreachable)
		}, func() error { sendRaw(t, r.Internet, own, b); return nil })
		if err != nil {
			t.Errorf("port %d: nothing is said: %v", port, err)
		}
	}
}

func unreachableV6(code uint8) layers.ICMPv6TypeCode {
	return layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, code)
}

// TestIPv6LargeDatagrams: what a sender cuts in pieces passes both ways, from a LAN host and the host itself, and reaches the host's
// own services (RFC 8200 §4.5).
func TestIPv6LargeDatagrams(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	ctx := labtest.Context(t)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		conn, err := ns.ListenPacket(w.family.udp, w.family.any)
		labtest.Must(t, err)
		defer conn.Close()
		for _, n := range large {
			if _, err := lab.AskUDP(ctx, conn, w.family.servers[0], strings.Repeat("x", n)); err != nil {
				t.Errorf("%s: %d bytes by UDP: %v", name, n, err)
			}
		}
		if err := pingLarge(ctx, ns, w.family.servers[0], 4000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, u := range w.Uplinks {
		if err := pingLarge(ctx, w.Internet, u.AddrV6(), 4000); err != nil {
			t.Errorf("%s: %v", u.Device, err)
		}
		for _, port := range []uint16{portInside, portEphemeral} {
			service := netip.AddrPortFrom(u.AddrV6(), port)
			serveUDP(t, w.Gateway, service)
			for _, n := range large {
				if err := askService(ctx, w.Internet, service, n); err != nil {
					t.Errorf("%s: %d bytes: %v", service, n, err)
				}
			}
		}
	}
}

// TestIPv6FragmentsInAnyOrder: pieces come in each order, one of them twice, and a piece of something else between: from
// outside, and from inside.
func TestIPv6FragmentsInAnyOrder(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	testFragmentOrders(t, w.family, w.Topology)
	server := netip.AddrPortFrom(w.family.servers[0], lab.PortUDPEcho)
	client, err := listenUDP(w.lan, netip.AddrPortFrom(w.Hosts[0].AddrV6, 4000))
	labtest.Must(t, err)
	defer client.Close()
	eachOrder(t, w.lan, netip.AddrPortFrom(w.Hosts[0].AddrV6, 4000), server, func(order []int, payload string) {
		if got := hear(t, client, server.Addr()); !strings.HasSuffix(got, " "+payload) {
			t.Fatalf("order %v: %d bytes came back", order, len(got))
		}
	})
}
