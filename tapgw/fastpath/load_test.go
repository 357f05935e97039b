package fastpath

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/nat"
	"tapgw/uplinks"
)

var small = Config{MaxSessions: 1}

func TestLoadRefusesNonsense(t *testing.T) {
	for name, c := range map[string]Config{
		"no sessions": {}, "too many": {MaxSessions: nat.MaxRecords + 1}, "too few of IPv6": {MaxSessions: 1, MaxSessionsV6: -1},
		"too many of IPv6": {MaxSessions: 1, MaxSessionsV6: nat.MaxRecords + 1},
	} {
		if p, err := Load(c); err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWithoutPrivilege loads on a thread without capabilities, which ends with its goroutine.
func TestWithoutPrivilege(t *testing.T) {
	labtest.RequireRoot(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		p, err := Load(small)
		if err == nil {
			err = errors.Join(errors.New("loaded without privilege"), p.Close())
		}
		result <- err
	}()
	if err := <-result; !errors.Is(err, ErrPermission) {
		t.Errorf("%v, want ErrPermission", err)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ cause, want error }{
		{unix.EPERM, ErrPermission}, {unix.EACCES, ErrPermission}, {ebpf.ErrRestrictedKernel, ErrPermission},
		{ebpf.ErrNotSupported, ErrUnsupported}, {unix.ENOSYS, ErrUnsupported}, {unix.ENOMEM, ErrMemory},
		{&ebpf.VerifierError{Cause: unix.EINVAL}, ErrRefused}, {&ebpf.VerifierError{Cause: unix.EACCES}, ErrRefused},
		{&ebpf.VerifierError{Cause: unix.EPERM}, ErrPermission},
	} {
		if err := explain(c.cause); !errors.Is(err, c.want) || !errors.Is(err, c.cause) {
			t.Errorf("%v is explained as %v, want %v", c.cause, err, c.want)
		}
	}
	if err := explain(nil); err != nil {
		t.Error(err)
	}
}

func TestImpossibleUplinks(t *testing.T) {
	rig := newRig(t)
	four, six, down := usable, usable, usable
	four.Gateway, six.Gateway = nextHops[uplinks.IPv4], nextHops[uplinks.IPv6]
	down.Index = 0
	for _, err := range []error{
		rig.SetUplink(uplinks.MaxUplinks, uplinks.IPv4, usable), rig.SetUplink(1, uplinks.IPv4, six), rig.SetUplink(1, uplinks.IPv6, four),
		rig.SetUplink(1, uplinks.IPv4, down), rig.AttachUplink(uplinks.MaxUplinks, 1, false),
	} {
		if !errors.Is(err, ErrUplink) {
			t.Errorf("%v, want ErrUplink", err)
		}
	}
}

// TestAttach: attaching again takes over, a device that is gone is an error, and Close leaves nothing attached.
func TestAttach(t *testing.T) {
	ns := labtest.Namespace(t, "gateway")
	_, err := lab.Connect(lab.End{NS: ns, Device: "up0"}, lab.End{NS: ns, Device: "far0"}, 0)
	labtest.Must(t, err)
	up, err := ns.Index("up0")
	labtest.Must(t, err)
	p, err := Load(small)
	labtest.Must(t, err)
	labtest.Must(t, ns.Do(func() error {
		for _, headerless := range []bool{false, true, false} {
			if err := p.AttachUplink(1, up, headerless); err != nil {
				return err
			}
			expectAttached(t, up, ebpf.AttachTCXIngress, 1)
		}
		if err := p.AttachUplink(2, 1<<20, false); err == nil {
			t.Error("attached to a device that does not exist")
		}
		if err := p.AttachTAP(up); err != nil {
			return err
		}
		expectAttached(t, up, ebpf.AttachTCXEgress, 1)
		labtest.Must(t, errors.Join(p.DetachUplink(1), p.DetachUplink(1)))
		expectAttached(t, up, ebpf.AttachTCXIngress, 0)
		labtest.Must(t, errors.Join(p.Close(), p.Close()))
		expectAttached(t, up, ebpf.AttachTCXEgress, 0)
		return nil
	}))
	_, verified := p.Verify()
	for _, err := range []error{p.AttachTAP(up), p.AttachUplink(1, up, false), p.SetUplink(1, uplinks.IPv4, usable), verified} {
		if !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestAttachAgain: on the same device again nothing is attached anew, not even after another device was refused.
func TestAttachAgain(t *testing.T) {
	h := newDevice(t)
	p, err := Load(small)
	labtest.Must(t, err)
	defer func() { labtest.Must(t, p.Close()) }()
	attach := func() error {
		return errors.Join(p.AttachTAP(h.index), p.AttachUpcall(h.index), p.AttachUplink(1, h.index, true), p.AttachLAN(h.index))
	}
	labtest.Must(t, h.ns.Do(func() error {
		labtest.Must(t, attach())
		before := links(t, h.index)
		labtest.Must(t, attach())
		if p.AttachTAP(1<<20) == nil || p.AttachUpcall(1<<20) == nil || p.AttachUplink(1, 1<<20, true) == nil || p.AttachLAN(1<<20) == nil {
			t.Error("attached to a device that does not exist")
		}
		labtest.Must(t, attach())
		if after := links(t, h.index); len(before) != 4 || !slices.Equal(after, before) {
			t.Errorf("links %v, want those of before %v", after, before)
		}
		if w := p.shared.uplink(1, uplinks.IPv4); w.tap.Load() != uint32(h.index) || w.upcall.Load() != uint32(h.index) {
			t.Error("the programs do not know their devices")
		}
		labtest.Must(t, p.AttachUplink(1, h.index, false))
		if after := links(t, h.index); len(after) != 4 || slices.Equal(after, before) {
			t.Errorf("links %v, want that of the uplink anew after %v: its packets have headers now", after, before)
		}
		return nil
	}))
}

// links are those of a device.
func links(t *testing.T, index int) (ids []link.ID) {
	t.Helper()
	for _, where := range []ebpf.AttachType{in, out} {
		got, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: where})
		labtest.Must(t, err)
		for _, program := range got.Programs {
			id, _ := program.LinkID()
			ids = append(ids, id)
		}
	}
	return ids
}

func expectAttached(t *testing.T, index int, where ebpf.AttachType, want int) {
	t.Helper()
	got, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: where})
	if err != nil || len(got.Programs) != want {
		t.Errorf("programs attached: %+v, error %v, want %d", got, err, want)
	}
}
