package fastpath

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// BenchmarkRun is the time of a program for one packet of 60 bytes and a session in the cache, without what the kernel
// does before and after. The kernel repeats on what the program has left, so the session translates to itself, which
// saves the patch for the port.
func BenchmarkRun(b *testing.B) {
	for _, f := range []uplinks.Family{uplinks.IPv4, uplinks.IPv6} {
		b.Run(familyName(f), func(b *testing.B) { runFamily(b, f) })
	}
}

func runFamily(b *testing.B, f uplinks.Family) {
	const port = 40000
	rig := newRigOf(b, f)
	table, err := nat.New(nat.Config{
		IPv6: f == uplinks.IPv6, MaxSessions: sessions, Ports: []nat.PortRange{{First: port, Last: port}},
		Timeouts: nat.DefaultTimeouts, Seed: seed, Random: rand.Uint64, Memory: rig.memory,
	})
	labtest.Must(b, err)
	for _, s := range samplesOf(f) {
		s.sport, s.payload = port, max(0, 60-(len(s.build())-s.payload))
		bind := nat.Binding{Uplink: uplinkID, Generation: generation, Addresses: []packet.Addr{rig.addr(s.src)}}
		ref, err := table.Open(s.key(), bind, offset)
		labtest.Must(b, err)
		tr, name := table.Translation(ref), map[uint8]string{packet.ProtoTCP: "TCP", packet.ProtoUDP: "UDP"}[s.proto]
		miss := s
		miss.dport++
		for _, c := range []struct {
			name    string
			program *ebpf.Program
			s       sample
			want    uint32
		}{
			{"outbound", rig.egress, s, codeHit}, {"inbound", rig.ingress, s.reply(&tr), codeHit}, {"miss", rig.egress, miss, codeNext},
		} {
			b.Run(name+"/"+c.name, func(b *testing.B) { repeat(b, c.program, c.s.build(), c.want) })
		}
	}
}

func repeat(b *testing.B, p *ebpf.Program, frame []byte, want uint32) {
	b.Helper()
	o := ebpf.RunOptions{Data: frame, Repeat: uint32(b.N)}
	if code, err := p.Run(&o); err != nil || code != want {
		b.Fatalf("code %d, error %v", int32(code), err)
	}
}

// BenchmarkSweepMillion is the sweep over memory that the programs share, whose pages are small.
func BenchmarkSweepMillion(b *testing.B) {
	const million, endpoints = 1_000_000, 20_000
	labtest.RequireRoot(b)
	p, err := Load(Config{MaxSessions: million})
	labtest.Must(b, err)
	defer p.Close()
	table, err := nat.New(nat.Config{
		MaxSessions: million, Ports: []nat.PortRange{{First: 1024, Last: 65535}}, Timeouts: nat.DefaultTimeouts,
		Random: rand.Uint64, Memory: p.Memory(),
	})
	labtest.Must(b, err)
	bind := nat.Binding{Uplink: uplinkID, Generation: generation, Addresses: []packet.Addr{packet.IPv4(outside)}}
	for i := range uint32(million) {
		k := nat.Key{Inside: packet.IPv4(0x0a000000 + i%endpoints), Remote: packet.IPv4(0x08000000 + i/endpoints), InsidePort: 5000, RemotePort: 53, Proto: packet.ProtoUDP}
		if _, err := table.Open(k, bind, offset); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		table.Sweep(offset+1, 0)
	}
}

// BenchmarkVerify is the time of looking after four programs on a device.
func BenchmarkVerify(b *testing.B) {
	for _, way := range []string{"tcx", "clsact"} {
		b.Run(way, func(b *testing.B) {
			if way == "clsact" {
				withoutTCX(b)
			}
			h, rig := newDevice(b), newRig(b)
			labtest.Must(b, h.ns.Do(func() error {
				return errors.Join(rig.AttachTAP(h.index), rig.AttachUpcall(h.index), rig.AttachUplink(uplinkID, h.index, false), rig.AttachLAN(h.index))
			}))
			for b.Loop() {
				if lost, err := rig.Verify(); len(lost) > 0 || err != nil {
					b.Fatal(lost, err)
				}
			}
		})
	}
}
