package fastpath

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const ip, l4 = packet.EthernetLen, packet.EthernetLen + 20 // offsets in a frame, the latter of IPv4

// spoil makes an unusual packet of one that is a hit. Checksums go wrong, which programs do not look at.
type spoil struct {
	name  string
	proto uint8 // 0 for both
	do    func(f []byte) []byte
}

// spoils are those of any family, by where its transport header lies.
func spoils(f uplinks.Family) []spoil {
	l4 := l4Of(f)
	list := []spoil{
		{"another ethertype", 0, put(12, 0x88)},
		{"another source port", 0, put(l4+1, 0xee)},
		{"another destination port", 0, put(l4+3, 0xee)},
		{"cut within the transport header", 0, func(f []byte) []byte { return f[:l4+6] }},
		{"SYN", packet.ProtoTCP, put(l4+13, packet.SYN|packet.ACK)},
		{"RST", packet.ProtoTCP, put(l4+13, packet.RST)},
		{"data offset too small", packet.ProtoTCP, put(l4+12, 4<<4)},
		{"data offset too large", packet.ProtoTCP, func(f []byte) []byte { return put(l4+12, 15<<4)(truncate(f, 20)) }},
		{"UDP length too small", packet.ProtoUDP, func(f []byte) []byte { return put(l4+5, 7)(put(l4+4, 0)(f)) }},
		{"UDP length too large", packet.ProtoUDP, put(l4+4, 0x20)},
	}
	if f == uplinks.IPv6 {
		return append(list, spoilsV6...)
	}
	return append(list, spoilsV4...)
}

var spoilsV4 = []spoil{
	{"first fragment", 0, put(ip+6, 0x20)},
	{"later fragment", 0, put(ip+7, 0x01)},
	{"options", 0, func(f []byte) []byte {
		f[ip]++
		binary.BigEndian.PutUint16(f[ip+2:], binary.BigEndian.Uint16(f[ip+2:])+4)
		return slices.Insert(f, l4, 1, 1, 1, 1)
	}},
	{"another version", 0, put(ip, 0x65)},
	{"the other ethertype", 0, func(f []byte) []byte { return put(12, 0x86)(put(13, 0xdd)(f)) }},
	{"ICMP", 0, put(ip+9, packet.ProtoICMP)},
	{"another protocol", 0, put(ip+9, 132)},
	{"another source", 0, put(ip+15, 0xee)},
	{"another destination", 0, put(ip+19, 0xee)},
	{"longer than the frame", 0, put(ip+2, 0x05)},
	{"shorter than its headers", 0, func(f []byte) []byte { return put(ip+3, 27)(put(ip+2, 0)(f)) }},
}

var spoilsV6 = []spoil{
	{"hop-by-hop options", 0, extended(0)},
	{"routing", 0, extended(43)},
	{"fragment", 0, extended(44)},
	{"destination options", 0, extended(60)},
	{"another version", 0, put(ip, 0x45)},
	{"the other ethertype", 0, func(f []byte) []byte { return put(12, 0x08)(put(13, 0)(f)) }},
	{"ICMPv6", 0, put(ip+6, packet.ProtoICMPv6)},
	{"another protocol", 0, put(ip+6, 132)},
	{"another source, upper half", 0, put(ip+15, 0xee)},
	{"another source, lower half", 0, put(ip+23, 0xee)},
	{"another destination, upper half", 0, put(ip+31, 0xee)},
	{"another destination, lower half", 0, put(ip+39, 0xee)},
	{"longer than the frame", 0, put(ip+4, 0x05)},
	{"shorter than its headers", 0, func(f []byte) []byte { return put(ip+5, 7)(put(ip+4, 0)(f)) }},
	{"a jumbogram", 0, func(f []byte) []byte { return put(ip+5, 0)(put(ip+4, 0)(f)) }},
}

// extended is a frame of IPv6 with an extension header of eight bytes in front of its payload.
func extended(header byte) func([]byte) []byte {
	return func(f []byte) []byte {
		next := f[ip+6]
		f[ip+6] = header
		binary.BigEndian.PutUint16(f[ip+4:], binary.BigEndian.Uint16(f[ip+4:])+8)
		return slices.Insert(f, ip+40, next, 0, 0, 0, 0, 0, 0, 0)
	}
}

