package nat

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

func newFragments() (*Fragments[int], *atomic.Uint64) {
	lost := new(atomic.Uint64)
	return NewFragments[int](lost), lost
}

func pieceOf(id int) FragmentKey {
	return FragmentKey{Src: peer, Dst: out1, ID: uint32(id), Proto: protoUDP}
}

// intact fails when the bounds or the books of f are broken.
func (f *Fragments[F]) intact(t interface{ Fatalf(string, ...any) }) {
	held, pieces := 0, 0
	for e := f.collected.Front(); e != nil; e = e.Next() {
		d := e.Value.(*fragmented[F])
		pieces = max(pieces, len(d.pieces))
		for _, p := range d.pieces {
			held += len(p.frame)
		}
	}
	if held != f.held || held > maxHeld || pieces > maxPieces {
		t.Fatalf("%d bytes held, counted as %d; %d pieces of a datagram", held, f.held, pieces)
	}
	c, d := f.collected.Len(), f.decided.Len()
	if c+d != len(f.datagrams) || c > maxCollected || d > maxFates {
		t.Fatalf("%d collected, %d decided, %d known", c, d, len(f.datagrams))
	}
}

func TestFragmentsFollowTheirFirst(t *testing.T) {
	f, lost := newFragments()
	for _, offset := range []int{2960, 1480, 2960} { // one comes twice
		if _, known := f.Follow(pieceOf(1), offset, []byte(fmt.Sprint(offset)), 0); known {
			t.Fatal("a fate that nobody decided")
		}
	}
	released := f.Decide(pieceOf(1), 42, 0)
	if len(released) != 2 || string(released[0]) != "1480" || string(released[1]) != "2960" {
		t.Errorf("released %q", released)
	}
	if fate, known := f.Follow(pieceOf(1), 4440, nil, 0); !known || fate != 42 {
		t.Errorf("fate %d, %t", fate, known)
	}
	if released := f.Decide(pieceOf(1), 43, 0); released != nil {
		t.Errorf("released again: %q", released)
	}
	if fate, _ := f.Follow(pieceOf(1), 4440, nil, 0); fate != 43 {
		t.Errorf("the last first fragment does not decide: %d", fate)
	}
	if f.intact(t); lost.Load() != 0 {
		t.Errorf("%d lost", lost.Load())
	}
}

func TestFragmentsKeepACopy(t *testing.T) {
	f, _ := newFragments()
	frame := []byte("abc")
	f.Follow(pieceOf(1), 8, frame, 0)
	copy(frame, "xyz")
	if released := f.Decide(pieceOf(1), 1, 0); string(released[0]) != "abc" {
		t.Errorf("released %q", released)
	}
}

// TestFragmentsAreForgotten two seconds after the first piece, however many follow.
func TestFragmentsAreForgotten(t *testing.T) {
	f, lost := newFragments()
	f.Decide(pieceOf(1), 1, after(0))
	f.Follow(pieceOf(2), 8, []byte("x"), after(0))
	f.Follow(pieceOf(2), 16, []byte("x"), after(1900*time.Millisecond))
	if _, known := f.Follow(pieceOf(1), 8, nil, after(1900*time.Millisecond)); !known {
		t.Error("forgotten too early")
	}
	if _, known := f.Follow(pieceOf(1), 8, nil, after(2200*time.Millisecond)); known {
		t.Error("not forgotten")
	}
	if f.intact(t); lost.Load() != 2 {
		t.Errorf("%d lost, want 2", lost.Load())
	}
}

// TestFragmentFlood: of orphans, of first fragments, and of pieces of one datagram without end.
func TestFragmentFlood(t *testing.T) {
	const flood = 20000
	frame := make([]byte, 1514)
	f, lost := newFragments()
	for i := range flood {
		f.Follow(pieceOf(i), 1480, frame, 0)
		f.Decide(FragmentKey{Src: plus(host, i)}, i, 0)
		f.Follow(pieceOf(flood), 8*i, frame, 0)
		f.intact(t)
	}
	if n := lost.Load(); n < 2*flood-maxCollected*maxPieces {
		t.Errorf("%d of %d lost", n, 2*flood)
	}
	f.Decide(pieceOf(flood+1), 7, 0)
	if fate, known := f.Follow(pieceOf(flood+1), 8, frame, 0); !known || fate != 7 {
		t.Error("the flood keeps others out")
	}
}

