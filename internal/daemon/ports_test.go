package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/hostconf"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
)

// breakDescriptor puts a directory, which nobody can read packets from, in place of the one descriptor that is meant.
func breakDescriptor(t *testing.T, meant func(fd int) bool) {
	t.Helper()
	directory, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	labtest.Must(t, err)
	defer unix.Close(directory)
	list, err := os.ReadDir("/proc/self/fd")
	labtest.Must(t, err)
	broken := 0
	for _, entry := range list {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && meant(fd) {
			labtest.Must(t, unix.Dup3(directory, fd, unix.O_CLOEXEC))
			broken++
		}
	}
	if broken != 1 {
		t.Fatalf("%d descriptors broken, want 1", broken)
	}
}

// isTAP finds the descriptor of a TUN or TAP device.
func isTAP(name string) func(fd int) bool {
	return func(fd int) bool {
		ifr, err := unix.NewIfreq("")
		return err == nil && unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) == nil && ifr.Name() == name
	}
}

// isReader finds the packet socket that receives from a device.
func isReader(index int) func(fd int) bool {
	return func(fd int) bool {
		name, err := unix.Getsockname(fd)
		link, ok := name.(*unix.SockaddrLinklayer)
		return err == nil && ok && link.Ifindex == index && link.Protocol != 0
	}
}

// openInside gives a daemon everything of a namespace that its control loop needs.
func (d *Daemon) openInside(t *testing.T) (err error) {
	if err := d.openDevices(1500); err != nil {
		return err
	}
	d.tracker = uplinks.NewTracker(d.trackerConfig(d.cfg()))
	if err := d.openKernel(); err != nil {
		return err
	}
	if d.rules, err = nft.Open(); err != nil {
		return err
	}
	d.host, err = hostconf.Open(filepath.Join(t.TempDir(), "undo.json"))
	return err
}

func TestBrokenTAPEndsTheDaemon(t *testing.T) {
	d := newTestDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := labtest.Namespace(t, "host").Do(func() error {
		if err := d.openInside(t); err != nil {
			return err
		}
		tap := d.pumps.tap.Load()
		breakDescriptor(t, isTAP(tap.Name()))
		d.startTAP(tap)
		return errors.Join(d.control(ctx), d.close())
	})
	if !errors.Is(err, unix.EISDIR) {
		t.Errorf("the control loop ended with %v, want what the reader failed of", err)
	}
}

func TestBrokenUplinkIsOpenedAnew(t *testing.T) {
	d := newTestDaemon(t)
	host := labtest.Namespace(t, "host")
	u, switchOff := testUplink(t, host)
	snapshot := uplinks.NewSnapshot([]*uplinks.Uplink{u})
	follow := func() error { return host.Do(func() error { return d.followPorts(snapshot) }) }
	labtest.Must(t, host.Do(func() error { return d.openInside(t) }))
	defer func() { labtest.Must(t, host.Do(d.close)) }()

	labtest.Must(t, follow())
	broken := d.ports[u.ID]
	breakDescriptor(t, isReader(u.Index))
	switchOff() // wakes the reader
	select {
	case <-d.changed:
	case <-time.After(time.Minute):
		t.Fatal("the control loop was not told")
	}
	if err := follow(); !errors.Is(err, errPortFailed) || d.ports[u.ID].Port != broken.Port {
		t.Errorf("opened anew at once, %v", err)
	}
	broken.opened = broken.opened.Add(-reopenEvery)
	d.ports[u.ID] = broken
	labtest.Must(t, follow())
	if anew := d.ports[u.ID]; anew.Port == broken.Port || anew.failed.Load() || d.pumps.ports[u.ID].Load() != anew.Port {
		t.Error("the sockets were not opened anew")
	}
}

func TestTrafficOfAnUplinkIsExported(t *testing.T) {
	d := newTestDaemon(t)
	host := labtest.Namespace(t, "host")
	u, _ := testUplink(t, host)
	d.snapshot.Store(uplinks.NewSnapshot([]*uplinks.Uplink{u}))
	labtest.Must(t, host.Do(func() error { return d.openInside(t) }))
	defer func() { labtest.Must(t, host.Do(d.close)) }()
	labtest.Must(t, host.Do(func() error { return d.followPorts(d.snapshot.Load()) }))

	const payload = 60
	s := d.ports[u.ID].Sender()
	s.Queue(make([]byte, packet.VnetLen+payload))
	s.Queue([]byte("scrap"))
	labtest.Must(t, s.Flush())
	got := backend{d}.Metrics().Uplinks[0].Datapath
	if got.TxPackets != 1 || got.TxBytes != payload || got.Dropped["refused"] != 1 || got.Dropped["queue_full"] != 0 {
		t.Errorf("exported: %+v", got)
	}
}

// testUplink is an uplink of a host and what switches its device off.
func testUplink(t *testing.T, host *lab.Namespace) (u *uplinks.Uplink, switchOff func()) {
	t.Helper()
	address := netip.MustParsePrefix("192.0.2.2/24")
	wire, err := lab.Connect(lab.End{NS: host, Device: "wan", Prefix: address},
		lab.End{NS: labtest.Namespace(t, "isp"), Device: "isp", Prefix: netip.MustParsePrefix("192.0.2.1/24")}, 0)
	labtest.Must(t, err)
	device, err := host.Handle().LinkByName("wan")
	labtest.Must(t, err)
	u = &uplinks.Uplink{Name: "wan", Interface: "wan", Index: device.Attrs().Index, MTU: 1500, Side: uplinks.Side{Addresses: []netip.Addr{address.Addr()}}}
	copy(u.MAC[:], wire.Near.MAC)
	return u, func() { labtest.Must(t, host.Handle().LinkSetDown(device)) }
}
