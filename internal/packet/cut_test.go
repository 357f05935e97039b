package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

// buffer puts an empty virtio header before a frame.
func buffer(frame []byte) []byte { return append(make([]byte, VnetLen), frame...) }

// assemble puts fragments together as a host does, and returns the payload of the datagram. It fails where one is too large, has
// a bad checksum or is not where the one before ended.
func assemble(t interface{ Fatalf(string, ...any) }, pieces [][]byte, mtu, from int, last bool) (payload []byte) {
	for i, b := range pieces {
		ip := b[VnetLen+EthernetLen:]
		n, field := int(ip[0]&15)*4, binary.BigEndian.Uint16(ip[6:])
		offset, more := int(field&0x1fff)*8, field&0x2000 != 0
		switch {
		case len(ip) > mtu || len(ip) != int(binary.BigEndian.Uint16(ip[2:])):
			t.Fatalf("piece %d: %d bytes, MTU %d", i, len(ip), mtu)
		case sumBytes(ip[:n]) != 0xffff:
			t.Fatalf("piece %d: header checksum", i)
		case offset != from+len(payload):
			t.Fatalf("piece %d: offset %d after %d bytes", i, offset, len(payload))
		case more == (last && i == len(pieces)-1):
			t.Fatalf("piece %d of %d: more %v", i, len(pieces), more)
		}
		payload = append(payload, ip[n:]...)
	}
	return payload
}

// A datagram that was cut, and whose pieces were cut again, is the same when put together.
func TestCutPiecesAreTheDatagram(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 100, 4000).Draw(rt, "data")
		frame := build(rt, 17, nil, &layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload(data))
		var p Packet
		p.Decode(frame)
		if sum := frame[p.L4+6:][:2]; sum[0]|sum[1] == 0 { // gopacket does not know RFC 768's rule
			sum[0], sum[1] = 0xff, 0xff
		}
		want := bytes.Clone(frame[p.L4:])
		b := buffer(frame)
		if rapid.Bool().Draw(rt, "partial") {
			h := VnetHeader(b)
			h[0] = VnetNeedsCsum
			h.SetCsumStart(p.L4)
			h[8] = 6
			seed := Fold(PseudoHeader(p.Src, p.Dst, ProtoUDP, len(want)))
			binary.BigEndian.PutUint16(b[VnetLen+int(p.L4)+6:], seed)
		}
		mtu := rapid.IntRange(68, 1500).Draw(rt, "MTU")
		pieces := Cut(b, &p, mtu)
		if got := assemble(rt, pieces, mtu, 0, true); !bytes.Equal(got, want) {
			rt.Fatalf("%d pieces are another datagram", len(pieces))
		}
		smaller := rapid.IntRange(68, mtu).Draw(rt, "smaller MTU")
		var all [][]byte
		for _, f := range pieces {
			var q Packet
			q.Decode(f[VnetLen:])
			all = append(all, Cut(f, &q, smaller)...)
		}
		if got := assemble(rt, all, smaller, 0, true); !bytes.Equal(got, want) {
			rt.Fatalf("%d pieces of pieces are another datagram", len(all))
		}
	})
}

// RFC 791 §3.1: an option is in all fragments or in the first alone, as its type says.
func TestOptionsOfFragments(t *testing.T) {
	frame := build(t, 17, func(ip *layers.IPv4) {
		ip.Options = []layers.IPv4Option{
			{OptionType: 1}, {OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}},
			{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 9}}, {OptionType: 0},
		}
	}, gopacket.Payload(make([]byte, 200)))
	var p Packet
	p.Decode(frame)
	pieces := Cut(buffer(frame), &p, 100)
	for i, f := range pieces {
		var q Packet
		q.Decode(f[VnetLen:])
		want := []byte{148, 4, 0, 9}
		if i == 0 {
			want = frame[34:p.L4]
		}
		if got := f[VnetLen+34 : VnetLen+int(q.L4)]; !bytes.Equal(got, want) {
			t.Errorf("piece %d has options % x, want % x", i, got, want)
		}
	}
	if len(pieces) != 3 {
		t.Errorf("%d pieces", len(pieces))
	}
}

func TestCutWithoutRoom(t *testing.T) {
	frame := build(t, 17, nil, gopacket.Payload(make([]byte, 200)))
	var p Packet
	p.Decode(frame)
	if Cut(buffer(frame), &p, 27) != nil {
		t.Error("cut for an MTU without room for payload")
	}
	b := buffer(frame)
	h := VnetHeader(b)
	h[0] = VnetNeedsCsum
	h.SetCsumStart(uint16(len(frame) - 1))
	if Cut(b, &p, 100) != nil {
		t.Error("a checksum beyond the frame was completed")
	}
}

// FuzzCut: whatever the header says, the pieces are sound, and together they are the payload.
func FuzzCut(f *testing.F) {
	f.Add(build(f, 17, nil, &layers.UDP{SrcPort: 1}, gopacket.Payload(make([]byte, 300))), uint16(100))
	f.Add(build(f, 1, func(ip *layers.IPv4) {
		ip.FragOffset, ip.Flags = 100, layers.IPv4MoreFragments
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	}, gopacket.Payload(make([]byte, 160))), uint16(68))
	f.Fuzz(func(t *testing.T, frame []byte, mtu uint16) {
		var p Packet
		p.Decode(frame)
		switch p.Kind {
		case Malformed, NotIP, ARP:
			return
		}
		mtu = max(mtu, 68)
		at := p.Place(frame)
		if p.DontFragment || int(p.Len) <= int(mtu) || at.Offset+at.Len > maxDatagram-minIPv4 || at.More && at.Len%8 != 0 {
			return
		}
		want := bytes.Clone(frame[p.L4 : int(p.L3)+int(p.Len)])
		got := assemble(t, Cut(buffer(frame), &p, int(mtu)), int(mtu), at.Offset, !at.More)
		if !bytes.Equal(got, want) {
			t.Fatal("another payload")
		}
	})
}
