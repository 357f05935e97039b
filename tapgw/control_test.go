package tapgw

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// TestActiveFTP: the server is told an outside endpoint, all later numbers fit, and its connection comes to the client.
func TestActiveFTP(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	d.answer("220 Hello\r\n")
	for i, line := range []string{"USER anonymous\r\n", "TYPE I\r\n"} {
		if got := d.say(line); got != line {
			t.Errorf("line %d became %q", i, got)
		}
		d.answer("200 Fine\r\n")
	}
	for port := uint16(1025); port < 1040; port++ { // commands become longer and shorter
		data := d.active(port)
		d.answer("200 PORT\r\n")
		b := tcpFrame(t, server, 20, wan1, data, syn, "")
		s := w.delivered(w.in(b, 1), b)
		if s.dst() != inside || uint16(s.tcp.DstPort) != port {
			t.Fatalf("the data connection goes to %v port %d, not %d", s.ip.DstIP, s.tcp.DstPort, port)
		}
		reply := tcpFrame(t, inside, port, server, 20, synAck, "")
		if s := w.sent(w.out(reply), reply, 1); uint16(s.tcp.SrcPort) != data {
			t.Fatalf("its answer comes from port %d, not %d", s.tcp.SrcPort, data)
		}
		ref := w.table.FindOut(nat.Key{Inside: inside, InsidePort: port, Remote: server, RemotePort: 20, Proto: packet.ProtoTCP})
		if tr := w.table.Translation(ref); policy.Reason(tr.Reason) != policy.ReasonRelated || tr.Helped {
			t.Errorf("the data connection is %+v", tr)
		}
		if got := d.say("NOOP\r\n"); got != "NOOP\r\n" {
			t.Errorf("a command behind PORT became %q", got)
		}
	}
	if s := &w.g.helpers.count; s.announced.Load() != 15 || s.opened.Load() != 15 || s.changed.Load() != 15 || s.refused.Load() != 0 {
		t.Errorf("%d announced, %d opened, %d changed, %d refused", s.announced.Load(), s.opened.Load(), s.changed.Load(), s.refused.Load())
	}
}

// TestOneRelatedConnection: only the server of the control session may come, with a SYN, once and in time.
func TestOneRelatedConnection(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	data := d.active(5000)
	for name, b := range map[string][]byte{
		"another host": tcpFrame(t, router, 20, wan1, data, syn, ""), "no SYN": tcpFrame(t, server, 20, wan1, data, ack, "x"),
		"an answer": tcpFrame(t, server, 20, wan1, data, synAck, ""),
	} {
		if res := w.in(b, 1); res.Verdict != Drop {
			t.Errorf("%s: verdict %d", name, res.Verdict)
		}
	}
	if res := w.in(tcpFrame(t, server, 20, wan1, data, syn, ""), 2); res.Verdict == Deliver {
		t.Error("it came by another uplink")
	}
	b := tcpFrame(t, server, 20, wan1, data, syn, "")
	w.delivered(w.in(b, 1), b)
	w.expect(w.in(tcpFrame(t, server, 22, wan1, data, syn, ""), 1), Drop, Filtered)

	data = d.active(5001)
	late := start + nat.TickOf(relatedTime+time.Second)
	w.g.SweepHelpers(late)
	w.expect(w.g.Inbound(tcpFrame(t, server, 20, wan1, data, syn, ""), 1, late), Drop, NoSession)
	if got := w.table.Owned(1, packet.ProtoTCP, wan1, data); got != nat.Resting {
		t.Errorf("the port is %v after the time was over", got)
	}
}

// TestPassiveFTP: the client's connection to the port that the server tells goes by the uplink of the control session.
func TestPassiveFTP(t *testing.T) {
	w := newHelpedWorld(t)
	w.ups[0].State = uplinks.Down
	w.publish()
	d := connect(w, 4000, 21)
	w.ups[0].State = uplinks.Up
	w.publish()
	if d.uplink != 2 {
		t.Fatalf("the control session is on uplink %d", d.uplink)
	}
	if got := d.answer("227 Entering Passive Mode (203,0,113,1,200,1)\r\n"); got != "227 Entering Passive Mode (203,0,113,1,200,1)\r\n" {
		t.Errorf("the client gets %q", got)
	}
	if _, uplink := w.open(tcpFrame(t, inside, 4001, server, 51201, syn, "")); uplink != 2 {
		t.Errorf("the data connection is on uplink %d", uplink)
	}
	for name, b := range map[string][]byte{
		"once more": tcpFrame(t, inside, 4002, server, 51201, syn, ""), "another host": tcpFrame(t, other, 4003, server, 51201, syn, ""),
		"another port": tcpFrame(t, inside, 4004, server, 51202, syn, ""),
	} {
		if _, uplink := w.open(b); uplink != 1 {
			t.Errorf("%s: on uplink %d", name, uplink)
		}
	}
	d.answer("229 Extended (|||51203|)\r\n")
	w.ups[1].State = uplinks.Down
	w.publish()
	if _, uplink := w.open(tcpFrame(t, inside, 4005, server, 51203, syn, "")); uplink != 1 {
		t.Error("the data connection is on an uplink that is down")
	}
}

