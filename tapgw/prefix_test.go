package tapgw

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// What the prefixes of the tests make of insideV6 on each uplink, calculated by hand, and other addresses.
var (
	mapped1  = netip.MustParseAddr("2001:db8:100:ce48::2")
	mapped2  = netip.MustParseAddr("2001:db8:200:cd48::2")
	wan2V6   = netip.MustParseAddr("2001:db8:2::2")
	routeV6  = netip.MustParseAddr("2001:db8:fe::1") // a router on the way
	strayV6  = netip.MustParseAddr("fd00:9::2")      // of no prefix that is translated
	noSubnet = netip.MustParseAddr("fd00:1:0:ffff::2")
)

// TestRFC6296_S2_6_TransportUntouched: whatever leaves or comes has another address, and not one byte behind the header changes.
func TestRFC6296_S2_6_TransportUntouched(t *testing.T) {
	w := newPrefixes(t)
	for name, f := range kindsV6(t, insideV6, serverV6) {
		got := w.outV6(f, 1)
		if src, dst := endsOf(got); src != mapped1 || dst != serverV6 || !bytes.Equal(transport(got), transport(f)) {
			t.Errorf("%s left as %s to %s: % x, was % x", name, src, dst, transport(got), transport(f))
		}
	}
	for name, f := range kindsV6(t, routeV6, mapped1) { // nobody inside has spoken to that one
		got := w.inV6(f, 1)
		if src, dst := endsOf(got); src != routeV6 || dst != insideV6 || !bytes.Equal(transport(got), transport(f)) {
			t.Errorf("%s came as %s to %s: % x, was % x", name, src, dst, transport(got), transport(f))
		}
	}
}

// TestPrefixesLeaveOthersAlone: hosts beyond the prefix and the gateway's host share the uplink's own address.
func TestPrefixesLeaveOthersAlone(t *testing.T) {
	w := newPrefixes(t)
	w.ups[0].V6.NPTv6 = append(w.ups[0].V6.NPTv6, pairOf("2001:db8:1::/64", "2001:db8:101::/64")) // the TAP's address is in there
	w.publishV6()
	for _, a := range []netip.Addr{strayV6, tapV6} {
		if src, _ := endsOf(w.outV6(udpV6(t, a, 4000, serverV6, 53, "x"), 1)); src != wan1V6 {
			t.Errorf("%s left as %s", a, src)
		}
	}
}

// TestMW13_PrefixOfEachUplink: a session stays where it is, a new one has the prefix of the uplink that is chosen for it, and what
// fails moves what can move.
func TestMW13_RFC6296_S2_4_PrefixOfEachUplink(t *testing.T) {
	w := newPrefixes(t)
	datagram, segment := udpV6(t, insideV6, 4000, serverV6, 53, "x"), tcpV6(t, insideV6, 4000, serverV6, 80, syn)
	going := tcpV6(t, insideV6, 4000, serverV6, 80, ack)
	source := func(f []byte, uplink uint8) netip.Addr { src, _ := endsOf(w.outV6(f, uplink)); return src }
	if a, b := source(datagram, 1), source(segment, 1); a != mapped1 || b != mapped1 {
		t.Fatalf("%s, %s", a, b)
	}
	w.ups[0].Tier, w.ups[1].Tier = 1, 0
	w.publishV6()
	if a := source(going, 1); a != mapped1 {
		t.Errorf("an old session as %s", a)
	}
	if a := source(tcpV6(t, insideV6, 4001, serverV6, 80, syn), 2); a != mapped2 {
		t.Errorf("a new one as %s", a)
	}
	w.ups[0].V6.State = uplinks.Down
	w.publishV6()
	if a, b := source(datagram, 2), source(going, 1); a != mapped2 || b != mapped1 {
		t.Errorf("a datagram as %s, an open connection as %s", a, b)
	}
	w.inV6(udpV6(t, serverV6, 53, mapped2, 4000, "x"), 2)
}

