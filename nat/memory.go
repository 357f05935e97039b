package nat

import (
	"fmt"
	"unsafe"
)

// Memory is where the arrays lie that a kernel program shares with a Table: each zeroed, 8-byte aligned and of the size
// that SizesFor says. It must stay mapped for as long as the Table is used.
type Memory struct {
	IndexOut, IndexIn   []byte
	Records             []byte
	Wide                []byte // addresses of the records, of IPv6 only
	CountsOut, CountsIn []byte
	Ports               []byte // any number of arrays of PortArrayBytes; addresses beyond take ordinary memory
}

// PortArrayBytes is the size of the array of one address and protocol: a word for each port, whose upper two bits are 0
// when the port is not ours.
const PortArrayBytes = allPorts * 4

// Sizes are those of the arrays of Memory, in elements; element 0 of records and counts is not used.
type Sizes struct {
	Buckets, Records                        int
	BucketBytes, RecordBytes, CountersBytes int
	WideBytes                               int // of a record of IPv6, beside the others
}

// SizesFor is what a table of maxSessions needs.
func SizesFor(maxSessions int) Sizes {
	return Sizes{
		Buckets: buckets(maxSessions), Records: maxSessions + 1,
		BucketBytes: bucketBytes, RecordBytes: identityBytes, CountersBytes: countersBytes, WideBytes: wideBytes,
	}
}

// check reports an array that cannot be used.
func (m *Memory) check(s Sizes, ipv6 bool) error {
	wide := 0
	if ipv6 {
		wide = s.Records * s.WideBytes
	}
	for _, a := range []struct {
		name string
		b    []byte
		want int
	}{
		{"outbound index", m.IndexOut, s.Buckets * s.BucketBytes}, {"inbound index", m.IndexIn, s.Buckets * s.BucketBytes},
		{"records", m.Records, s.Records * s.RecordBytes}, {"addresses", m.Wide, wide},
		{"outbound counters", m.CountsOut, s.Records * s.CountersBytes}, {"inbound counters", m.CountsIn, s.Records * s.CountersBytes},
		{"ports", m.Ports, 0},
	} {
		if len(a.b) < a.want {
			return fmt.Errorf("nat: memory of the %s has %d bytes, %d are needed", a.name, len(a.b), a.want)
		}
		if uintptr(unsafe.Pointer(unsafe.SliceData(a.b)))%8 != 0 {
			return fmt.Errorf("nat: memory of the %s is not aligned to 8 bytes", a.name)
		}
	}
	return nil
}

// elements makes n elements of bytes that hold them, which check has seen.
func elements[T any](b []byte, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// place puts the shared arrays of a table into memory, or into ordinary memory when there is none.
func (t *Table) place(m *Memory) error {
	s := SizesFor(t.cfg.MaxSessions)
	if m == nil {
		t.out, t.in = newIndex(t.cfg.MaxSessions), newIndex(t.cfg.MaxSessions)
		t.records = make([]identity, s.Records)
		if t.cfg.IPv6 {
			t.wide = make([]addresses, s.Records)
		}
		t.counts = [2][]counters{make([]counters, s.Records), make([]counters, s.Records)}
		return nil
	}
	if err := m.check(s, t.cfg.IPv6); err != nil {
		return err
	}
	for i := len(m.Ports)/PortArrayBytes - 1; i >= 0; i-- {
		t.freeArrays = append(t.freeArrays, i)
	}
	t.out, t.in = indexIn(m.IndexOut, s.Buckets), indexIn(m.IndexIn, s.Buckets)
	t.records = elements[identity](m.Records, s.Records)
	if t.cfg.IPv6 {
		t.wide = elements[addresses](m.Wide, s.Records)
	}
	t.counts = [2][]counters{elements[counters](m.CountsOut, s.Records), elements[counters](m.CountsIn, s.Records)}
	return nil
}
