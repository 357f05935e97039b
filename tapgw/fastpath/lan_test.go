package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	lanHop = 9
	tagLAN = 64 // TAG_LAN
)

// onLoopback is the way to the LAN by the device on which programs are run without any.
func onLoopback(t testing.TB, r *rig) {
	t.Helper()
	hops := make([]Hop, lanHop)
	hops[lanHop-1] = Hop{Index: 1, MTU: mtu}
	labtest.Must(t, r.SetHops(r.family, hops))
}

// newLANRig is a rig whose sessions, once relabelled, are those of a LAN behind the loopback device.
func newLANRig(t testing.TB, f uplinks.Family) *rig {
	t.Helper()
	r := newRigOf(t, f)
	r.shared.everyUplink(func(w *uplinkWords) { w.upcall.Store(1 << 20) })
	onLoopback(t, r)
	return r
}

// eachOf runs a test for either family.
func eachOf(t *testing.T, test func(*testing.T, uplinks.Family)) {
	for _, f := range uplinks.Families {
		t.Run(familyName(f), func(t *testing.T) { test(t, f) })
	}
}

// relabel gives all sessions a hop.
func (r *rig) relabel(hop uint8) {
	for _, table := range []*nat.Table{r.table, r.twin} {
		table.Relabel(func(packet.Addr) uint8 { return hop })
	}
}

// aged is what a router makes of a frame, with the header's checksum computed from nothing.
func aged(f []byte) []byte {
	f = slices.Clone(f)
	return lives(f, *ttlOf(f)-1)
}

// router does what Go does, and what a router does.
func router(rewrite func([]byte, *packet.Packet, *nat.Translation, bool) bool) func([]byte, *packet.Packet, *nat.Translation, bool) bool {
	return func(f []byte, p *packet.Packet, tr *nat.Translation, partial bool) bool {
		done := rewrite(f, p, tr, partial)
		copy(f, aged(f))
		return done
	}
}

// TestLANAsGo is TestAsGo past the host's own forwarding, where these programs are the router.
func TestLANAsGo(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		rig, r := newLANRig(t, f), rand.New(rand.NewPCG(5, 6))
		for range 500 {
			s := random(rig.family, r)
			ref := rig.open(t, s.key())
			rig.relabel(lanHop)
			rig.compare(t, way{rig.lan, router(nat.RewriteOut), rig.memory.CountsOut, rig.twin.CountOut}, s, ref, nil)
			tr := rig.table.Translation(ref)
			back := s.reply(&tr)
			back.flags &^= packet.FIN
			rig.compare(t, way{rig.ingress, router(nat.RewriteIn), rig.memory.CountsIn, rig.twin.CountIn}, back, ref, nil)
			if t.Failed() {
				t.Fatalf("sample %+v", s)
			}
		}
	})
}

// expectLAN runs a frame of the LAN that is no hit: it goes to Go as the next router would get it, or stays as it is.
func (r *rig) expectLAN(t *testing.T, ref nat.Ref, frame []byte, gso int, upcalled bool) {
	t.Helper()
	before := slices.Clone(counters(r.memory.CountsOut, ref))
	code, got := run(t, r.lan, frame, gso)
	wantCode, want := uint32(codeNext), frame
	if upcalled {
		wantCode, want = codeHit, labelled(aged(frame), tagLAN)
	}
	if code != wantCode || !bytes.Equal(got, want) {
		t.Errorf("code %d and\n%x, want %d and\n%x", int32(code), got[:min(64, len(got))], int32(wantCode), want[:min(64, len(want))])
	}
	if !bytes.Equal(counters(r.memory.CountsOut, ref), before) {
		t.Error("counted what is no hit")
	}
}

// belongs are those of spoils that leave no doubt about the session: its packets must not be seen by the host.
var belongs = map[string]bool{
	"options": true, "longer than the frame": true, "shorter than its headers": true, "cut within the transport header": true,
	"SYN": true, "RST": true, "data offset too small": true, "data offset too large": true, "UDP length too small": true,
	"UDP length too large": true, "a jumbogram": true,
}

// TestLANUnusual: what is no hit goes to Go when its session bypasses the host's forwarding here, else to the host.
func TestLANUnusual(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		for _, s := range samplesOf(f) {
			rig := newLANRig(t, f)
			ref := rig.open(t, s.key())
			for _, spoil := range spoils(f) {
				if spoil.proto != 0 && spoil.proto != s.proto {
					continue
				}
				t.Run(spoil.name, func(t *testing.T) {
					frame := func() []byte { return summed(spoil.do(s.build())) }
					rig.relabel(0)
					rig.expectLAN(t, ref, frame(), 0, false)
					rig.relabel(lanHop)
					rig.expectLAN(t, ref, frame(), 0, belongs[spoil.name])
					rig.expectLAN(t, ref, lives(frame(), 1), 0, false)
					rig.expectLAN(t, ref, lives(frame(), 0), 0, false)
					rig.expectLAN(t, ref, put(0, 2)(frame()), 0, false) // for another station
				})
			}
		}
	})
}