// TestLargestDatagramInReverse is held as a whole.
func TestLargestDatagramInReverse(t *testing.T) {
	const mtu, largest = 1480, 65515
	f, lost := newFragments()
	n := 0
	for offset := largest / mtu * mtu; offset > 0; offset -= mtu {
		f.Follow(pieceOf(1), offset, make([]byte, mtu+34), 0)
		n++
	}
	if released := f.Decide(pieceOf(1), 1, 0); len(released) != n || lost.Load() != 0 {
		t.Errorf("%d of %d released, %d lost", len(released), n, lost.Load())
	}
}

// TestFragmentBooks: each piece comes out once, is counted as lost, is a copy, or is still held.
func TestFragmentBooks(t *testing.T) { rapid.Check(t, fragmentBooks) }

func FuzzFragments(f *testing.F) { f.Fuzz(rapid.MakeFuzz(fragmentBooks)) }

func fragmentBooks(t *rapid.T) {
	f, lost := newFragments()
	now, in, out := Tick(1<<32-10), 0, 0
	for range rapid.IntRange(1, 300).Draw(t, "steps") {
		id := rapid.IntRange(0, 80).Draw(t, "datagram")
		now += Tick(rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "ticks"))
		if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
			for _, b := range f.Decide(pieceOf(id), id, now) {
				if int(b[0]) != id {
					t.Fatalf("a piece of %d released by %d", b[0], id)
				}
				out++
			}
			f.intact(t)
			continue
		}
		offset := 8 * rapid.IntRange(1, 60).Draw(t, "offset")
		before := lost.Load() + uint64(out+count(f))
		fate, known := f.Follow(pieceOf(id), offset, []byte{byte(id)}, now)
		if known && fate != id {
			t.Fatalf("fate %d for %d", fate, id)
		}
		if after := lost.Load() + uint64(out+count(f)); after != before {
			in++
		}
		f.intact(t)
	}
	if got := int(lost.Load()) + out + count(f); got != in {
		t.Fatalf("%d pieces came, %d are accounted for", in, got)
	}
}

// count is how many pieces are held.
func count(f *Fragments[int]) (n int) {
	for e := f.collected.Front(); e != nil; e = e.Next() {
		n += len(e.Value.(*fragmented[int]).pieces)
	}
	return n
}

func TestFragmentsConcurrently(t *testing.T) {
	f, _ := newFragments()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 3000 {
				f.Follow(pieceOf(i%100), 8*(i%7+1), make([]byte, 100), Tick(i/50))
				f.Decide(pieceOf(i%90), i, Tick(i/50))
			}
		})
	}
	wg.Wait()
	f.intact(t)
}

// TestSpreadID: the header checksum stays right, a host's identifications stay distinct, and two hosts' come apart.
func TestSpreadID(t *testing.T) {
	table := newTable(t, nil)
	used := make(map[uint16]bool)
	for id := range uint16(1000) {
		a, b := spread(t, table, id, host), spread(t, table, id, plus(host, 1))
		if a == b || used[a] {
			t.Fatalf("identification %d became %d and %d", id, a, b)
		}
		used[a] = true
	}
}

// spread is what SpreadID makes of an identification.
func spread(t *testing.T, table *Table, id uint16, inside packet.Addr) uint16 {
	frame := make([]byte, packet.EthernetLen+20)
	ip := frame[packet.EthernetLen:]
	copy(ip, []byte{0x45, 0, 0, 20, byte(id >> 8), byte(id), 0x20, 0, 64, protoUDP})
	sum := ^packet.Fold(packet.Sum(0, ip))
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	table.SpreadID(frame, &packet.Packet{L3: packet.EthernetLen}, inside)
	if packet.Fold(packet.Sum(0, ip)) != 0xffff {
		t.Fatal("wrong header checksum")
	}
	return uint16(ip[4])<<8 | uint16(ip[5])
}
