package tapdev_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks/wire/batchio"
)

func linkOf(t *testing.T, ns *lab.Namespace, index int) *netlink.Tuntap {
	t.Helper()
	link, err := ns.Handle().LinkByIndex(index)
	labtest.Must(t, err)
	tap, ok := link.(*netlink.Tuntap)
	if !ok {
		t.Fatalf("device %d is a %s", index, link.Type())
	}
	return tap
}

func TestCreateConfigures(t *testing.T) {
	for _, queues := range []int{0, 1, 3} {
		ns := labtest.Namespace(t, "gw")
		cfg := defaultConfig()
		cfg.Queues, cfg.MTU = queues, 1492
		d := create(t, ns, cfg)
		link := linkOf(t, ns, d.Index())
		if !link.NonPersist || link.Flags&netlink.TUNTAP_VNET_HDR == 0 || len(d.Queues()) != max(queues, 1) {
			t.Errorf("%d queues: persistent %t, flags %x", len(d.Queues()), !link.NonPersist, link.Flags)
		}
		if link.MTU != 1492 || link.HardwareAddr.String() != "02:54:41:50:47:01" || link.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("link %+v", link.LinkAttrs)
		}
		if v, _ := ns.ReadSysctl("net/ipv6/conf/tapgw0/disable_ipv6"); v != "1" {
			t.Errorf("disable_ipv6 is %q", v)
		}
		addrs, err := ns.Handle().AddrList(link, netlink.FAMILY_ALL)
		labtest.Must(t, err)
		if len(addrs) != 1 || addrs[0].IPNet.String() != tapPre.String() {
			t.Errorf("addresses %v", addrs)
		}
		neighs, err := ns.Handle().NeighList(d.Index(), netlink.FAMILY_V4)
		labtest.Must(t, err)
		if len(neighs) != 1 || neighs[0].State != unix.NUD_PERMANENT || neighs[0].HardwareAddr.String() != "02:54:41:50:47:fe" {
			t.Errorf("neighbours %v", neighs)
		}
		if repaired, err := d.Check(1492); err != nil || len(repaired) != 0 {
			t.Errorf("Check of a new device: %v, %v", repaired, err)
		}
		labtest.Must(t, d.Close())
		if _, err := ns.Handle().LinkByName("tapgw0"); err == nil {
			t.Error("device outlived Close")
		}
	}
}

// expect creates a device in ns and compares the error.
func expect(t *testing.T, ns *lab.Namespace, cfg tapdev.Config, want error) {
	t.Helper()
	labtest.Must(t, ns.Do(func() error {
		d, err := tapdev.Create(cfg)
		if !errors.Is(err, want) {
			t.Errorf("Create: %v, expected %v", err, want)
		}
		if err == nil {
			return d.Close()
		}
		return nil
	}))
}

func TestSecondDaemonNotices(t *testing.T) {
	for _, queues := range []int{1, 2} {
		ns := labtest.Namespace(t, "gw")
		cfg := defaultConfig()
		cfg.Queues = queues
		d := create(t, ns, cfg)
		expect(t, ns, cfg, tapdev.ErrExists)
		if _, err := ns.Handle().LinkByIndex(d.Index()); err != nil {
			t.Errorf("the first daemon's device is gone: %v", err)
		}
	}
}

func TestForeignDeviceIsLeftAlone(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	labtest.Must(t, ns.Handle().LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "tapgw0"}, PeerName: "peer"}))
	expect(t, ns, defaultConfig(), tapdev.ErrExists)
	if _, err := ns.Handle().LinkByName("tapgw0"); err != nil {
		t.Error(err)
	}
}

// TestLeftoverIsReplaced: what a daemon killed half-way leaves is a persistent device that nobody has open.
func TestLeftoverIsReplaced(t *testing.T) {
	for _, queues := range []int{1, 2} {
		ns := labtest.Namespace(t, "gw")
		labtest.Must(t, ns.Do(func() error {
			tap, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{
				Name: "tapgw0", Persist: true, MultiQueue: queues > 1}})
			labtest.Must(t, err)
			expect(t, ns, defaultConfig(), tapdev.ErrExists) // still open
			return tap.Close()
		}))
		expect(t, ns, defaultConfig(), nil)
		if _, err := ns.Handle().LinkByName("tapgw0"); err == nil {
			t.Error("leftover still there")
		}
	}
}

func TestBadConfigLeavesNothing(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	for _, change := range []func(*tapdev.Config){
		func(c *tapdev.Config) { c.MTU = 1 << 20 },
		func(c *tapdev.Config) { c.Name = strings.Repeat("x", 20) },
		func(c *tapdev.Config) { c.MAC = [6]byte{1} },
	} {
		cfg := defaultConfig()
		change(&cfg)
		labtest.Must(t, ns.Do(func() error {
			if _, err := tapdev.Create(cfg); err == nil {
				t.Errorf("created %+v", cfg)
			}
			return nil
		}))
	}
	links, err := ns.Handle().LinkList()
	labtest.Must(t, err)
	if len(links) != 1 {
		t.Errorf("%d links remain", len(links))
	}
}