// TestLANHop: a session that the programs would carry takes the way of the host where its hop is not this device.
func TestLANHop(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		for _, s := range samplesOf(f) {
			rig := newLANRig(t, f)
			ref := rig.open(t, s.key())
			hit := func(want bool) {
				t.Helper()
				if !want {
					rig.expectLAN(t, ref, s.build(), 0, false)
					return
				}
				if code, _ := run(t, rig.lan, s.build(), 0); code != codeHit {
					t.Errorf("code %d, want a hit", int32(code))
				}
			}
			hit(false) // no hop
			rig.relabel(lanHop)
			hit(true)
			rig.expectLAN(t, ref, lives(s.build(), 1), 0, false)
			rig.expectLAN(t, ref, lives(s.build(), 0), 0, false)
			rig.expectLAN(t, ref, put(0, 2)(s.build()), 0, false)
			rig.relabel(lanHop - 1)
			hit(false) // a hop that is off
			rig.relabel(lanHop)
			labtest.Must(t, rig.SetHops(f, make([]Hop, lanHop)))
			hit(false)
			labtest.Must(t, rig.SetHops(f, slices.Repeat([]Hop{{Index: 2, MTU: mtu}}, MaxHops)))
			hit(false) // on another device
			onLoopback(t, rig)
			hit(true)
			labtest.Must(t, rig.SetHops(f, nil))
			hit(false)
		}
	})
}

// TestLANToGo: where the session is not the kernel's just now, Go gets packets that would have bypassed the host.
func TestLANToGo(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		stale, down := usable, usable
		stale.Generation++
		down.Usable = false
		for _, s := range samplesOf(f) {
			rig := newLANRig(t, f)
			ref := rig.open(t, s.key())
			big, tiny := s, s
			big.payload, tiny.payload = mtu, 0
			for _, c := range []struct {
				name   string
				uplink Uplink
				frame  []byte
				gso    int
			}{
				{"too big", usable, big.build(), 0}, {"segments too big", usable, big.build(), mtu},
				{"stale", stale, s.build(), 0}, {"down", down, s.build(), 0}, {"stale and empty", stale, tiny.build(), 0},
			} {
				t.Run(c.name, func(t *testing.T) {
					rig.set(t, c.uplink)
					rig.relabel(lanHop)
					rig.expectLAN(t, ref, c.frame, c.gso, true)
					rig.expectLAN(t, ref, lives(slices.Clone(c.frame), 1), c.gso, false)
					rig.relabel(0)
					rig.expectLAN(t, ref, c.frame, c.gso, false)
					unknown := put(s.l4()+1, 0xee)(slices.Clone(c.frame))
					rig.relabel(lanHop)
					rig.expectLAN(t, ref, unknown, c.gso, false)
				})
			}
			rig.set(t, usable)
			rig.table.Purge(uplinkID, generation+1, offset)
			rig.expectLAN(t, ref, s.build(), 0, false) // nobody's
		}
	})
}

// TestLANSessionOver: Go alone knows what revives a connection that both sides closed.
func TestLANSessionOver(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		rig, s := newLANRig(t, f), samplesOf(f)[0]
		ref := rig.open(t, s.key())
		rig.relabel(lanHop)
		tr := rig.table.Translation(ref)
		finish := put(s.l4()+13, packet.ACK|packet.FIN)
		run(t, rig.lan, finish(s.build()), 0)
		run(t, rig.ingress, finish(s.reply(&tr).build()), 0)
		last := s
		last.ack += uint32(s.payload) + 1
		run(t, rig.lan, last.build(), 0)
		for range rig.table.Sessions { // makes the state what the programs have shown
		}
		if got := rig.table.Translation(ref).State; got != nat.TCPClosed {
			t.Fatalf("state %v after FIN of both sides and the last acknowledgement, want %v", got, nat.TCPClosed)
		}
		rig.expectLAN(t, ref, s.build(), 0, true)
	})
}