// TestPrefixIn: what may come in by whatever a remote opens, and what never does; nothing is left to the host.
func TestPrefixIn(t *testing.T) {
	w := newPrefixes(t)
	w.ups[0].V6.Addresses = append(w.ups[0].V6.Addresses, netip.MustParseAddr("2001:db8:100::1"))
	w.publishV6()
	for name, c := range map[string]struct {
		frame   []byte
		verdict Verdict
		why     Reason
	}{
		"segment of a connection":    {tcpV6(t, serverV6, 80, mapped1, 22, ack), Deliver, NoReason},
		"reset":                      {tcpV6(t, serverV6, 80, mapped1, 23, packet.RST), Drop, NoSession},
		"answer of no connection":    {tcpV6(t, serverV6, 80, mapped1, 24, synAck), Drop, NoSession},
		"from loopback":              {udpV6(t, netip.IPv6Loopback(), 53, mapped1, 9999, "x"), Drop, NoSession},
		"echo reply to nothing":      {pingV6(t, serverV6, mapped1, packet.ICMPv6EchoReply, 7), Deliver, NoReason},
		"error about nothing":        {tooBigV6(t, routeV6, mapped1, udpV6(t, mapped1, 1, serverV6, 2, "x")), Drop, NoSession},
		"neighbour discovery":        {buildV6(t, ipV6(serverV6, mapped1, layers.IPProtocolICMPv6), icmpV6(135, 0), gopacket.Payload(make([]byte, 20))), Ignore, NoReason},
		"subnet of nobody":           {udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:100:ffff::1"), 53, "x"), Drop, ReservedSubnet},
		"the uplink's own address":   {udpV6(t, serverV6, 53, wan1V6, 53, "x"), GiveBack, NoReason},
		"an own one in the prefix":   {udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:100::1"), 53, "x"), GiveBack, NoReason},
		"prefix of the other uplink": {udpV6(t, serverV6, 53, mapped2, 53, "x"), Drop, WrongUplink},
		"beyond the prefix":          {udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:101::1"), 53, "x"), GiveBack, NoReason},
	} {
		b := clone(c.frame)
		res := w.both.Inbound(b, 1, start)
		if res.Verdict != c.verdict || res.Reason != c.why {
			t.Errorf("%s: verdict %d, reason %q", name, res.Verdict, res.Reason)
		}
		if _, dst := endsOf(b); res.Verdict == Deliver && dst != insideV6 {
			t.Errorf("%s: delivered to %s", name, dst)
		}
	}
}

// TestRFC6296_S4_2_ReservedSubnet: what has no subnet outside, or would be the uplink's own address, is refused and its sender told.
func TestRFC6296_S4_2_ReservedSubnet(t *testing.T) {
	w := newPrefixes(t)
	for _, c := range []struct {
		own  netip.Addr
		from netip.Addr
		why  Reason
		want []byte
	}{{wan1V6, noSubnet, ReservedSubnet, []byte{1, 0}}, {mapped1, insideV6, ReservedHost, []byte{4, 0}}} {
		w.ups[0].V6.Addresses = []netip.Addr{c.own}
		w.ups[1].V6.State = uplinks.Disabled
		w.publishV6()
		res := w.both.Outbound(udpV6(t, c.from, 4000, serverV6, 53, "x"), start)
		w.expect(res, Drop, c.why)
		if _, to := endsOf(res.Reply); to != c.from || !bytes.HasPrefix(transport(res.Reply), c.want) {
			t.Errorf("%s is told % x", to, transport(res.Reply))
		}
	}
	w.ups[1].V6.State, w.ups[1].V6.NPTv6 = uplinks.Up, nil
	w.publishV6()
	if src, _ := endsOf(w.outV6(udpV6(t, noSubnet, 4000, serverV6, 53, "x"), 2)); src != wan2V6 { // that shares its address with all
		t.Errorf("by the other uplink as %s", src)
	}
}

// TestRFC6296_S3_7a_NoInterfaceID: behind a prefix longer than /48 an address without interface identifier goes nowhere.
func TestRFC6296_S3_7a_NoInterfaceID(t *testing.T) {
	w := newPrefixes(t)
	for i := range w.ups {
		w.ups[i].V6.NPTv6 = []uplinks.NPTv6{pairOf("fd00:1::/64", "2001:db8:100:5::/64")}
	}
	w.publishV6()
	res := w.both.Outbound(udpV6(t, netip.MustParseAddr("fd00:1::"), 4000, serverV6, 53, "x"), start)
	w.expect(res, Drop, ReservedHost)
	if got := transport(res.Reply); !bytes.HasPrefix(got, []byte{4, 0}) || binary.BigEndian.Uint32(got[4:]) != 8 {
		t.Errorf("told % x", got)
	}
	w.droppedIn(udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:100:5::"), 53, "x"), 1, ReservedHost)
	if n := w.table.SessionsOn(1); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestNoWayIntoThePrefix: what is for a subnet of the inside that the host has no route to never leaves by an uplink.
func TestNoWayIntoThePrefix(t *testing.T) {
	w := newPrefixes(t)
	unknown := netip.MustParseAddr("fd00:1:0:77::1")
	res := w.both.Outbound(udpV6(t, insideV6, 4000, unknown, 53, "x"), start)
	w.expect(res, Drop, NoRoute)
	if got := transport(res.Reply); !bytes.HasPrefix(got, []byte{1, 0}) {
		t.Errorf("told % x", got)
	}
	b := w.inV6(udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:100:cebf::1"), 53, "x"), 1)
	if _, dst := endsOf(b); dst != unknown {
		t.Fatalf("delivered to %s", dst)
	}
	w.expect(w.both.Outbound(b, start), Drop, NoRoute) // the host sends it where it came from
}

// TestRFC6296_ICMPv6: errors about translated packets arrive with both headers as their receiver knows them, in both directions.
func TestRFC6296_ICMPv6(t *testing.T) {
	w := newPrefixes(t)
	sent := w.outV6(udpV6(t, insideV6, 4000, serverV6, 53, "x"), 1)
	b := w.inV6(tooBigV6(t, routeV6, mapped1, sent), 1)
	if want := tooBigV6(t, routeV6, insideV6, udpV6(t, insideV6, 4000, serverV6, 53, "x")); !bytes.Equal(transport(b), transport(want)) {
		t.Errorf("arrived as % x, want % x", transport(b), transport(want))
	}
	if src, dst := endsOf(b); src != routeV6 || dst != insideV6 {
		t.Errorf("from %s to %s", src, dst)
	}
	spoilt := tooBigV6(t, routeV6, mapped1, sent)
	spoilt[len(spoilt)-1] ^= 1
	w.droppedIn(spoilt, 1, NoSession)
	short := tooBigV6(t, routeV6, mapped1, sent[:packet.VnetLen+packet.EthernetLen+39])
	w.droppedIn(short, 1, NoSession)
	received := w.inV6(udpV6(t, serverV6, 53, mapped1, 4000, "x"), 1)
	b = w.outV6(tooBigV6(t, insideV6, serverV6, received), 1)
	if want := tooBigV6(t, mapped1, serverV6, udpV6(t, serverV6, 53, mapped1, 4000, "x")); !bytes.Equal(transport(b), transport(want)) {
		t.Errorf("left as % x, want % x", transport(b), transport(want))
	}
}

// TestRFC6296_S4_3_Hairpin: between two hosts of the LAN by outside addresses, also by those of the other uplink.
func TestRFC6296_S4_3_Hairpin(t *testing.T) {
	second := netip.MustParseAddr("fd00:1::3")
	for _, to := range []netip.Addr{netip.MustParseAddr("2001:db8:100:ce48::3"), netip.MustParseAddr("2001:db8:200:cd48::3")} {
		w := newPrefixes(t)
		for name, f := range kindsV6(t, insideV6, to) {
			b := clone(f)
			w.expect(w.both.Outbound(b, start), Deliver, NoReason)
			if src, dst := endsOf(b); src != mapped1 || dst != second {
				t.Fatalf("%s: from %s to %s", name, src, dst)
			}
		}
		b := udpV6(t, second, 53, mapped1, 53, "answer")
		w.expect(w.both.Outbound(b, start), Deliver, NoReason)
		if src, dst := endsOf(b); src != to || dst != insideV6 {
			t.Errorf("answered from %s to %s", src, dst)
		}
		w.expect(w.both.Outbound(udpV6(t, insideV6, 53, netip.MustParseAddr("2001:db8:100:ffff::3"), 53, "x"), start), Drop, ReservedSubnet)
	}
}

// TestRFC6296_S2_5_NothingToLose: with the sessions forgotten, connections go on, whichever side speaks first; where a connection may
// have had another uplink's prefix, only what comes tells which.
func TestRFC6296_S2_5_NothingToLose(t *testing.T) {
	forget := func(w *prefixes, k nat.Key) { w.both.For(uplinks.IPv6).table.End(k, start) }
	key := nat.Key{Inside: packet.AddrOf(insideV6), InsidePort: 4000, Remote: packet.AddrOf(serverV6), RemotePort: 80, Proto: packet.ProtoTCP}
	going, coming := tcpV6(t, insideV6, 4000, serverV6, 80, ack), tcpV6(t, serverV6, 80, mapped1, 4000, ack)

	w := newPrefixes(t)
	w.outV6(tcpV6(t, insideV6, 4000, serverV6, 80, syn), 1)
	forget(w, key)
	w.expect(w.both.Outbound(clone(going), start), Drop, NotSYN)
	w.inV6(coming, 1)
	w.outV6(going, 1)
	w.inV6(coming, 1)
	g := w.both.For(uplinks.IPv6)
	if tr := g.table.Translation(g.table.FindOut(key)); tr.State != nat.TCPEstablished {
		t.Errorf("the connection is %s", tr.State)
	}

	w = newPrefixes(t)
	w.ups[1].V6.State, w.ups[1].V6.Addresses = uplinks.Down, nil
	w.publishV6()
	w.outV6(tcpV6(t, insideV6, 4000, serverV6, 80, syn), 1)
	forget(w, key)
	if src, _ := endsOf(w.outV6(going, 1)); src != mapped1 {
		t.Errorf("goes on as %s", src)
	}
	w.expect(w.both.Outbound(tcpV6(t, strayV6, 4000, serverV6, 80, ack), start), Drop, NotSYN)
}

// TestNativePrefix: one provider's prefix that the LAN uses itself stays as it is by that uplink, and is translated by the other.
func TestNativePrefix(t *testing.T) {
	w := newPrefixes(t)
	host, abroad := netip.MustParseAddr("2001:db8:100:5::2"), netip.MustParseAddr("2001:db8:200:ff04::2")
	w.ups[0].V6.NPTv6 = []uplinks.NPTv6{pairOf("2001:db8:100::/48", "2001:db8:100::/48")}
	w.ups[1].V6.NPTv6 = []uplinks.NPTv6{pairOf("2001:db8:100::/48", "2001:db8:200::/48")}
	w.publishV6()
	question, answer := udpV6(t, host, 53, serverV6, 53, "x"), udpV6(t, serverV6, 53, host, 53, "y")
	if got := w.outV6(question, 1); !bytes.Equal(got, question) {
		t.Errorf("left as % x", got)
	}
	if got := w.inV6(answer, 1); !bytes.Equal(transport(got), transport(answer)) {
		t.Errorf("came as % x", got)
	}
	w.inV6(tcpV6(t, serverV6, 80, host, 22, syn), 1)
	w.expect(w.both.Outbound(udpV6(t, host, 53, netip.MustParseAddr("2001:db8:100:6::2"), 53, "x"), start), Drop, NoRoute)
	w.ups[0].V6.State = uplinks.Down
	w.publishV6()
	if src, _ := endsOf(w.outV6(udpV6(t, host, 54, serverV6, 53, "x"), 2)); src != abroad {
		t.Errorf("left by the other uplink as %s", src)
	}
	if _, dst := endsOf(w.inV6(udpV6(t, routeV6, 53, abroad, 53, "x"), 2)); dst != host {
		t.Errorf("came to %s", dst)
	}
}

// TestFTPThroughPrefixes: the client tells the server its address outside, with the port that it has, and the server connects to that.
func TestFTPThroughPrefixes(t *testing.T) {
	w := newPrefixes(t)
	w.both.SetHelpers(helped)
	from := func(seq uint32, payload string) []byte {
		return frameV6(t, insideV6, serverV6, &layers.TCP{SrcPort: 4000, DstPort: 21, Seq: seq, Ack: 501, ACK: true, Window: 100}, layers.IPProtocolTCP, payload)
	}
	w.outV6(tcpV6(t, insideV6, 4000, serverV6, 21, syn), 1)
	w.inV6(tcpV6(t, serverV6, 21, mapped1, 4000, synAck), 1)
	b := from(1001, "EPRT |2|"+insideV6.String()+"|5000|\r\n")
	res := w.both.Outbound(b, start)
	w.expect(res, Send, NoReason)
	if told := lookV6(t, b[:len(b)+int(res.Grown)]).payload; told != "EPRT |2|"+mapped1.String()+"|5000|\r\n" {
		t.Errorf("the server gets %q", told)
	}
	data := w.inV6(tcpV6(t, serverV6, 20, mapped1, 5000, syn), 1)
	if _, dst := endsOf(data); dst != insideV6 {
		t.Errorf("the server's connection goes to %s", dst)
	}
	if n := w.tableV6.Stats().Sessions; n != 2 {
		t.Errorf("%d sessions", n)
	}
}

// FuzzGatewayPrefixes is FuzzGatewayV6 with translated prefixes.
func FuzzGatewayPrefixes(f *testing.F) {
	out, in := udpV6(f, insideV6, 53, serverV6, 53, "question"), udpV6(f, serverV6, 53, mapped1, 53, "answer")
	for _, b := range [][]byte{
		out, in, udpV6(f, insideV6, 53, mapped2, 53, "turns"), udpV6(f, noSubnet, 53, serverV6, 53, "x"), echoV6(f, insideV6, serverV6, packet.ICMPv6Echo),
		echoV6(f, serverV6, mapped1, packet.ICMPv6Echo), errorV6(f, routeV6, mapped1, packet.ICMPv6TooBig, udpV6(f, mapped1, 53, serverV6, 53, "question")),
		errorV6(f, insideV6, serverV6, packet.ICMPv6Unreachable, udpV6(f, serverV6, 53, insideV6, 53, "answer")),
		extendV6(in, packet.ProtoUDP, 60), fragmentV6(in, packet.ProtoUDP, 8, false),
	} {
		f.Add(b, fragmentV6(in, packet.ProtoUDP, 0, true), false)
		f.Add(b, fragmentV6(in, packet.ProtoUDP, 0, true), true)
	}
	f.Fuzz(func(t *testing.T, one, two []byte, inbound bool) {
		w := newPrefixes(t, onePort)
		w.outV6(out, 1)
		for _, frame := range [][]byte{one, two} {
			w.fuzz(t, frame, inbound)
		}
	})
}

// TestPrefixesAllocateNothing: neither hits nor new sessions, nor what is dropped.
func TestPrefixesAllocateNothing(t *testing.T) {
	w := newPrefixes(t)
	w.outV6(udpV6(t, insideV6, 53, serverV6, 53, "x"), 1)
	next := uint16(1000)
	for name, c := range map[string]struct {
		frame  []byte
		handle func([]byte) Result
		portAt int
		want   Verdict
	}{
		"out":      {udpV6(t, insideV6, 53, serverV6, 53, "x"), func(b []byte) Result { return w.both.Outbound(b, start) }, 0, Send},
		"in":       {udpV6(t, serverV6, 53, mapped1, 53, "x"), func(b []byte) Result { return w.both.Inbound(b, 1, start) }, 0, Deliver},
		"new":      {udpV6(t, insideV6, 53, routeV6, 53, "x"), func(b []byte) Result { return w.both.Outbound(b, start) }, 2, Send},
		"unmapped": {udpV6(t, serverV6, 53, netip.MustParseAddr("2001:db8:100:ffff::1"), 53, "x"), func(b []byte) Result { return w.both.Inbound(b, 1, start) }, 0, Drop},
		"other's":  {udpV6(t, serverV6, 53, mapped2, 53, "x"), func(b []byte) Result { return w.both.Inbound(b, 1, start) }, 0, Drop},
		"reset":    {tcpV6(t, serverV6, 80, mapped1, 23, packet.RST), func(b []byte) Result { return w.both.Inbound(b, 1, start) }, 0, Drop},
	} {
		b := clone(c.frame)
		var res Result
		n := testing.AllocsPerRun(100, func() {
			copy(b, c.frame)
			if c.portAt != 0 {
				binary.BigEndian.PutUint16(transport(b)[c.portAt:], next)
				next++
			}
			res = c.handle(b)
		})
		if n != 0 || res.Verdict != c.want {
			t.Errorf("%s: %v allocations, verdict %d", name, n, res.Verdict)
		}
	}
}
