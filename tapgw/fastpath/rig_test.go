package fastpath

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
)

const (
	uplinkID   = 3
	generation = 7
	mtu        = 1400
	sessions   = 3000
	offset     = 1 << 31 // of ticks
	tickBits   = 26      // log2 of a tick in nanoseconds
	outside    = 0xc6336407
	codeNext   = 0xffffffff // TC_ACT_UNSPEC
	codeHit    = 7          // TC_ACT_REDIRECT
)

var (
	tapMAC     = [6]byte{2, 0x54, 0x41, 0x50, 0x47, 1}
	gatewayMAC = [6]byte{2, 0x54, 0x41, 0x50, 0x47, 0xfe}
	upcallMAC  = [6]byte{2, 0x54, 0x41, 0x50, 0x47, 2}
	secret     = [6]byte{0x5e, 0xc2, 0xe7, 1, 2, 3}
	seed       = [2]uint64{0x0123456789abcdef, 0xfedcba9876543210}
	usable     = Uplink{Generation: generation, Index: 1, Gateway: netip.MustParseAddr("198.51.100.1"), MTU: mtu, Usable: true}
)

// rig is a table in memory that the programs read, and its twin in ordinary memory that Go alone counts in.
type rig struct {
	*Programs
	ingress     *ebpf.Program
	table, twin *nat.Table
	memory      *nat.Memory
	plain       *nat.Memory
}

// newRig is attached to nothing: programs run, but what they redirect goes nowhere.
func newRig(t testing.TB) *rig {
	t.Helper()
	labtest.RequireRoot(t)
	p, err := Load(Config{
		Seed: seed, MaxSessions: sessions, Secret: secret, TAPMAC: tapMAC, GatewayMAC: gatewayMAC, UpcallMAC: upcallMAC,
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.Must(t, p.SetClock(offset<<tickBits))
	r := &rig{Programs: p, memory: p.Memory(), plain: plainMemory(nat.SizesFor(sessions))}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.ingress, err = p.loadIngress(variant{uplinkID, false}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ingress.Close() })
	if err := p.SetUplink(uplinkID, usable); err != nil {
		t.Fatal(err)
	}
	r.table, r.twin = newTable(t, r.memory), newTable(t, r.plain)
	return r
}

func newTable(t testing.TB, m *nat.Memory) *nat.Table {
	t.Helper()
	table, err := nat.New(nat.Config{
		MaxSessions: sessions, Ports: []nat.PortRange{{First: 1024, Last: 65535}}, ShareTCP: true,
		Timeouts: nat.DefaultTimeouts, Seed: seed, Random: rand.New(rand.NewPCG(1, 2)).Uint64, Memory: m,
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func plainMemory(s nat.Sizes) *nat.Memory {
	words := func(n int) []byte {
		w := make([]uint64, n/8)
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), n)
	}
	return &nat.Memory{
		IndexOut: words(s.Buckets * s.BucketBytes), IndexIn: words(s.Buckets * s.BucketBytes), Records: words(s.Records * s.RecordBytes),
		CountsOut: words(s.Records * s.CountersBytes), CountsIn: words(s.Records * s.CountersBytes),
	}
}

// open makes the same session in both tables.
func (r *rig) open(t testing.TB, k nat.Key) nat.Ref {
	t.Helper()
	b := nat.Binding{Uplink: uplinkID, Generation: generation, Addresses: []packet.Addr{packet.IPv4(outside)}}
	ref, err := r.table.Open(k, b, offset)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := r.twin.Open(k, b, offset)
	if err != nil {
		t.Fatal(err)
	}
	if r.table.Translation(ref) != r.twin.Translation(twin) || ref != twin {
		t.Fatal("the twin tables differ")
	}
	return ref
}

// counters is what lies in one of the counter arrays for a session.
func counters(array []byte, ref nat.Ref) []byte {
	size := nat.SizesFor(sessions).CountersBytes
	return array[int(ref)*size:][:size]
}

func seenOf(c []byte) nat.Tick { return nat.Tick(binary.NativeEndian.Uint32(c[8:])) }

// run gives a frame to a program, as a super-packet when gso is not 0.
func run(t testing.TB, p *ebpf.Program, frame []byte, gso int) (code uint32, out []byte) {
	t.Helper()
	const gsoSizeAt = 176 // in struct __sk_buff
	context := make([]byte, 192)
	binary.NativeEndian.PutUint32(context[gsoSizeAt:], uint32(gso))
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: context}
	code, err := p.Run(&o)
	if err != nil {
		t.Fatal(err)
	}
	return code, o.DataOut
}

// sample describes a packet to be built.
type sample struct {
	src, dst     uint32
	sport, dport uint16
	proto, flags uint8
	seq, ack     uint32
	payload      int
	noChecksum   bool // UDP
	trailer      int  // bytes after the IPv4 packet
}

// build makes an Ethernet frame with right checksums; its destination is the loopback's address, so that it is for us.
func (s sample) build() []byte {
	header := 8
	if s.proto == packet.ProtoTCP {
		header = 20
	}
	total := 20 + header + s.payload
	f := make([]byte, packet.EthernetLen+total+s.trailer)
	f[6], f[12] = 2, 8
	ip := f[packet.EthernetLen:]
	ip[0], ip[8], ip[9] = 0x45, 64, s.proto
	binary.BigEndian.PutUint16(ip[2:], uint16(total))
	binary.BigEndian.PutUint32(ip[12:], s.src)
	binary.BigEndian.PutUint32(ip[16:], s.dst)
	binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(0, ip[:20])))
	l4 := ip[20:total]
	binary.BigEndian.PutUint16(l4, s.sport)
	binary.BigEndian.PutUint16(l4[2:], s.dport)
	for i := range l4[header:] {
		l4[header+i] = byte(i * int(s.seq|1))
	}
	sum := l4[6:8]
	if s.proto == packet.ProtoTCP {
		binary.BigEndian.PutUint32(l4[4:], s.seq)
		binary.BigEndian.PutUint32(l4[8:], s.ack)
		l4[12], l4[13], sum = 5<<4, s.flags, l4[16:18]
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	if !s.noChecksum {
		check := ^packet.Fold(packet.Sum(packet.PseudoHeader(packet.IPv4(s.src), packet.IPv4(s.dst), s.proto, len(l4)), l4))
		if s.proto == packet.ProtoUDP && check == 0 {
			check = 0xffff
		}
		binary.BigEndian.PutUint16(sum, check)
	}
	return f
}

// reply is the sample in the other direction, to what the session is outside.
func (s sample) reply(tr *nat.Translation) sample {
	s.src, s.dst, s.sport, s.dport = tr.Remote.V4(), tr.Outside.V4(), tr.RemotePort, tr.OutsidePort
	s.seq, s.ack = s.ack, s.seq
	return s
}

func (s sample) key() nat.Key {
	return nat.Key{Inside: packet.IPv4(s.src), Remote: packet.IPv4(s.dst), InsidePort: s.sport, RemotePort: s.dport, Proto: s.proto}
}