func put(at int, v byte) func([]byte) []byte {
	return func(f []byte) []byte { f[at] = v; return f }
}

// truncate leaves a transport header of so many bytes and no payload.
func truncate(f []byte, header int) []byte {
	if f[ip]>>4 == 6 {
		binary.BigEndian.PutUint16(f[ip+4:], uint16(header))
		return f[:ip+40+header]
	}
	binary.BigEndian.PutUint16(f[ip+2:], uint16(20+header))
	return f[:l4+header]
}

// samples are a TCP and a UDP packet whose ports and addresses differ in every byte that is spoilt.
func samples() []sample { return samplesOf(uplinks.IPv4) }

func samplesOf(f uplinks.Family) []sample {
	tcp := sample{
		family: f, src: 0x0a000002, dst: 0x08080808, sport: 40000, dport: 443, proto: packet.ProtoTCP, flags: packet.ACK, seq: 5, ack: 6,
		payload: 100,
	}
	udp := tcp
	udp.proto = packet.ProtoUDP
	return []sample{tcp, udp}
}

func TestMisses(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for _, s := range samplesOf(rig.family) {
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			rig.mustHit(t, s, ref)
			for _, spoil := range spoils(rig.family) {
				if spoil.proto != 0 && spoil.proto != s.proto {
					continue
				}
				t.Run(spoil.name, func(t *testing.T) {
					rig.mustMiss(t, ref, true, spoil.do(s.build()), 0)
					rig.mustMiss(t, ref, false, spoil.do(s.reply(&tr).build()), 0)
				})
			}
		}
	})
}

func (r *rig) mustHit(t *testing.T, s sample, ref nat.Ref) {
	t.Helper()
	tr := r.table.Translation(ref)
	if code, _ := run(t, r.egress, s.build(), 0); code != codeHit {
		t.Fatalf("outbound: code %d, want a hit", int32(code))
	}
	if code, _ := run(t, r.ingress, s.reply(&tr).build(), 0); code != codeHit {
		t.Fatalf("inbound: code %d, want a hit", int32(code))
	}
}

// mustMiss reports a packet that does not go on as it is, or is counted.
func (r *rig) mustMiss(t *testing.T, ref nat.Ref, out bool, frame []byte, gso int) {
	t.Helper()
	program, array := r.ingress, r.memory.CountsIn
	if out {
		program, array = r.egress, r.memory.CountsOut
	}
	before := slices.Clone(counters(array, ref))
	code, got := run(t, program, frame, gso)
	if code != codeNext || !bytes.Equal(got, frame) {
		t.Errorf("outbound %v: code %d, changed %v", out, int32(code), !bytes.Equal(got, frame))
	}
	if !bytes.Equal(counters(array, ref), before) {
		t.Errorf("outbound %v: a miss was counted", out)
	}
}

// TestTooBig: what the uplink cannot carry is a packet, or a segment of a super-packet. Replies have arrived already.
func TestTooBig(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for _, s := range samplesOf(rig.family) {
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			header := s.headers()
			for _, c := range []struct {
				length, gso int
				hit         bool
			}{
				{mtu, 0, true}, {mtu + 1, 0, false}, {3000, mtu - header, true}, {3000, mtu - header + 1, false},
			} {
				s.payload = c.length - header
				if code, _ := run(t, rig.egress, s.build(), c.gso); (code == codeHit) != c.hit {
					t.Errorf("protocol %d, %d bytes in segments of %d: code %d", s.proto, c.length, c.gso, int32(code))
				}
				if code, _ := run(t, rig.ingress, s.reply(&tr).build(), c.gso); code != codeHit {
					t.Errorf("reply of protocol %d, %d bytes in segments of %d: code %d", s.proto, c.length, c.gso, int32(code))
				}
			}
			checkCounted(t, counters(rig.memory.CountsOut, ref), mtu+3000, 1+(3000+mtu-header-1)/(mtu-header))
		}
	})
}

