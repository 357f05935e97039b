package fastpath

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// withoutTCX plays a kernel before 6.6.
func withoutTCX(t testing.TB) {
	before := attachTCX
	t.Cleanup(func() { attachTCX = before })
	attachTCX = func(link.TCXOptions) (link.Link, error) { return nil, fmt.Errorf("tcx: %w", ebpf.ErrNotSupported) }
}

// hook is a device whose filters are looked at.
type hook struct {
	*clsact
	ns    *lab.Namespace
	index int
}

func newHook(t testing.TB, ns *lab.Namespace, device string) *hook {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	h := &hook{ns: ns, index: index}
	labtest.Must(t, ns.Do(func() (err error) { h.clsact, err = openClsact(index); return err }))
	t.Cleanup(h.handle.Close)
	return h
}

func newDevice(t testing.TB) *hook {
	t.Helper()
	ns := labtest.Namespace(t, "gateway")
	_, err := lab.Connect(lab.End{NS: ns, Device: "up0"}, lab.End{NS: ns, Device: "far0"}, 0)
	labtest.Must(t, err)
	return newHook(t, ns, "up0")
}

// show describes the qdisc and the filters in the order in which they are asked.
func (h *hook) show(t *testing.T) (lines []string) {
	t.Helper()
	qdiscs, err := h.handle.QdiscList(h.device)
	labtest.Must(t, err)
	for _, q := range qdiscs {
		if q.Attrs().Handle == clsactHandle {
			lines = append(lines, q.Type())
		}
	}
	for _, parent := range bothDirections {
		list, err := h.list(parent)
		labtest.Must(t, err)
		for _, f := range list {
			name, a := f.Type(), f.Attrs()
			if b, ok := f.(*netlink.BpfFilter); ok {
				name = b.Name
			}
			if a.Handle != 0 { // else it introduces the filters of a priority
				lines = append(lines, fmt.Sprintf("%x: %d/%x %s", parent&3, a.Priority, a.Handle, name))
			}
		}
	}
	return lines
}

func (h *hook) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := h.show(t); !slices.Equal(got, want) {
		t.Errorf("%s: attached are %q, want %q", what, got, want)
	}
}

// attach attaches a program that lets all pass.
func (h *hook) attach(t *testing.T, where ebpf.AttachType) (c io.Closer, err error) {
	t.Helper()
	p := simple(t, -1) // TC_ACT_UNSPEC
	_ = h.ns.Do(func() error { c, err = attach(p, h.index, where); return nil })
	return c, err
}

func (h *hook) mustAttach(t *testing.T, where ebpf.AttachType) io.Closer {
	t.Helper()
	c, err := h.attach(t, where)
	labtest.Must(t, err)
	return c
}

// simple is a program that says the same of every packet.
func simple(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	return simpleOf(t, ebpf.SchedCLS, verdict)
}

func simpleOf(t *testing.T, kind ebpf.ProgramType, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "test", Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	labtest.Must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// foreign adds a filter of somebody else's.
func (h *hook) foreign(t *testing.T, parent uint32, priority uint16, handle uint32, verdict int32) {
	t.Helper()
	labtest.Must(t, h.handle.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: h.index, Parent: parent, Priority: priority, Handle: handle, Protocol: unix.ETH_P_ALL},
		Fd:          simple(t, verdict).FD(), Name: "foreign", DirectAction: true,
	}))
}

const in, out = ebpf.AttachTCXIngress, ebpf.AttachTCXEgress

// TestClsactAlone: the qdisc comes with the first filter and goes with the last, whoever made it.
func TestClsactAlone(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	first := h.mustAttach(t, in)
	h.expect(t, "one", "clsact", "2: 1/1 tapgw+clsact/test")
	egress := h.mustAttach(t, out)
	h.expect(t, "both directions", "clsact", "2: 1/1 tapgw+clsact/test", "3: 1/1 tapgw+clsact/test")
	second := h.mustAttach(t, in)
	h.expect(t, "again", "clsact", "2: 1/2 tapgw+clsact/test", "3: 1/1 tapgw+clsact/test")
	labtest.Must(t, first.Close())
	h.expect(t, "the replaced one is closed", "clsact", "2: 1/2 tapgw+clsact/test", "3: 1/1 tapgw+clsact/test")
	labtest.Must(t, egress.Close())
	h.expect(t, "egress is closed", "clsact", "2: 1/2 tapgw+clsact/test")
	labtest.Must(t, second.Close())
	h.expect(t, "all is closed")
}

// TestClsactBesideOthers: what others have stays, and is asked after ours even where it has the first priority.
func TestClsactBesideOthers(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	labtest.Must(t, h.handle.QdiscAdd(h.qdisc()))
	h.foreign(t, netlink.HANDLE_MIN_INGRESS, 1, 1, 0)
	h.foreign(t, netlink.HANDLE_MIN_INGRESS, 7, 1, 0)
	before := h.show(t)
	ingress, egress := h.mustAttach(t, in), h.mustAttach(t, out)
	h.expect(t, "attached", "clsact", "2: 1/2 tapgw/test", "2: 1/1 foreign", "2: 7/1 foreign", "3: 1/1 tapgw/test")
	labtest.Must(t, errors.Join(ingress.Close(), egress.Close()))
	h.expect(t, "closed", before...)
}

