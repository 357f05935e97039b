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
	"tapgw/uplinks"
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
	usable     = Uplink{Generation: generation, Index: 1, MTU: mtu, Usable: true}
	nextHops   = [...]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("fe80::1")} // by family
)

// rig is a table in memory that the programs read, and its twin in ordinary memory that Go alone counts in.
type rig struct {
	*Programs
	family      uplinks.Family
	ingress     *ebpf.Program
	table, twin *nat.Table
	memory      *nat.Memory
	plain       *nat.Memory
}

func familyName(f uplinks.Family) string { return [...]string{"IPv4", "IPv6"}[f] }

// eachFamily runs a test with a rig of either.
func eachFamily(t *testing.T, test func(*testing.T, *rig)) {
	for _, f := range uplinks.Families {
		t.Run(familyName(f), func(t *testing.T) { test(t, newRigOf(t, f)) })
	}
}

// newRig is one for IPv4.
func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigOf(t, uplinks.IPv4)
}

// newRigOf is attached to nothing: programs run, but what they redirect goes nowhere.
func newRigOf(t testing.TB, f uplinks.Family) *rig {
	t.Helper()
	labtest.RequireRoot(t)
	p, err := Load(Config{
		Seed: seed, MaxSessions: sessions, MaxSessionsV6: sessions, Secret: secret, TAPMAC: tapMAC, GatewayMAC: gatewayMAC, UpcallMAC: upcallMAC,
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.Must(t, p.SetClock(offset<<tickBits))
	r := &rig{Programs: p, family: f, memory: p.memory(f), plain: plainMemory(nat.SizesFor(sessions))}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.ingress, err = p.loadIngress(variant{uplinkID, false}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ingress.Close() })
	r.set(t, usable)
	r.table, r.twin = newTable(t, f, r.memory), newTable(t, f, r.plain)
	return r
}

// set tells the programs what the uplink of the sessions is now.
func (r *rig) set(t testing.TB, u Uplink) {
	t.Helper()
	u.Gateway = nextHops[r.family]
	labtest.Must(t, r.SetUplink(uplinkID, r.family, u))
}

func newTable(t testing.TB, f uplinks.Family, m *nat.Memory) *nat.Table {
	t.Helper()
	table, err := nat.New(nat.Config{
		IPv6: f == uplinks.IPv6, MaxSessions: sessions, Ports: []nat.PortRange{{First: 1024, Last: 65535}}, ShareTCP: true,
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
		Wide:      words(s.Records * s.WideBytes),
		CountsOut: words(s.Records * s.CountersBytes), CountsIn: words(s.Records * s.CountersBytes),
	}
}

// binding is to the uplink of the sessions.
func (r *rig) binding() nat.Binding {
	return nat.Binding{Uplink: uplinkID, Generation: generation, Addresses: []packet.Addr{addressOf(r.family, outside)}}
}

// open makes the same session in both tables.
func (r *rig) open(t testing.TB, k nat.Key) nat.Ref {
	t.Helper()
	b := r.binding()
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