func checkCounted(t *testing.T, c []byte, bytes, packets int) {
	t.Helper()
	gotBytes, gotPackets := binary.NativeEndian.Uint64(c)&(1<<56-1), binary.NativeEndian.Uint32(c[12:])
	if gotBytes != uint64(bytes) || gotPackets != uint32(packets) {
		t.Errorf("counted %d bytes in %d packets, want %d in %d", gotBytes, gotPackets, bytes, packets)
	}
}

// TestUplink: what the uplink is now decides about hits, for all its sessions at once.
func TestUplink(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for _, s := range samplesOf(rig.family) {
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			stale, down := usable, usable
			stale.Generation++
			down.Usable = false
			rig.set(t, stale)
			rig.mustMiss(t, ref, true, s.build(), 0)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
			rig.set(t, down)
			rig.mustMiss(t, ref, true, s.build(), 0)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
			rig.set(t, usable)
			rig.mustHit(t, s, ref)
		}
	})
}

// TestOtherUplink: a reply by another uplink than the session's is no hit, even if all addresses and ports are equal.
func TestOtherUplink(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		other, err := rig.loadIngress(variant{uplinkID + 1, false})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Close() })
		rig.ingress.Close()
		rig.ingress = other
		for _, s := range samplesOf(rig.family) {
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
		}
	})
}

// TestSessionOver: sessions that are over are Go's, which alone knows what revives them.
func TestSessionOver(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for i, s := range samplesOf(rig.family) {
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			rig.mustHit(t, s, ref)
			if s.proto == packet.ProtoTCP {
				fin := s
				fin.flags |= packet.FIN
				rig.mustHit(t, fin, ref)
				fin.flags, fin.ack = packet.ACK, s.ack+uint32(s.payload)+1
				run(t, rig.egress, fin.build(), 0)
				for range rig.table.Sessions { // makes the state what the programs have shown
				}
				if got := rig.table.Translation(ref).State; got != nat.TCPClosed {
					t.Fatalf("state %v after FIN of both sides and the last acknowledgement, want %v", got, nat.TCPClosed)
				}
				rig.mustMiss(t, ref, true, s.build(), 0)
				rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
			}
			rig.table.Purge(uplinkID, generation+1, nat.Tick(offset+i))
			rig.mustMiss(t, ref, true, s.build(), 0)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
		}
	})
}

// TestHelped: packets that a helper must see are no hits in either direction, until it needs to see no more.
func TestHelped(t *testing.T) {
	eachBound(t, func(b *nat.Binding) { b.Helped = true }, func(rig *rig, s sample, ref nat.Ref) {
		rig.table.EndHelp(ref)
		rig.mustHit(t, s, ref)
	})
}

// TestUnanswered: the next packet of a session that has gone unanswered for long is Go's, as is the first that comes back.
func TestUnanswered(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for _, s := range samplesOf(rig.family) {
			if s.proto != packet.ProtoUDP {
				continue
			}
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			rig.table.Doubt(ref)
			rig.mustMiss(t, ref, true, s.build(), 0)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
			rig.table.Trust(ref)
			rig.mustHit(t, s, ref)
		}
	})
}

// TestTurned: packets to an outside endpoint of ours are no hits in either direction.
func TestTurned(t *testing.T) {
	eachBound(t, func(b *nat.Binding) { b.Turned = true }, func(*rig, sample, nat.Ref) {})
}

// eachBound opens each sample with a changed binding, which makes its packets no hits, and goes on with it.
func eachBound(t *testing.T, change func(*nat.Binding), then func(*rig, sample, nat.Ref)) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for _, s := range samplesOf(rig.family) {
			b := rig.binding()
			change(&b)
			ref, err := rig.table.Open(s.key(), b, offset)
			if err != nil {
				t.Fatal(err)
			}
			tr := rig.table.Translation(ref)
			rig.mustMiss(t, ref, true, s.build(), 0)
			rig.mustMiss(t, ref, false, s.reply(&tr).build(), 0)
			then(rig, s, ref)
		}
	})
}