// TestClsactTwoPrograms: a device may be an uplink and of the LAN at once; the newest is asked first, as by tcx.
func TestClsactTwoPrograms(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	rig := newRig(t)
	labtest.Must(t, h.ns.Do(func() error {
		return errors.Join(rig.AttachUplink(uplinkID, h.index, true), rig.AttachLAN(h.index), rig.AttachUplink(uplinkID, h.index, false))
	}))
	h.expect(t, "both", "clsact", "2: 1/3 tapgw+clsact/uplink_ingress", "2: 1/2 tapgw+clsact/lan_ingress")
	labtest.Must(t, rig.DetachLAN(h.index))
	h.expect(t, "one", "clsact", "2: 1/3 tapgw+clsact/uplink_ingress")
	labtest.Must(t, rig.Close())
	h.expect(t, "none")
}

// TestClsactForeignQdisc: an empty qdisc of somebody else's stays, and so does ours while another uses it.
func TestClsactForeignQdisc(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	labtest.Must(t, h.handle.QdiscAdd(h.qdisc()))
	labtest.Must(t, h.mustAttach(t, in).Close())
	h.expect(t, "somebody's qdisc", "clsact")
	labtest.Must(t, h.deleteQdisc())
	c := h.mustAttach(t, in)
	h.foreign(t, netlink.HANDLE_MIN_EGRESS, 3, 1, 0)
	labtest.Must(t, c.Close())
	h.expect(t, "our qdisc, which another uses", "clsact", "3: 3/1 foreign")
}

// TestClsactLeftovers: filters whose process has gone are replaced, or removed with what came with them.
func TestClsactLeftovers(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	remove := func(want bool) {
		t.Helper()
		labtest.Must(t, h.ns.Do(func() error {
			if removed, err := RemoveLeftovers(h.index); err != nil || removed != want {
				t.Errorf("removed %v, error %v, want %v", removed, err, want)
			}
			return nil
		}))
	}
	remove(false)
	h.mustAttach(t, in)
	h.mustAttach(t, out)
	remove(true)
	h.expect(t, "removed")
	remove(false)
	h.mustAttach(t, in)
	labtest.Must(t, h.mustAttach(t, in).Close())
	h.expect(t, "replaced and closed")
	labtest.Must(t, h.handle.QdiscAdd(h.qdisc()))
	h.foreign(t, netlink.HANDLE_MIN_INGRESS, 1, 1, 0)
	h.mustAttach(t, in)
	remove(true)
	h.expect(t, "removed beside a foreign filter", "clsact", "2: 1/1 foreign")
}

// TestClsactKilled: the end of the process, which closes the latch, makes its filter one that takes nothing.
func TestClsactKilled(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	const drop = 2
	p := simple(t, drop)
	var f *filter
	labtest.Must(t, h.ns.Do(func() error {
		c, err := attach(p, h.index, in)
		f, _ = c.(*filter)
		return err
	}))
	gate, err := ebpf.NewProgramFromID(ebpf.ProgramID(f.gate))
	labtest.Must(t, err)
	defer gate.Close()
	if code, _ := run(t, gate, make([]byte, 64), 0); code != drop {
		t.Errorf("while the process lives: code %d, want the program's", int32(code))
	}
	labtest.Must(t, f.latch.Close())
	for start := time.Now(); ; { // the kernel empties the array in the background
		code, _ := run(t, gate, make([]byte, 64), 0)
		if code == codeNext {
			break
		}
		if time.Since(start) > deadline {
			t.Fatalf("after the process: code %d, want %d", int32(code), -1)
		}
	}
	h.expect(t, "after the process", "clsact", "2: 1/1 tapgw+clsact/test")
}

// TestClsactGone: neither a filter that somebody has deleted nor a device that has vanished fails the closing.
func TestClsactGone(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	c := h.mustAttach(t, in)
	labtest.Must(t, h.deleteQdisc())
	labtest.Must(t, c.Close())
	c = h.mustAttach(t, in)
	labtest.Must(t, h.handle.LinkDel(h.device))
	labtest.Must(t, c.Close())
	labtest.Must(t, h.ns.Do(func() error { _, err := RemoveLeftovers(h.index); return err }))
	if _, err := h.attach(t, in); err == nil {
		t.Error("attached to a device that is gone")
	}
}

