package e2e

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// withoutTCX as the first argument makes the test binary a launcher whose kernel has no tcx.
const withoutTCX = "without-tcx"

func init() {
	if len(os.Args) > 1 && os.Args[1] == withoutTCX {
		log.Fatal(execWithoutTCX(os.Args[2:]))
	}
}

// execWithoutTCX becomes a program to which the kernel answers as one before 6.6 when it wants a BPF link.
func execWithoutTCX(args []string) error {
	runtime.LockOSThread()
	const number, command = 0, 16 // offsets in struct seccomp_data; the command is the first argument
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_BPF, 3), load(command), unless(unix.BPF_LINK_CREATE, 1),
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("hide tcx: %w", err)
	}
	return unix.Exec(args[0], args, os.Environ())
}

// beginWithoutTCX is begin as on a kernel before 6.6.
func beginWithoutTCX(t *testing.T, config string) world {
	t.Helper()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := newGateway(t, topology.Gateway, api.DatapathKernel)
	g.write(config)
	self, err := os.Executable()
	labtest.Must(t, err)
	g.daemon, err = topology.Gateway.StartDaemon(func(line string) { t.Log(line) }, self, withoutTCX,
		binary(t), "run", "--socket", g.socket(), "--config", g.file())
	labtest.Must(t, err)
	t.Cleanup(g.stop)
	g.await()
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	return w
}

// TestDetached: whoever takes our programs off a device, sessions go on, at first through the daemon or not at all, and soon
// past it again.
func TestDetached(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begin  func(*testing.T, string) world
		detach func(*netlink.Handle, int) error
	}{
		"tcx":    {func(t *testing.T, config string) world { return beginOn(t, lab.Options{}, api.DatapathKernel, config) }, detachLinks},
		"clsact": {beginWithoutTCX, deleteClsact},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := c.begin(t, inTurn)
			w.awaitShortcut(true)
			connections := []talker{w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")}
			streams := []*flow{keepAskingUDP(t, w.lan), keepAskingUDP(t, w.lan), keepAskingUDP(t, w.Gateway)}
			for _, device := range []string{"wan1", "wan2", lab.DeviceLAN, "tapgw0", "tapgw0u"} {
				begun := time.Now()
				index, err := w.Gateway.Index(device)
				labtest.Must(t, err)
				labtest.Must(t, w.Gateway.Do(func() error { return c.detach(w.Gateway.Handle(), index) }))
				told := w.events.await("repair of "+device, begun, func(e api.Event) bool { return isRepair(e) && contains(e.Message, device+" ") })
				t.Logf("%s: found after %s: %s", device, told.Time.Sub(begun).Round(time.Millisecond), told.Message)
				if told.Time.Sub(begun) > repairBound {
					t.Errorf("%s: found only after %s", device, told.Time.Sub(begun))
				}
				for _, established := range connections {
					labtest.Must(t, established.talk())
				}
				eventually(t, "packets past the daemon", func() bool { return w.pastDaemon(streams) })
			}
			if n, hidden := w.receivers(), w.hides(); n > 0 || hidden {
				t.Errorf("%d receiving sockets on the uplinks, rules that hide: %t", n, hidden)
			}
			online(t, w.Gateway)
			online(t, w.lan)
			w.events.none(0, time.Time{}, leaves(api.StateUp))
		})
	}
}

// TestRefusedAnew: where somebody else's filter has taken our place, the daemon receives for that uplink, and sessions go on.
func TestRefusedAnew(t *testing.T) {
	t.Parallel()
	w := beginWithoutTCX(t, inTurn)
	connections := []talker{w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")}
	begun := time.Now()
	index, err := w.Gateway.Index("wan1")
	labtest.Must(t, err)
	h := w.Gateway.Handle()
	filter := &netlink.U32{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
	}}
	eventually(t, "a place taken before the daemon looks", func() bool {
		return errors.Join(deleteClsact(h, index), h.QdiscAdd(clsactOf(index)), h.FilterAdd(filter)) == nil
	})
	w.events.await("repair", begun, isRepair)
	for _, established := range connections {
		labtest.Must(t, established.talk())
	}
	if n := w.receivers(); n != 1 {
		t.Errorf("%d receiving sockets on the uplinks, want 1", n)
	}
	online(t, w.lan)
}

// pastDaemon reports whether all flows go on and next to none of their packets come to the daemon.
func (w world) pastDaemon(flows []*flow) bool {
	w.t.Helper()
	const some, few = 50, 10
	before, _ := w.handed()
	for _, f := range flows {
		from := f.moved.Load()
		eventually(w.t, "an answer", func() bool { return f.moved.Load() >= from+some })
	}
	after, _ := w.handed()
	return after-before < few
}

// detachLinks ends the tcx links of a device.
func detachLinks(_ *netlink.Handle, index int) error {
	found := false
	for _, where := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: where})
		if err != nil {
			return err
		}
		for _, program := range attached.Programs {
			id, _ := program.LinkID()
			l, err := link.NewFromID(id)
			if err != nil {
				return err
			}
			if err := errors.Join(l.Detach(), l.Close()); err != nil {
				return err
			}
			found = true
		}
	}
	if !found {
		return fmt.Errorf("device %d has no links", index)
	}
	return nil
}

// deleteClsact is `tc qdisc del dev X clsact`.
func deleteClsact(h *netlink.Handle, index int) error { return h.QdiscDel(clsactOf(index)) }

func clsactOf(index int) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: 0xffff << 16, Parent: netlink.HANDLE_CLSACT}}
}
