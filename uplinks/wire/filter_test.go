package wire_test

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// TestFilterAndTags: a tag with a priority and no VLAN makes no difference, and is not in the frame; what is of a VLAN is
// not received.
func TestFilterAndTags(t *testing.T) {
	p := newPair(t)
	frames, fd := reader(p.uplink(t)), rawSocket(t, p.isp, "cust")
	plain := udpFrame(t, ispAddr, wanAddr, 2000, "long enough to need no padding")[packet.VnetLen:]
	marker := udpFrame(t, ispAddr, wanAddr, 2001, "marker")[packet.VnetLen:]
	for _, c := range []struct {
		tag  []byte
		pass bool
	}{
		{[]byte{0x81, 0, 0, 0}, true}, {[]byte{0x81, 0, 0xe0, 0}, true}, {[]byte{0x81, 0, 0x10, 0}, true}, {[]byte{0x88, 0xa8, 0x60, 0}, true},
		{[]byte{0x81, 0, 0, 5}, false}, {[]byte{0x81, 0, 0xe1, 0}, false}, {[]byte{0x81, 0, 0x0f, 0xff}, false},
		{[]byte{0x88, 0xa8, 0, 5}, false}, {[]byte{0x81, 0, 0, 0, 0x81, 0, 0, 5}, false},
	} {
		for _, f := range [][]byte{slices.Insert(slices.Clone(plain), 12, c.tag...), marker} {
			_, err := unix.Write(fd, f)
			labtest.Must(t, err)
		}
		got := next(t, frames)
		if passed := !bytes.Contains(got, []byte("marker")); passed != c.pass {
			t.Errorf("tag %x: passed %t", c.tag, passed)
		} else if passed {
			if !bytes.Equal(got[packet.VnetLen:], plain) {
				t.Errorf("tag %x: % x became % x", c.tag, plain, got)
			}
			next(t, frames)
		}
	}
}

// TestTaggedSuperSegment: nor does a tag beside the frame, of a segment that is still to be cut.
func TestTaggedSuperSegment(t *testing.T) {
	p := newPair(t)
	labtest.Must(t, p.isp.SetOffloads("cust", lab.Offloads{TxChecksum: true, RxChecksum: true, TSO: true, GSO: true}))
	labtest.Must(t, p.isp.TagPriority("cust", 5))
	frames := reader(p.uplink(t))
	sent := superSegment(t, ispAddr, wanAddr, 60000, 1460)
	send(t, p.provider(t).Sender(), sent)
	if got := next(t, frames); !bytes.Equal(got, sent) {
		t.Errorf("virtio header % x became % x; %d bytes became %d", sent[:10], got[:10], len(sent), len(got))
	}
}
