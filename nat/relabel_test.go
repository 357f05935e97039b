package nat

import (
	"testing"
	"time"

	"tapgw/internal/packet"
)

// TestRelabel: each live session gets the hop of its inside address, and nothing else of it changes.
func TestRelabel(t *testing.T) {
	table := newTable(t, nil)
	hops := map[packet.Addr]uint8{host: 200, plus(host, 1): 1}
	var refs []Ref
	for i, inside := range []packet.Addr{host, plus(host, 1), plus(host, 2)} {
		k := key(protoUDP, uint16(i), web, 53)
		k.Inside = inside
		b := bind1
		b.Generation, b.Hop = MaxGeneration, uint8(3*i)
		refs = append(refs, mustOpen(t, table, k, b, after(0)))
		if got := table.Translation(refs[i]).Hop; got != b.Hop {
			t.Errorf("opened with hop %d, want %d", got, b.Hop)
		}
	}
	for _, way := range []func(packet.Addr) uint8{func(a packet.Addr) uint8 { return hops[a] }, func(packet.Addr) uint8 { return HopDevice - 1 }, func(packet.Addr) uint8 { return 0 }} {
		for _, r := range refs {
			want := table.Translation(r)
			want.Hop = way(want.Inside)
			table.Relabel(way)
			if got := table.Translation(r); got != want {
				t.Errorf("relabelled: %+v, want %+v", got, want)
			}
			if table.FindOut(want.Key) != r || table.FindIn(want.InKey()) != r {
				t.Errorf("%+v is not found any more", want)
			}
		}
	}
	table.SetHop(refs[2], HopDevice)
	table.Relabel(func(packet.Addr) uint8 { return 0 })
	if got := table.Translation(refs[2]).Hop; got != HopDevice {
		t.Errorf("the session of a bound socket got hop %d", got)
	}
	over := table.Translation(refs[0])
	table.Purge(isp1, 1, after(0))
	table.Relabel(func(packet.Addr) uint8 { t.Error("asked for an ended session"); return 9 })
	if got := table.Translation(refs[0]).Hop; got != over.Hop {
		t.Errorf("the hop of an ended session became %d", got)
	}
	sweepAt(table, time.Hour)
}

// TestHopOfANewSession: opening again what exists changes nothing, binding it anew takes the new hop.
func TestHopOfANewSession(t *testing.T) {
	table, k := newTable(t, nil), key(protoTCP, 1, web, 443)
	for _, c := range []struct {
		binding    Binding
		generation uint32
		hop, want  uint8
	}{{bind1, 1, 4, 4}, {bind1, 1, 5, 4}, {bind1, 2, 6, 6}, {bind2, 2, 7, 7}} {
		c.binding.Generation, c.binding.Hop = c.generation, c.hop
		if got := table.Translation(mustOpen(t, table, k, c.binding, after(0))).Hop; got != c.want {
			t.Errorf("hop %d of a session opened with %d, want %d", got, c.hop, c.want)
		}
	}
}

// TestEnd: only the session of that key ends, and its port rests.
func TestEnd(t *testing.T) {
	table := newTable(t, nil)
	one, other := key(protoUDP, 1, web, 53), key(protoUDP, 2, web, 53)
	tr := table.Translation(mustOpen(t, table, one, bind1, after(0)))
	mustOpen(t, table, other, bind1, after(0))
	table.End(one, after(0))
	table.End(key(protoUDP, 3, web, 53), after(0))
	if table.FindOut(one) != 0 || table.FindIn(tr.InKey()) != 0 || table.FindOut(other) == 0 {
		t.Error("not just that session ended")
	}
	if got := table.Owned(tr.Uplink, protoUDP, tr.Outside, tr.OutsidePort); got != Resting {
		t.Errorf("its port is %v, want resting", got)
	}
}