func TestNoPermission(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	done := make(chan error)
	go func() { // the thread loses its rights for good and is discarded
		done <- ns.Do(func() error {
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			var all [2]unix.CapUserData
			labtest.Must(t, unix.Capget(&hdr, &all[0]))
			none[0] = unix.CapUserData{Permitted: all[0].Permitted, Effective: 1 << unix.CAP_SYS_ADMIN}
			none[1].Permitted = all[1].Permitted
			labtest.Must(t, unix.Capset(&hdr, &none[0]))
			_, err := tapdev.Create(defaultConfig())
			labtest.Must(t, unix.Capset(&hdr, &all[0]))
			return err
		})
	}()
	if err := <-done; !errors.Is(err, tapdev.ErrNoPermission) {
		t.Errorf("Create: %v", err)
	}
}

// TestReadOnlySettings: as in most containers.
func TestReadOnlySettings(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	err := ns.Do(func() error {
		before, err := os.Open("/proc/thread-self/ns/mnt")
		labtest.Must(t, err)
		defer before.Close()
		labtest.Must(t, unix.Unshare(unix.CLONE_NEWNS))
		labtest.Must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		labtest.Must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
		labtest.Must(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		_, err = tapdev.Create(defaultConfig())
		labtest.Must(t, unix.Setns(int(before.Fd()), unix.CLONE_NEWNS))
		return err
	})
	if !errors.Is(err, tapdev.ErrReadOnly) {
		t.Errorf("Create: %v", err)
	}
}

func TestCheckRepairs(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	d := create(t, ns, defaultConfig())
	h, link := ns.Handle(), linkOf(t, ns, d.Index())
	neighs, err := h.NeighList(d.Index(), netlink.FAMILY_V4)
	labtest.Must(t, err)
	addrs, err := h.AddrList(link, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, c := range []struct {
		what  string
		spoil func() error
	}{
		{"MAC", func() error { return h.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 9}) }},
		{"MTU 1500", func() error { return h.LinkSetMTU(link, 1400) }},
		{"up", func() error { return h.LinkSetDown(link) }},
		{"address", func() error { return h.AddrDel(link, &addrs[0]) }},
		{"neighbour", func() error { return h.NeighDel(&neighs[0]) }},
	} {
		labtest.Must(t, c.spoil())
		repaired, err := d.Check(1500)
		labtest.Must(t, err)
		if !slices.ContainsFunc(repaired, func(s string) bool { return strings.HasPrefix(s, c.what) }) {
			t.Errorf("%s: repaired %q", c.what, repaired)
		}
		if repaired, err := d.Check(1500); err != nil || len(repaired) != 0 {
			t.Errorf("%s: second Check: %q, %v", c.what, repaired, err)
		}
	}
}

func TestCheckFollowsRenameAndNoticesDeletion(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	d := create(t, ns, defaultConfig())
	link := linkOf(t, ns, d.Index())
	labtest.Must(t, ns.Handle().LinkSetDown(link))
	labtest.Must(t, ns.Handle().LinkSetName(link, "other0"))
	if repaired, err := d.Check(1500); err != nil || d.Name() != "other0" || len(repaired) < 2 {
		t.Errorf("%s: %q, %v", d.Name(), repaired, err)
	}
	read := reading(d)
	labtest.Must(t, ns.Handle().LinkDel(link))
	if err := labtest.Ended(t, read); !errors.Is(err, tapdev.ErrGone) {
		t.Errorf("ReadBatch: %v", err)
	}
	if err := d.Queues()[0].Write(make([]byte, 70)); !errors.Is(err, tapdev.ErrGone) {
		t.Errorf("Write: %v", err)
	}
	if _, err := d.Check(1500); !errors.Is(err, tapdev.ErrGone) {
		t.Errorf("Check: %v", err)
	}
}

// reading reports the first error of a reader.
func reading(d *tapdev.Device) <-chan error {
	result := make(chan error, 1)
	go func() {
		bufs, sizes := batchio.Buffers(1), make([]int, 1)
		for {
			if _, err := d.Queues()[0].ReadBatch(bufs, sizes); err != nil {
				result <- err
				return
			}
		}
	}()
	return result
}

func TestCloseUnblocks(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	d := create(t, ns, defaultConfig())
	read := reading(d)
	labtest.Must(t, d.Close())
	if err := labtest.Ended(t, read); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch: %v", err)
	}
	if err := d.Queues()[0].Write(make([]byte, 70)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if _, err := d.Check(1500); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Check: %v", err)
	}
	labtest.Must(t, d.Close())
}

func TestDescriptorsAreReturned(t *testing.T) {
	ns := labtest.Namespace(t, "gw")
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		labtest.Must(t, err)
		return len(fds)
	}
	expect(t, ns, defaultConfig(), nil)
	before := count()
	for range 5 {
		expect(t, ns, defaultConfig(), nil)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}