// TestBounceAttack: nobody else's address, and no service's port, is told to a server (RFC 2577 §3).
func TestBounceAttack(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	for _, line := range []string{"PORT 10,0,0,3,19,136\r\n", "PORT 203,0,113,1,19,136\r\n", "PORT 10,0,0,2,0,22\r\n", "EPRT |1|10.0.0.2|80|\r\n"} {
		if got := d.say(line); got != line {
			t.Errorf("%q became %q", line, got)
		}
	}
	if s := w.table.Stats(); s.Mappings != 1 {
		t.Errorf("%d mappings", s.Mappings)
	}
}

// TestCommandsSentAgain: they are changed in the same way, alone and with what follows, until they are acknowledged.
func TestCommandsSentAgain(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	seq, at := d.client, d.seenS
	const line = "PORT 10,0,0,2,19,136\r\n"
	first := d.say(line)
	if first == line {
		t.Fatal("it was not changed")
	}
	for name, payload := range map[string]string{"alone": line, "with more": line + "NOOP\r\n", "again with more": line + "NOOP\r\n"} {
		s := d.send(d.frame(true, ack, seq, d.seenC, payload))
		if got := string(s.tcp.Payload); got != first+payload[len(line):] || s.tcp.Seq != at {
			t.Errorf("%s: %q at %d, not %d", name, got, s.tcp.Seq, at)
		}
	}
	for cut := 1; cut < len(line); cut++ { // cut anew: the place is sent as a whole, or not at all
		head := d.send(d.frame(true, ack, seq, d.seenC, line[:cut]))
		tail := d.send(d.frame(true, ack, seq+uint32(cut), d.seenC, line[cut:]))
		if got := string(head.tcp.Payload) + string(tail.tcp.Payload); got != first || tail.tcp.Seq != head.tcp.Seq+uint32(len(head.tcp.Payload)) {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
	w.expect(w.out(d.frame(true, ack, seq+100, d.seenC, "QUIT\r\n")), Drop, HelperWaits) // behind a gap
	d.client = seq + uint32(len(line)+len("NOOP\r\n"))
	d.seenS = at + uint32(len(first)+len("NOOP\r\n"))
	d.answer("200 PORT\r\n200 NOOP\r\n")
	if got := d.say("QUIT\r\n"); got != "QUIT\r\n" {
		t.Errorf("the client's last command became %q", got)
	}
}

// TestSelectiveAcknowledgements: their numbers are moved like all others, wherever the option lies.
func TestSelectiveAcknowledgements(t *testing.T) {
	for _, pad := range []int{0, 1, 2, 3} {
		w := newHelpedWorld(t)
		d := connect(w, 4000, 21)
		told := d.seenS
		own := d.client
		d.active(1100) // lost on its way, unlike what follows
		d.say("NOOP\r\n")
		for range pad {
			d.options = append(d.options, layers.TCPOption{OptionType: layers.TCPOptionKindNop})
		}
		block := binary.BigEndian.AppendUint32(nil, d.seenS-6)
		d.options = append(d.options, layers.TCPOption{
			OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: binary.BigEndian.AppendUint32(block, d.seenS),
		})
		s := d.deliver(d.frame(false, ack, d.server, told, ""))
		if s.tcp.Ack != own {
			t.Errorf("it acknowledges %d, not %d", s.tcp.Ack, own)
		}
		i := slices.IndexFunc(s.tcp.Options, func(o layers.TCPOption) bool { return o.OptionType == layers.TCPOptionKindSACK })
		data := s.tcp.Options[i].OptionData
		if l, r := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]); l != d.client-6 || r != d.client {
			t.Errorf("padding %d: block %d to %d, not %d to %d", pad, l, r, d.client-6, d.client)
		}
	}
}

