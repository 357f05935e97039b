package fastpath

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Tags, as they lie in a frame behind the addresses (IEEE 802.1Q).
var (
	priorityTags = [][]byte{{0x81, 0, 0, 0}, {0x81, 0, 0xe0, 0}, {0x81, 0, 0x10, 0}, {0x88, 0xa8, 0x60, 0}}
	vlanTags     = [][]byte{{0x81, 0, 0, 5}, {0x81, 0, 0xe1, 0}, {0x81, 0, 0x0f, 0xff}, {0x88, 0xa8, 0, 5}, {0x81, 0, 0, 0, 0x81, 0, 0, 5}}
)

// cable is the two ends of one, the far one at the gateway.
type cable struct {
	ns        *lab.Namespace
	index     int
	near, far net.HardwareAddr
}

func (w *world) cable(t *testing.T, ns *lab.Namespace, gateway string) cable {
	t.Helper()
	near, err := ns.Handle().LinkByName("eth0")
	labtest.Must(t, err)
	far, err := w.gateway.Handle().LinkByName(gateway)
	labtest.Must(t, err)
	return cable{ns, near.Attrs().Index, near.Attrs().HardwareAddr, far.Attrs().HardwareAddr}
}

// frame is that of a sample towards the gateway, as it is sent without a tag.
func (c cable) frame(s sample) []byte {
	f := s.build()
	copy(f, append(slices.Clone(c.far), c.near...))
	return f
}

func (c cable) send(frame, tag []byte) error {
	return c.ns.Do(func() error { return send(c.index, slices.Insert(slices.Clone(frame), 12, tag...)) })
}

// TestPriorityTags: a tag with a priority and no VLAN makes no difference to hits, nor does it go on with them. What is of
// a VLAN is the host's.
func TestPriorityTags(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWorld(t, lab.Connect, false, nil)
		w.bypass(t)
		here, there := w.talk(t, lanEnd{w.client, "10.0.0.2", 5000, 63})
		w.mustPass(t, labtest.Capture(t, w.isp, "eth0"), here, there, 63) // resolves the addresses
		out := sample{src: 0x0a000002, dst: 0xcb007109, sport: 5000, dport: 5000, proto: packet.ProtoUDP}
		tr := w.table.Translation(w.table.FindOut(out.key()))
		tagged := []func() bool{tagsArrive(t, w.client), tagsArrive(t, w.isp)}
		for _, way := range []struct {
			cable
			sample
			receiver net.Conn
		}{{w.cable(t, w.client, "lan0"), out, there}, {w.cable(t, w.isp, "up0"), out.reply(&tr), here}} {
			for i, tag := range slices.Concat(vlanTags, priorityTags) {
				way.payload = i + 1
				labtest.Must(t, way.send(way.frame(way.sample), tag))
				if i < len(vlanTags) {
					continue // a later one arrives first
				}
				if n, err := way.receiver.Read(make([]byte, 100)); err != nil || n != i+1 {
					t.Errorf("tag %x: %d bytes, want %d, error %v", tag, n, i+1, err)
				}
			}
		}
		if n := forwarded(t, w.gateway); n != "0" || tagged[0]() || tagged[1]() {
			t.Errorf("the gateway's own stack forwarded %s datagrams; tags went on to the LAN: %t, to the uplink: %t", n, tagged[0](), tagged[1]())
		}
	})
}

// tagsArrive returns what tells whether a tagged frame has come in by eth0.
func tagsArrive(t *testing.T, ns *lab.Namespace) func() bool {
	t.Helper()
	index, err := ns.Index("eth0")
	labtest.Must(t, err)
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}, bpf.RetA{}})
	labtest.Must(t, err)
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	var fd int
	labtest.Must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	labtest.Must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	labtest.Must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}))
	labtest.Must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: index}))
	return func() bool {
		_, _, err := unix.Recvfrom(fd, make([]byte, 1), 0)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Error(err)
		}
		return err == nil
	}
}

