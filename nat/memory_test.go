package nat

import (
	"encoding/binary"
	"strings"
	"testing"
	"unsafe"

	"tapgw/internal/packet"
)

// memoryFor is memory as a caller would map it. All tests of tables use it.
func memoryFor(maxSessions int) *Memory {
	s := SizesFor(maxSessions)
	array := func(n, size int) []byte {
		words := make([]uint64, n*size/8)
		return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), n*size)
	}
	return &Memory{
		IndexOut: array(s.Buckets, s.BucketBytes), IndexIn: array(s.Buckets, s.BucketBytes), Records: array(s.Records, s.RecordBytes),
		CountsOut: array(s.Records, s.CountersBytes), CountsIn: array(s.Records, s.CountersBytes),
		Ports: array(2*PortArrayBytes/8, 8), Wide: array(s.Records, s.WideBytes),
	}
}

// TestPortArraysAreShared: the ports of as many addresses as there is memory for can be told apart by who maps it, and
// an array is used anew when its address is gone.
func TestPortArraysAreShared(t *testing.T) {
	var m *Memory
	table := newTable(t, func(c *Config) { m = memoryFor(c.MaxSessions); c.Memory = m })
	arrays := table.Prepare(isp1, []packet.Addr{out1})
	if len(arrays) != 1 || arrays[0].Outside != out1 || arrays[0].TCP < 0 || arrays[0].UDP < 0 || arrays[0].TCP == arrays[0].UDP {
		t.Fatalf("%+v", arrays)
	}
	if more := table.Prepare(isp2, []packet.Addr{out2}); more[0].TCP != -1 || more[0].UDP != -1 {
		t.Errorf("more arrays than there are: %+v", more)
	}
	r := mustOpen(t, table, key(protoUDP, 4000, web, 53), bind1, after(0))
	port := int(table.Translation(r).OutsidePort)
	word := func() uint32 {
		return binary.NativeEndian.Uint32(m.Ports[arrays[0].UDP*PortArrayBytes+port*4:])
	}
	if word()&portKind != portMapped {
		t.Errorf("word %#x of a mapped port", word())
	}
	table.Purge(isp1, 2, after(0))
	again := table.Prepare(isp2, []packet.Addr{plus(out2, 1)})
	if again[0].TCP < 0 || again[0].UDP < 0 {
		t.Errorf("arrays are not used anew: %+v", again)
	}
	if word()&portKind != portFree {
		t.Errorf("word %#x of an array that was taken anew", word())
	}
}

// TestMemoryIsShared: who maps the arrays finds a session by its slots, and sees it counted.
func TestMemoryIsShared(t *testing.T) {
	var m *Memory
	table := newTable(t, func(c *Config) { m = memoryFor(c.MaxSessions); c.Memory = m })
	r := mustOpen(t, table, key(protoUDP, 4000, web, 53), bind1, after(0))
	table.CountOut(r, after(0), 77, 1, segment(0))
	for name, index := range map[string][]byte{"outbound": m.IndexOut, "inbound": m.IndexIn} {
		found := 0
		for at := 0; at < len(index); at += 8 {
			if w := binary.NativeEndian.Uint64(index[at:]); w != 0 {
				if found++; uint32(w) != uint32(r) {
					t.Errorf("%s slot %#x, want record %d", name, w, r)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d %s slots", found, name)
		}
	}
	if got := binary.NativeEndian.Uint64(m.Records[int(r)*identityBytes:]); got != uint64(host.V4())<<32|uint64(web.V4()) {
		t.Errorf("record begins with %#x", got)
	}
	if got := binary.NativeEndian.Uint64(m.CountsOut[int(r)*countersBytes:]) & bytesMask; got != 77 {
		t.Errorf("%d bytes counted", got)
	}
}

// TestStateFollowsTheKernel: flags, last-seen and counters that another writer of the memory leaves decide about a session.
func TestStateFollowsTheKernel(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoTCP, 4000, web, 80), bind1, after(0))
	table.CountOut(r, after(0), 40, 1, segment(2))
	out, in := &table.counts[outbound][r], &table.counts[inbound][r]
	expect := func(want State) {
		t.Helper()
		for info := range table.Sessions {
			if info.State != want {
				t.Errorf("state %s, want %s", info.State, want)
			}
		}
	}
	expect(TCPOpening)
	out.bytes.Or(ackSeen)
	in.bytes.Or(ackSeen)
	expect(TCPEstablished)
	late := DefaultTimeouts.TCPTransitory * 2
	sweepAt(table, late)
	if n := table.Stats().Sessions; n != 1 {
		t.Fatal("an established session ended like one that opens")
	}
	in.seen.Store(uint32(after(late)))
	out.bytes.Or(finSeen)
	in.bytes.Or(finSeen)
	sweepAt(table, late+DefaultTimeouts.TCPClosed/2)
	expect(TCPClosed)
	sweepAt(table, late+DefaultTimeouts.TCPClosed*2)
	if n := table.Stats().Sessions; n != 0 {
		t.Error("a closed session lives on")
	}
}

// TestMemoryIsChecked: each array must be large enough, and aligned.
func TestMemoryIsChecked(t *testing.T) {
	for name, array := range map[string]func(*Memory) *[]byte{
		"outbound index": func(m *Memory) *[]byte { return &m.IndexOut }, "inbound index": func(m *Memory) *[]byte { return &m.IndexIn },
		"records": func(m *Memory) *[]byte { return &m.Records }, "outbound counters": func(m *Memory) *[]byte { return &m.CountsOut },
		"inbound counters": func(m *Memory) *[]byte { return &m.CountsIn },
	} {
		for fault, spoil := range map[string]func([]byte) []byte{
			"bytes":   func(b []byte) []byte { return b[8:] },
			"aligned": func(b []byte) []byte { return append(make([]byte, 1, len(b)+8), b...)[1:] },
		} {
			c := Config{MaxSessions: 10, Ports: []PortRange{{1024, 2048}}, Random: func() uint64 { return 0 }, Memory: memoryFor(10)}
			a := array(c.Memory)
			*a = spoil(*a)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s, not %s: %v", name, fault, err)
			}
		}
	}
}