// TestGrownSegments: a segment that grows beyond the MTU is one for the device to cut; a datagram is cut.
func TestGrownSegments(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 7)
	for _, n := range []int{10, 1459, 1460} {
		text := strings.Repeat("a?", n/2) + strings.Repeat("?", n%2)
		b := d.frame(true, ack, d.client, d.seenC, text)
		res := w.out(b)
		b = b[:len(b)+int(res.Grown)]
		s := w.sent(res, b, 1)
		want := strings.ReplaceAll(text, "?", "!") + "!!"
		if got := string(s.tcp.Payload); got != want {
			t.Errorf("%d bytes became %d", n, len(got))
		}
		v := packet.VnetHeader(b)
		if cut := len(want) > 1460; cut != (v.GSOType() == packet.GSOTCPv4) || cut && (int(v.GSOSize()) != n || v.HdrLen() != 54 || v.CsumStart() != 34 || !v.NeedsCsum()) {
			t.Errorf("%d bytes that became %d have the virtio header %v", n, len(want), b[:packet.VnetLen])
		}
		d.client, d.seenS = d.client+uint32(n), d.seenS+uint32(len(want))
		d.answer("x")
	}
	text := strings.Repeat("a", 1471) + "?"
	h := ip(inside, server, protoUDP)
	h.Flags = layers.IPv4DontFragment
	b := slices.Grow(build(t, h, &layers.UDP{SrcPort: 4001, DstPort: 7}, gopacket.Payload(text)), room)
	res := w.out(b)
	w.expect(res, Send, NoReason)
	if len(res.Pieces) != 2 {
		t.Fatalf("%d pieces", len(res.Pieces))
	}
	s := look(t, join(t, res.Pieces))
	if got := s.data[8:]; string(got) != strings.Repeat("a", 1471)+"!!!" {
		t.Errorf("the datagram became %q", got[len(got)-10:])
	}
}

// TestUnfinishedChecksums: what the kernel leaves to the device stays left to it, in super-packets too.
func TestUnfinishedChecksums(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 7)
	for _, text := range []string{"what?", strings.Repeat("abc", 5000) + "?"} {
		b := partial(d.frame(true, ack, d.client, d.seenC, text))
		if len(text) > 1460 {
			b[1] = packet.GSOTCPv4
			packet.VnetHeader(b).SetGSOSize(1460)
		}
		s := d.send(b)
		if got := string(s.tcp.Payload); got != text[:len(text)-1]+"!!!" {
			t.Errorf("%d bytes became %d", len(text), len(got))
		}
		d.client, d.seenS = d.client+uint32(len(text)), d.seenS+uint32(len(text)+2)
	}
	const datagram = "how?"
	b := partial(slices.Grow(udpFrame(t, inside, 4001, server, 7, datagram), room))
	res := w.out(b)
	if s := w.sent(res, b[:len(b)+int(res.Grown)], 1); string(s.udp.Payload) != "how!!!" {
		t.Errorf("the datagram became %q", s.udp.Payload)
	}
}

// TestUnsoundSegments: what the receiver would not take must not change what is known of the stream.
func TestUnsoundSegments(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	b := d.frame(true, ack, d.client, d.seenC, "PORT 10,0,0,2,19,136\r\n")
	b[len(b)-1] ^= 1
	w.expect(w.out(b), Drop, HelperWaits)
	for _, f := range cut(t, d.frame(true, ack, d.client, d.seenC, "PORT 10,0,0,2,19,136\r\n"), 24) {
		if res := w.out(f); res.Verdict == Send {
			t.Error("a part of a segment went on")
		}
	}
	d.active(5000)
}

// TestBlindSegments: a SYN from outside does not make the gateway forget how the numbers differ (RFC 5961 §4).
func TestBlindSegments(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	d.active(1100)
	w.in(d.frame(false, syn, 77, 0, ""), 1)
	w.in(d.frame(false, synAck, 77, 99, ""), 1)
	d.answer("200 PORT\r\n")
	d.say("NOOP\r\n")
}

// TestConnectionAgain: another connection of the same addresses and ports begins with numbers of its own.
func TestConnectionAgain(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	d.active(1100)
	d.answer("200 PORT\r\n")
	d.send(d.frame(true, ack|packet.FIN, d.client, d.seenC, ""))
	d.client, d.seenS = d.client+1, d.seenS+1
	d.deliver(d.frame(false, ack|packet.FIN, d.server, d.seenS, ""))
	d = connect(w, 4000, 21)
	d.say("USER x\r\n")
	d.active(1101)
	d.answer("200 PORT\r\n")
}

