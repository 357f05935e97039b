package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/internal/hostconf"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw/fastpath"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
)

func TestHopsHaveTheMTUOfTheirLink(t *testing.T) {
	gateway := netip.MustParseAddr("10.0.0.2")
	ways := uplinks.Ways{Hops: []uplinks.Hop{{Index: 4}, {Index: 3, Gateway: gateway}, {Index: 3}}}
	got := hopsOf(ways, []uplinks.Link{{Index: 3, MTU: 1400}, {Index: 4, MTU: 9000}})
	want := []fastpath.Hop{{Index: 4, MTU: 9000}, {Index: 3, Gateway: gateway, MTU: 1400}, {Index: 3, MTU: 1400}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNoShortcutInUserspace(t *testing.T) {
	d := newTestDaemon(t)
	if d.shortcutIsStale() {
		t.Error("stale")
	}
	if err := errors.Join(d.followLAN(uplinks.Facts{}), d.setClock(), d.attachDevices()); err != nil {
		t.Error(err)
	}
	if on, why := d.lan.status(); on || why != "the fast path is off" {
		t.Errorf("on %v, because %q", on, why)
	}
}

// lanHost is a daemon with the fast path and a device that may have a LAN behind it.
type lanHost struct {
	*Daemon
	ns    *lab.Namespace
	facts uplinks.Facts
	lan0  int
}

func newLANHost(t *testing.T) *lanHost {
	t.Helper()
	h := &lanHost{ns: labtest.Namespace(t, "host")}
	_, err := lab.Connect(lab.End{NS: h.ns, Device: "lan0"}, lab.End{NS: h.ns, Device: "far0"}, 0)
	labtest.Must(t, err)
	h.lan0, err = h.ns.Index("lan0")
	labtest.Must(t, err)
	h.facts = uplinks.Facts{
		Links:     []uplinks.Link{{Index: h.lan0, Name: "lan0", MTU: 1500, Up: true}},
		Addresses: []uplinks.Address{{Index: h.lan0, Prefix: netip.MustParsePrefix("192.168.1.254/24")}},
		Routes:    []uplinks.Route{{Index: h.lan0, Dst: netip.MustParsePrefix("192.168.1.0/24")}},
	}
	config := configs.Default()
	config.NAT.MaxSessions = 10
	h.Daemon = newDaemon(Options{Logger: slog.New(slog.DiscardHandler), Datapath: "kernel"}, &configs.Loaded{Config: config})
	labtest.Must(t, h.openTables(h.cfg()))
	t.Cleanup(func() { labtest.Must(t, h.fast.Close()) })
	labtest.Must(t, h.ns.Do(func() error {
		tap, err := tapdev.Create(h.tapConfig(1500))
		h.pumps.tap.Store(tap)
		return err
	}))
	t.Cleanup(func() { labtest.Must(t, errors.Join(h.foreign.Close(), h.pumps.tap.Load().Close())) })
	h.host, err = hostconf.Open(filepath.Join(t.TempDir(), "undo.json"))
	labtest.Must(t, err)
	return h
}

// look is what the control loop does with facts. It returns the hop of a session that was there, and why there is none.
func (h *lanHost) look(t *testing.T) (hop uint8, why string) {
	t.Helper()
	labtest.Must(t, h.ns.Do(func() error {
		err := errors.Join(h.host.Apply(hostconf.Wanted{Facts: h.facts}), h.followLAN(h.facts))
		if h.shortcutIsStale() {
			t.Error("stale")
		}
		return err
	}))
	ref := h.tables[uplinks.IPv4].FindOut(nat.Key{Inside: packet.IPv4(0xc0a80101), Remote: packet.IPv4(0xcb007101), InsidePort: 1, RemotePort: 443, Proto: packet.ProtoTCP})
	on, why := h.lan.status()
	if on != (why == "") || on != h.attached(t) {
		t.Errorf("on %v, because %q, attached %v", on, why, h.attached(t))
	}
	return h.tables[uplinks.IPv4].Translation(ref).Hop, why
}

func (h *lanHost) attached(t *testing.T) bool {
	t.Helper()
	var n int
	labtest.Must(t, h.ns.Do(func() error {
		got, err := link.QueryPrograms(link.QueryOptions{Target: h.lan0, Attach: ebpf.AttachTCXIngress})
		n = len(got.Programs)
		return err
	}))
	return n == 1
}

// TestShortcutFollowsTheLAN: it comes with the first host of the LAN, also for sessions that exist, and goes when the user
// wants, when the device has no Ethernet header, and with the last route.
func TestShortcutFollowsTheLAN(t *testing.T) {
	h := newLANHost(t)
	h.openSession(t, 0, 1)
	expect := func(step string, hop uint8, why string) {
		t.Helper()
		if got, because := h.look(t); got != hop || because != why {
			t.Errorf("%s: hop %d, because %q, want %d, %q", step, got, because, hop, why)
		}
	}
	expect("nobody", 0, "no LAN behind this host")
	h.facts.Neighbours = []uplinks.Neighbour{{Index: h.lan0, Addr: netip.MustParseAddr("192.168.1.1"), State: 2}}
	expect("a host", 1, "")
	expect("again", 1, "")
	if want := []fastpath.Hop{{Index: h.lan0, MTU: 1500}}; !slices.Equal(h.lan.sides[uplinks.IPv4].hops, want) {
		t.Errorf("hops %v, want %v", h.lan.sides[uplinks.IPv4].hops, want)
	}
	h.facts.Links[0].HeaderLess = true
	expect("header-less", 0, "no LAN behind this host")
	h.facts.Links[0].HeaderLess = false
	expect("with Ethernet headers again", 1, "")
	h.cfg().Datapath.LANShortcut = configs.LANShortcutOff
	expect("off", 0, "the configuration wants it so")
	h.cfg().Datapath.LANShortcut = configs.LANShortcutAuto
	h.facts.Links[0].MTU = 1400
	expect("on", 1, "")
	if h.lan.sides[uplinks.IPv4].hops[0].MTU != 1400 {
		t.Errorf("hops %v, want an MTU of 1400", h.lan.sides[uplinks.IPv4].hops)
	}
	h.facts.Routes = nil
	expect("without a route", 0, "")
}

// TestShortcutIsAttachedAnew: it comes back after somebody detached it, and only that is told of.
func TestShortcutIsAttachedAnew(t *testing.T) {
	h := newLANHost(t)
	told, stop := h.journal.Subscribe()
	defer stop()
	verify := func() (lost []int) {
		t.Helper()
		labtest.Must(t, h.ns.Do(func() (err error) {
			lost, err = h.verifyFastPath()
			h.tellDetached(append(lost, 1<<20)) // a device that has gone
			return err
		}))
		return lost
	}
	h.look(t)
	h.facts.Neighbours = []uplinks.Neighbour{{Index: h.lan0, Addr: netip.MustParseAddr("192.168.1.1"), State: 2}}
	h.look(t)
	if lost := verify(); len(lost) > 0 {
		t.Errorf("detached from %v, want nothing", lost)
	}
	labtest.Must(t, h.ns.Do(func() error { return detachLinks(h.lan0) }))
	if lost := verify(); !slices.Equal(lost, []int{h.lan0}) || h.attached(t) {
		t.Errorf("detached from %v, want %d", lost, h.lan0)
	}
	h.look(t) // says whether it is attached
	if !slices.Equal(h.lan.candidates, []int{h.lan0}) || !slices.Equal(h.lan.ports, h.lan.candidates) {
		t.Errorf("candidates %v, ports %v, want %d", h.lan.candidates, h.lan.ports, h.lan0)
	}
	if e := <-told; len(told) > 0 || e.Kind != api.EventRepair || !strings.Contains(e.Message, "lan0") {
		t.Errorf("told of %+v and %d more, want one repair", e, len(told))
	}
}

// detachLinks ends what receives on a device.
func detachLinks(index int) error {
	got, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	for _, program := range got.Programs {
		id, _ := program.LinkID()
		l, missing := link.NewFromID(id)
		if missing != nil {
			return missing
		}
		err = errors.Join(err, l.Detach(), l.Close())
	}
	return err
}
