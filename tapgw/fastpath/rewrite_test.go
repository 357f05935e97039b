package fastpath

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// random makes a packet of an inside host that can be a hit.
func random(f uplinks.Family, r *rand.Rand) sample {
	s := sample{
		family: f,
		src:    0x0a000000 | r.Uint32()>>8, dst: 0x08000000 | r.Uint32()>>6, sport: uint16(r.Uint32()), dport: uint16(r.Uint32()),
		proto: packet.ProtoUDP, seq: r.Uint32(), ack: r.Uint32(), payload: r.IntN(mtu - 60 + 1), noChecksum: r.IntN(4) == 0,
	}
	if r.IntN(8) == 0 {
		s.payload, s.trailer = r.IntN(3), 18 // an Ethernet frame that was padded
	}
	if r.IntN(2) == 0 {
		s.proto, s.noChecksum = packet.ProtoTCP, false
		s.flags = []uint8{packet.ACK, packet.ACK | packet.PSH, 0, packet.ACK | packet.FIN}[r.IntN(4)]
	}
	return s
}

// TestAsGo gives the same packets to Go and to the programs: what comes out and what is counted must be identical. The
// table is nearly full, so all slots and both buckets of the indexes are met.
func TestAsGo(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		r := rand.New(rand.NewPCG(3, 4))
		samples := make([]sample, sessions*9/10)
		refs := make([]nat.Ref, len(samples))
		for i := range samples {
			samples[i] = random(rig.family, r)
			refs[i] = rig.open(t, samples[i].key())
		}
		for i, s := range samples {
			rig.compareWays(t, s, refs[i], r)
			if t.Failed() {
				t.Fatalf("sample %d: %+v", i, s)
			}
		}
	})
}

// compareWays gives two packets of a session each way.
func (r *rig) compareWays(t *testing.T, s sample, ref nat.Ref, random *rand.Rand) {
	t.Helper()
	r.compareOut(t, s, ref)
	again := s
	again.seq, again.ack, again.payload = s.seq+uint32(random.Int32N(4000))-2000, s.ack+uint32(random.Int32N(4000))-2000, s.payload/2
	r.compareOut(t, again, ref)
	tr := r.table.Translation(ref)
	back := s.reply(&tr)
	back.flags &^= packet.FIN // both closed is no longer a hit
	r.compareIn(t, back, ref)
	back.seq++
	r.compareIn(t, back, ref)
}

// way is one direction: the program and what Go does in its place.
type way struct {
	program *ebpf.Program
	rewrite func(frame []byte, p *packet.Packet, tr *nat.Translation, partial bool) bool
	counts  []byte // of the kernel
	count   func(r nat.Ref, now nat.Tick, bytes, packets int, p *packet.Packet)
}

func (r *rig) compareOut(t *testing.T, s sample, ref nat.Ref) {
	t.Helper()
	r.compare(t, way{r.egress, nat.RewriteOut, r.memory.CountsOut, r.twin.CountOut}, s, ref, nil)
}

func (r *rig) compareIn(t *testing.T, s sample, ref nat.Ref) {
	t.Helper()
	r.compare(t, way{r.ingress, nat.RewriteIn, r.memory.CountsIn, r.twin.CountIn}, s, ref, append(tapMAC[:], gatewayMAC[:]...))
}

// compare runs a packet through the program and through Go; macs are the Ethernet addresses that the program writes.
func (r *rig) compare(t *testing.T, w way, s sample, ref nat.Ref, macs []byte) {
	t.Helper()
	frame := s.build()
	want := slices.Clone(frame)
	var p packet.Packet
	p.Decode(want)
	before, tr := p, r.twin.Translation(ref)
	if !w.rewrite(want, &p, &tr, false) {
		t.Fatal("Go does not rewrite this")
	}
	copy(want, macs)
	code, got := run(t, w.program, frame, 0)
	checkRun(t, code, got, want)
	seen := r.checkSeen(t, counters(w.counts, ref))
	w.count(ref, seen, int(before.Len), 1, &before)
	r.checkCounters(t, ref)
}

func checkRun(t *testing.T, code uint32, got, want []byte) {
	t.Helper()
	if code != codeHit {
		t.Errorf("code %d, want %d", int32(code), codeHit)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("out came\n%x, Go makes\n%x", got[:min(64, len(got))], want[:min(64, len(want))])
	}
}

// checkSeen returns the last-seen that the kernel wrote, which must be now.
func (r *rig) checkSeen(t *testing.T, c []byte) nat.Tick {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	now, seen := nat.Tick(uint64(ts.Nano())>>26+offset), seenOf(c)
	if late := int32(now - seen); late < 0 || late > 75 { // five seconds
		t.Errorf("seen at tick %d, now is %d", seen, now)
	}
	return seen
}

func (r *rig) checkCounters(t *testing.T, ref nat.Ref) {
	t.Helper()
	for name, of := range map[string][2][]byte{
		"outbound": {r.memory.CountsOut, r.plain.CountsOut}, "inbound": {r.memory.CountsIn, r.plain.CountsIn},
	} {
		if got, want := counters(of[0], ref), counters(of[1], ref); !bytes.Equal(got, want) {
			t.Errorf("%s counters are\n%x, Go's\n%x", name, got, want)
		}
	}
}