// TestClsactRefused: where ours cannot be first there is an error, and no trace.
func TestClsactRefused(t *testing.T) {
	withoutTCX(t)
	h := newDevice(t)
	labtest.Must(t, h.handle.QdiscAdd(&netlink.Ingress{QdiscAttrs: *h.qdisc().Attrs()}))
	if _, err := h.attach(t, out); err == nil {
		t.Error("attached to the egress of an ingress qdisc")
	}
	c := h.mustAttach(t, in)
	h.expect(t, "in an ingress qdisc", "ingress", "2: 1/1 tapgw/test", "3: 1/1 tapgw/test") // the one filter under both names
	labtest.Must(t, c.Close())
	labtest.Must(t, h.handle.FilterAdd(&netlink.U32{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: h.index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
	}}))
	before := h.show(t)
	if _, err := h.attach(t, in); err == nil || !strings.Contains(err.Error(), "u32 filter") {
		t.Errorf("attached at a priority that another kind of filter has: %v", err)
	}
	h.expect(t, "refused", before...)
}

// TestClsactUndone: the qdisc goes when the filter is refused, here for a program of another type.
func TestClsactUndone(t *testing.T) {
	h := newDevice(t)
	p := simpleOf(t, ebpf.SocketFilter, 0)
	labtest.Must(t, h.ns.Do(func() error {
		f, err := newFilter(p, h.index, in)
		if err != nil {
			return err
		}
		defer f.handle.Close()
		if err := f.install(p); err == nil {
			t.Error("attached a program of another type")
		}
		return nil
	}))
	h.expect(t, "refused")
}

// TestAttachWhereSupported: tcx is asked first, and a refusal for another reason than an old kernel is no reason for clsact.
func TestAttachWhereSupported(t *testing.T) {
	h := newDevice(t)
	expect := func(want int) {
		t.Helper()
		labtest.Must(t, h.ns.Do(func() error { expectAttached(t, h.index, in, want); return nil }))
	}
	c := h.mustAttach(t, in)
	expect(1)
	h.expect(t, "by tcx")
	labtest.Must(t, c.Close())
	expect(0)
	before := attachTCX
	t.Cleanup(func() { attachTCX = before })
	attachTCX = func(link.TCXOptions) (link.Link, error) { return nil, unix.EPERM }
	if _, err := h.attach(t, in); !errors.Is(err, ErrPermission) {
		t.Errorf("%v, want ErrPermission", err)
	}
	h.expect(t, "refused")
}

// TestClsactOnTheWire: hits and misses are by clsact what they are by tcx, even if another drops all that passes ours.
func TestClsactOnTheWire(t *testing.T) {
	all := lab.Offloads{TxChecksum: true, RxChecksum: true, TSO: true, GSO: true, GRO: true}
	for _, c := range []struct {
		name       string
		connect    func(near, far lab.End, mtu int) (*lab.Link, error)
		headerless bool
		offloads   *lab.Offloads
		program    string
	}{
		{"Ethernet", lab.Connect, false, &all, "uplink_ingress"}, {"header-less", lab.ConnectTUN, true, nil, "uplink_ingress_headerless"},
	} {
		t.Run(c.name, func(t *testing.T) {
			withoutTCX(t)
			w := newWorld(t, c.connect, c.headerless, c.offloads)
			up, tap := newHook(t, w.gateway, "up0"), newHook(t, w.gateway, "tapgw0")
			up.expect(t, "uplink", "clsact", "2: 1/1 tapgw+clsact/"+c.program)
			tap.expect(t, "TAP", "clsact", "3: 1/1 tapgw+clsact/tap_egress")
			w.mustMissOnTheWire(t)
			up.foreign(t, netlink.HANDLE_MIN_INGRESS, 2, 1, 2) // TC_ACT_SHOT
			tap.foreign(t, netlink.HANDLE_MIN_EGRESS, 2, 1, 2)
			if !c.headerless {
				w.bulk(t)
			}
			w.datagrams(t)
			labtest.Must(t, w.Close())
			up.expect(t, "uplink, closed", "clsact", "2: 2/1 foreign")
			tap.expect(t, "TAP, closed", "clsact", "3: 2/1 foreign")
			for _, ns := range []*lab.Namespace{w.client, w.gateway, w.isp} {
				checkNoBadChecksums(t, ns)
			}
		})
	}
}

// mustMissOnTheWire: what belongs to no session goes on, to the host's stack and to the TAP's reader.
func (w *world) mustMissOnTheWire(t *testing.T) {
	t.Helper()
	ctx := labtest.Context(t)
	if _, err := w.isp.Ping(ctx, netip.MustParseAddr("198.51.100.7")); err != nil {
		t.Errorf("the host no longer answers on the uplink: %v", err)
	}
	capture := labtest.Capture(t, w.gateway, "tapgw0")
	conn := udp(t, w.client, netip.AddrPortFrom(inside, 5100), netip.AddrPortFrom(server, 99), 100)
	_, err := capture.AwaitAfter(ctx, func(p *lab.Packet) bool { return p.UDP != nil && p.Dst.Port() == 99 },
		func() error { _, err := conn.Write([]byte("a miss")); return err })
	if err != nil {
		t.Errorf("a packet without a session does not reach the TAP's reader: %v", err)
	}
}
