package fastpath

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// detach removes what is attached to a device, as somebody else would.
func (h *hook) detach(t *testing.T) {
	t.Helper()
	if len(h.show(t)) > 0 {
		labtest.Must(t, h.deleteQdisc())
		h.expect(t, "detached")
		return
	}
	labtest.Must(t, h.ns.Do(func() error {
		ids := links(t, h.index)
		for _, id := range ids {
			l, err := link.NewFromID(id)
			labtest.Must(t, err)
			labtest.Must(t, errors.Join(l.Detach(), l.Close()))
		}
		if left := links(t, h.index); len(ids) == 0 || len(left) > 0 {
			t.Errorf("links %v, of which %v are left, want some and none", ids, left)
		}
		return nil
	}))
}

// eachWay runs a test by tcx and by clsact.
func eachWay(t *testing.T, test func(*testing.T)) {
	t.Run("tcx", test)
	t.Run("clsact", func(t *testing.T) { withoutTCX(t); test(t) })
}

func (p *Programs) mustVerify(t *testing.T, what string, want ...int) {
	t.Helper()
	if lost, err := p.Verify(); err != nil || !slices.Equal(lost, want) {
		t.Errorf("%s: detached from %v, error %v, want %v", what, lost, err, want)
	}
}

// TestDetached: what somebody detaches is found, and attached anew it does what it did.
func TestDetached(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWorld(t, lab.Connect, false, nil)
		w.bypass(t)
		goes, calls := w.upcalls(t)
		hooks := map[string]*hook{"calls0": calls}
		for _, device := range []string{"tapgw0", "up0", "lan0"} {
			hooks[device] = newHook(t, w.gateway, device)
		}
		attach := func() error {
			return errors.Join(w.AttachTAP(hooks["tapgw0"].index), w.AttachUpcall(calls.index),
				w.AttachUplink(uplinkID, hooks["up0"].index, false), w.AttachLAN(hooks["lan0"].index))
		}
		labtest.Must(t, w.gateway.Do(attach))
		here, there := w.talk(t, lanEnd{w.client, "10.0.0.2", 5000, 0})
		out, in := labtest.Capture(t, w.isp, "eth0"), labtest.Capture(t, w.client, "eth0")
		hits := map[string]func(){
			"tapgw0": func() {
				w.relabel(0)
				w.mustPass(t, out, here, there, 63)
				w.relabel(1)
			},
			"up0":    func() { w.mustPass(t, in, there, here, 63) },
			"lan0":   func() { w.mustPass(t, out, here, there, 63) },
			"calls0": func() { goes(here) },
		}
		hits["lan0"]() // resolves the uplink's gateway, which a packet from the TAP cannot wait for
		for device, h := range hooks {
			w.mustVerify(t, device+", attached")
			h.detach(t)
			w.mustVerify(t, device+", detached", h.index)
			labtest.Must(t, w.gateway.Do(attach))
			before := forwarded(t, w.gateway)
			hits[device]()
			if bypassed := forwarded(t, w.gateway) == before; bypassed != (device != "tapgw0") {
				t.Errorf("%s: past the host's own forwarding is %t", device, bypassed)
			}
			w.mustVerify(t, device+", attached anew")
		}
	})
}

// upcalls makes a device for the upcall program, and returns what writes a packet for the client's session there.
func (w *world) upcalls(t *testing.T) (goes func(client net.Conn), calls *hook) {
	t.Helper()
	writer := labtest.Namespace(t, "go")
	_, err := lab.Connect(lab.End{NS: w.gateway, Device: "calls0"}, lab.End{NS: writer, Device: "go0"}, 0)
	labtest.Must(t, err)
	index, err := writer.Index("go0")
	labtest.Must(t, err)
	frame := sample{src: 0xcb007109, dst: 0x0a000002, sport: 5000, dport: 5000, proto: packet.ProtoUDP, payload: 99}.build()
	copy(frame[6:], secret[:])
	frame[5], frame[11] = 1, tagLAN // to the first hop
	return func(client net.Conn) {
		t.Helper()
		labtest.Must(t, writer.Do(func() error { return send(index, frame) }))
		got := make([]byte, 100)
		if n, err := client.Read(got); err != nil || !bytes.HasSuffix(frame, got[:n]) || n != 99 {
			t.Errorf("read %x, error %v", got[:n], err)
		}
	}, newHook(t, w.gateway, "calls0")
}

func send(index int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
}

// TestDeviceGone: programs of a device that has gone are found too; of several on one device, all are.
func TestDeviceGone(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		h, rig := newDevice(t), newRig(t)
		attach := func() error {
			return errors.Join(rig.AttachUplink(uplinkID, h.index, false), rig.AttachLAN(h.index), rig.AttachTAP(h.index))
		}
		labtest.Must(t, h.ns.Do(attach))
		h.detach(t)
		rig.mustVerify(t, "detached", h.index)
		rig.mustVerify(t, "again")
		labtest.Must(t, h.ns.Do(attach))
		labtest.Must(t, h.handle.LinkDel(h.device))
		rig.mustVerify(t, "without the device", h.index)
		if h.ns.Do(attach) == nil {
			t.Error("attached to a device that has gone")
		}
		rig.mustVerify(t, "attached to nothing")
	})
}

// TestDetachedAlone: of two programs on a device the one that is left stays as it is.
func TestDetachedAlone(t *testing.T) {
	withoutTCX(t)
	h, rig := newDevice(t), newRig(t)
	labtest.Must(t, h.ns.Do(func() error {
		return errors.Join(rig.AttachUplink(uplinkID, h.index, false), rig.AttachLAN(h.index))
	}))
	ours, err := h.ours(rig.attached[place{lanIngress, h.index}].link.(*filter).parent)
	labtest.Must(t, err)
	i := slices.IndexFunc(ours, func(k known) bool { return k.program == lanIngress })
	labtest.Must(t, h.handle.FilterDel(ours[i].BpfFilter))
	rig.mustVerify(t, "one detached", h.index)
	h.expect(t, "one detached", "clsact", "2: 1/1 tapgw+clsact/uplink_ingress")
	labtest.Must(t, h.ns.Do(func() error { return rig.AttachLAN(h.index) }))
	h.expect(t, "attached anew", "clsact", "2: 1/2 tapgw+clsact/lan_ingress", "2: 1/1 tapgw+clsact/uplink_ingress")
	labtest.Must(t, rig.Close())
	h.expect(t, "closed")
}