// TestRepliesToLAN: a reply takes the session's hop as a router would send it, or the TAP as it is.
func TestRepliesToLAN(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		for _, s := range samplesOf(f) {
			rig := newLANRig(t, f)
			ref := rig.open(t, s.key())
			tr := rig.table.Translation(ref)
			headers := s.headers()
			for _, c := range []struct {
				name        string
				length, gso int
				ttl         byte
				hop         uint8
				want        bool
			}{
				{"small", 100, 0, 64, lanHop, true}, {"at the limit", mtu, 0, 64, lanHop, true}, {"beyond", mtu + 1, 0, 64, lanHop, false},
				{"segments", 3000, mtu - headers, 64, lanHop, true}, {"large segments", 3000, mtu - headers + 1, 64, lanHop, false},
				{"last but one", 100, 0, 2, lanHop, true}, {"expiring", 100, 0, 1, lanHop, false}, {"expired", 100, 0, 0, lanHop, false},
				{"most hops", 100, 0, 255, lanHop, true}, {"no hop", 100, 0, 64, 0, false}, {"hop that is off", 100, 0, 64, lanHop - 1, false},
			} {
				rig.relabel(c.hop)
				back := s.reply(&tr)
				back.payload = c.length - headers
				frame := lives(back.build(), c.ttl)
				want := slices.Clone(frame)
				var p packet.Packet
				p.Decode(want)
				nat.RewriteIn(want, &p, &tr, false)
				if c.want {
					want = aged(want)
				} else {
					copy(want, append(tapMAC[:], gatewayMAC[:]...))
				}
				if code, got := run(t, rig.ingress, frame, c.gso); code != codeHit || !bytes.Equal(got, want) {
					t.Errorf("protocol %d, %s: code %d and\n%x, want\n%x", s.proto, c.name, int32(code), got[:64], want[:64])
				}
			}
		}
	})
}

// summed computes the checksum of the header of a frame, which of IPv6 has none.
func summed(f []byte) []byte {
	if f[ip]>>4 != 4 { // or spoilt
		return f
	}
	header := f[ip:][:f[ip]&15*4]
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], ^packet.Fold(packet.Sum(0, header)))
	return f
}

// TestToLAN: what Go has translated takes the hop in the frame, or the TAP when it is too big for the hop or expires.
func TestToLAN(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		rig := newLANRig(t, f)
		for _, s := range samplesOf(f) {
			headers := s.headers()
			for _, c := range []struct {
				name        string
				length, gso int
				ttl, hop    byte
				want        bool
			}{
				{"small", 100, 0, 64, lanHop, true}, {"at the limit", mtu, 0, 64, lanHop, true}, {"beyond", mtu + 1, 0, 64, lanHop, false},
				{"segments", 3000, mtu - headers, 64, lanHop, true}, {"large segments", 3000, mtu - headers + 1, 64, lanHop, false},
				{"last but one", 100, 0, 2, lanHop, true}, {"expiring", 100, 0, 1, lanHop, false}, {"expired", 100, 0, 0, lanHop, false},
				{"no hop", 100, 0, 64, 0, false}, {"hop that is off", 100, 0, 64, lanHop - 1, false},
			} {
				s.payload = c.length - headers
				frame := from(secret, tagLAN, lives(s.build(), c.ttl))
				frame[5] = c.hop
				want := aged(frame)
				if !c.want {
					want = slices.Clone(frame)
					copy(want, append(tapMAC[:], gatewayMAC[:]...))
				}
				if code, got := run(t, rig.upcall, frame, c.gso); code != codeHit || !bytes.Equal(got, want) {
					t.Errorf("protocol %d, %s: code %d and\n%x, want\n%x", s.proto, c.name, int32(code), got[:64], want[:64])
				}
			}
		}
	})
}

// TestImpossibleHops: a refusal leaves the hops as they are.
func TestImpossibleHops(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		rig, s := newLANRig(t, f), samplesOf(f)[0]
		rig.open(t, s.key())
		rig.relabel(lanHop)
		for _, hops := range [][]Hop{make([]Hop, MaxHops+1), {{Index: 1, MTU: mtu, Gateway: nextHops[1-f]}}} {
			if err := rig.SetHops(f, hops); !errors.Is(err, ErrUplink) {
				t.Errorf("%d hops: %v, want ErrUplink", len(hops), err)
			}
		}
		if code, _ := run(t, rig.lan, s.build(), 0); code != codeHit {
			t.Errorf("code %d, want a hit", int32(code))
		}
	})
}

// TestAging meets the header checksums at which a sum of 16 bits carries, or becomes one of the two zeros.
func TestAging(t *testing.T) {
	rig, tried := newLANRig(t, uplinks.IPv4), 0
	for id := range 1 << 16 {
		frame := from(secret, tagLAN, samples()[1].build())
		frame[5] = lanHop
		binary.BigEndian.PutUint16(frame[ip+4:], uint16(id))
		sum := binary.BigEndian.Uint16(summed(frame)[ip+10:])
		if !slices.Contains([]uint16{0, 1, 0xff, 0xfe00, 0xfeff, 0xff00, 0xff01, 0xfffe}, sum) {
			continue
		}
		tried++
		if _, got := run(t, rig.upcall, frame, 0); !bytes.Equal(got, aged(frame)) {
			t.Errorf("checksum %#x became %x, want %x", sum, got[ip+10:ip+12], aged(frame)[ip+10:ip+12])
		}
	}
	if tried < 8 {
		t.Errorf("met %d checksums of 8", tried)
	}
}