// TestPriorityTagsToGo: what is no hit goes to Go as without the tag.
func TestPriorityTagsToGo(t *testing.T) {
	w := newWorld(t, lab.Connect, false, nil)
	w.bypass(t)
	reader := labtest.Namespace(t, "go")
	_, err := lab.Connect(lab.End{NS: w.gateway, Device: "calls0"}, lab.End{NS: reader, Device: "eth0"}, 0)
	labtest.Must(t, err)
	calls, err := w.gateway.Index("calls0")
	labtest.Must(t, err)
	labtest.Must(t, w.gateway.Do(func() error { return w.AttachUpcall(calls) }))
	labtest.Must(t, w.SetAddresses(uplinkID, uplinks.IPv4, []nat.PortArrays{{Outside: packet.IPv4(0xc6336407), TCP: -1, UDP: -1}}))
	stranger := sample{src: 0xcb007109, dst: 0xc6336407, sport: 53, dport: 2000, proto: packet.ProtoUDP}
	begins := sample{src: 0x0a000002, dst: 0x08080808, sport: 2000, dport: 443, proto: packet.ProtoTCP, flags: packet.SYN}
	seen, tagged := labtest.Capture(t, reader, "eth0"), tagsArrive(t, reader)
	for _, c := range []struct {
		cable
		sample
		label byte
		as    func([]byte) []byte
	}{
		{w.cable(t, w.isp, "up0"), stranger, uplinkID, slices.Clone[[]byte]},
		{w.cable(t, w.client, "lan0"), begins, tagLAN, aged},
	} {
		for i, tag := range slices.Concat(vlanTags, priorityTags) {
			c.payload = 40 + i
			frame := c.frame(c.sample)
			if i < len(vlanTags) {
				labtest.Must(t, c.send(frame, tag))
				continue
			}
			want := labelled(c.as(frame), c.label)
			_, err := seen.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return bytes.Equal(p.Data, want) },
				func() error { return c.send(frame, tag) })
			if err != nil {
				t.Errorf("label %d, tag %x: %v", c.label, tag, err)
			}
		}
	}
	if n := seen.Report().IPv4; n != uint64(2*len(priorityTags)) || tagged() {
		t.Errorf("Go got %d packets, want %d; with a tag: %t", n, 2*len(priorityTags), tagged())
	}
}

// TestPriorityTagsOfSuperPackets: nor does a tag make a difference that lies beside a super-packet.
func TestPriorityTagsOfSuperPackets(t *testing.T) {
	all := lab.Offloads{TxChecksum: true, RxChecksum: true, TSO: true, GSO: true, GRO: true}
	for name, offloads := range map[string]*lab.Offloads{"offloads on": &all, "offloads off": {RxChecksum: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lab.Connect, false, offloads)
			labtest.Must(t, errors.Join(w.isp.TagPriority("eth0", 5), w.client.TagPriority("eth0", 0)))
			w.bulk(t)
			w.datagrams(t)
			w.bypass(t)
			here, there := w.talk(t, lanEnd{w.client, "10.0.0.2", 7000, 63})
			before, tagged := forwarded(t, w.gateway), []func() bool{tagsArrive(t, w.client), tagsArrive(t, w.isp)}
			for _, pair := range [][2]net.Conn{{here, there}, {there, here}} {
				data := bytes.Repeat([]byte("datagram"), 8*1200/8)
				_, err := pair[0].Write(data)
				labtest.Must(t, err)
				for range 8 {
					got := make([]byte, 1500)
					if n, err := pair[1].Read(got); err != nil || !bytes.Equal(got[:n], data[:1200]) {
						t.Errorf("%d bytes, error %v", n, err)
					}
				}
			}
			if after := forwarded(t, w.gateway); after != before || tagged[0]() || tagged[1]() {
				t.Errorf("forwarded %s datagrams, before %s; tags went on: %t, %t", after, before, tagged[0](), tagged[1]())
			}
			for _, ns := range []*lab.Namespace{w.client, w.gateway, w.isp} {
				checkNoBadChecksums(t, ns)
			}
		})
	}
}