// TestTLSTakesTheFastPath: a session that a helper cannot read becomes an ordinary one, unless its numbers were moved.
func TestTLSTakesTheFastPath(t *testing.T) {
	for _, moved := range []bool{false, true} {
		w := newHelpedWorld(t)
		d := connect(w, 4000, 21)
		if moved {
			d.active(1100)
		}
		d.answer("200 Fine\r\n")
		d.say("AUTH TLS\r\n")
		d.answer("234 Go on\r\n")
		d.say("\x16\x03\x01PORT 10,0,0,2,19,136\r\n")
		d.answer("\x16\x03\x03")
		ref := w.table.FindOut(nat.Key{Inside: inside, InsidePort: 4000, Remote: server, RemotePort: 21, Proto: packet.ProtoTCP})
		if got := w.table.Translation(ref).Helped; got != moved {
			t.Errorf("numbers moved %v: helped %v", moved, got)
		}
	}
}

// TestEndedControlSessions: what they announced goes with them.
func TestEndedControlSessions(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	data := d.active(5000)
	d.answer("229 Extended (|||51203|)\r\n")
	w.table.End(nat.Key{Inside: inside, InsidePort: 4000, Remote: server, RemotePort: 21, Proto: packet.ProtoTCP}, start)
	w.g.SweepHelpers(start)
	h := w.g.helpers
	if len(h.controls) > 0 || len(h.expected) > 0 || h.waiting.Load() != 0 {
		t.Errorf("%d control sessions, %d expected", len(h.controls), len(h.expected))
	}
	if got := w.table.Owned(1, packet.ProtoTCP, wan1, data); got != nat.Resting {
		t.Errorf("the port of the data connection is %v", got)
	}
}

// TestHelpersAreBounded: control sessions, and what each of them announces.
func TestHelpersAreBounded(t *testing.T) {
	w := newHelpedWorld(t)
	d := connect(w, 4000, 21)
	for port := range uint16(2 * maxRelatedOfOne) {
		d.active(2000 + port)
		d.answer("200 PORT\r\n")
	}
	if n := len(w.g.helpers.expected); n != maxRelatedOfOne {
		t.Errorf("%d are expected", n)
	}
	if s := w.table.Stats(); s.Mappings != maxRelatedOfOne+1 {
		t.Errorf("%d mappings", s.Mappings)
	}
	for port := range uint16(maxControls + 10) {
		w.open(tcpFrame(t, other, 2000+port, server, 21, syn, ""))
	}
	if n := len(w.g.helpers.controls); n != maxControls {
		t.Errorf("%d are followed", n)
	}
	if n := w.g.helpers.count.unhelped.Load(); n != 11 {
		t.Errorf("%d went unhelped", n)
	}
}

// TestTFTP: the answer comes from a port that nobody knew, to the port of the request.
func TestTFTP(t *testing.T) {
	w := newHelpedWorld(t)
	w.table.SetFiltering(nat.Filtering{})
	port, _ := w.open(udpFrame(t, inside, 4000, server, 69, "\x00\x01file\x00octet\x00"))
	w.expect(w.in(udpFrame(t, router, 3000, wan1, port, "\x00\x03\x00\x01data"), 1), Drop, Filtered)
	for range 2 {
		b := udpFrame(t, server, 3000, wan1, port, "\x00\x03\x00\x01data")
		if s := w.delivered(w.in(b, 1), b); s.dst() != inside || s.udp.DstPort != 4000 {
			t.Errorf("the data go to %v port %d", s.ip.DstIP, s.udp.DstPort)
		}
	}
	w.expect(w.in(udpFrame(t, server, 3001, wan1, port, "x"), 1), Drop, Filtered)
}

// By default, no payload of UDP is changed, whatever it looks like (RFC 4787 REQ-10).
func TestOnlyHelpedPayloadsChange(t *testing.T) {
	w := newWorld(t)
	for _, remote := range []uint16{21, 69, 7, 5060} {
		const text = "PORT 10,0,0,2,19,136\r\nWhat?"
		b := udpFrame(t, inside, 4000, server, remote, text)
		if s := w.sent(w.out(b), b, 1); string(s.udp.Payload) != text {
			t.Errorf("to port %d: %q", remote, s.udp.Payload)
		}
		b = tcpFrame(t, inside, 4001, server, remote, syn, text)
		if s := w.sent(w.out(b), b, 1); string(s.tcp.Payload) != text {
			t.Errorf("to port %d: %q", remote, s.tcp.Payload)
		}
	}
}
