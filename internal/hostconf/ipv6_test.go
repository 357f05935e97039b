package hostconf

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// homeV6 is a host that captures IPv6, with a LAN where a host has asked for its router.
func homeV6(tap, uplink string) Wanted {
	lan := uplinks.Link{Index: 7, Name: lab.DeviceLAN, Up: true}
	w := Wanted{TAP: tap, Uplinks: []string{uplink}, IPv6: true, Facts: uplinks.Facts{Links: []uplinks.Link{lan}}}
	w.Facts.V6.Addresses = []uplinks.Address{{Index: 7, Prefix: netip.PrefixFrom(lab.GatewayLANAddrV6, 64)}}
	w.Facts.V6.Neighbours = []uplinks.Neighbour{{Index: 7, Addr: netip.MustParseAddr("fe80::9"), State: 2}}
	return w
}

func TestLANOfIPv6(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Wanted)
		want   []string
	}{
		"asked for its router":    {func(*Wanted) {}, []string{lab.DeviceLAN}},
		"has an address":          {func(w *Wanted) { w.Facts.V6.Neighbours[0].Addr = lab.GatewayLANAddrV6.Next() }, []string{lab.DeviceLAN}},
		"not captured":            {func(w *Wanted) { w.IPv6 = false }, nil},
		"nobody there":            {func(w *Wanted) { w.Facts.V6.Neighbours = nil }, nil},
		"no address but the link": {func(w *Wanted) { w.Facts.V6.Addresses[0].Prefix = netip.MustParsePrefix("fe80::1/64") }, nil},
		"one address only":        {func(w *Wanted) { w.Facts.V6.Addresses[0].Prefix = netip.MustParsePrefix("2001:db8::1/128") }, nil},
		"a way out": {func(w *Wanted) {
			w.Facts.V6.Routes = []uplinks.Route{{Table: uplinks.TableMain, Dst: netip.MustParsePrefix("::/0"), Index: 7}}
		}, nil},
	} {
		w := homeV6("tapgw0", "wan1")
		c.change(&w)
		if got := w.lanV6(nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
		if got := LANInterfaces(w, nil); len(got) > 0 {
			t.Errorf("%s: of IPv4: %v", name, got)
		}
	}
}

func TestSettingsOfIPv6(t *testing.T) {
	w := Wanted{TAP: "tap", Uplinks: []string{"wan", "gone"}, IPv6: true}
	off := w
	off.IPv6 = false
	other := w
	other.Facts.Links = []uplinks.Link{{Index: 3, Name: "dsl"}, {Index: 4, Name: "cable"}}
	for index, protocol := range map[int]int{3: unix.RTPROT_RA, 4: unix.RTPROT_STATIC} {
		other.Facts.V6.Routes = append(other.Facts.V6.Routes, uplinks.Route{Dst: netip.MustParsePrefix("::/0"), Index: index, Protocol: protocol})
	}
	lan := []string{"lan"}
	for _, c := range []struct {
		name string
		w    Wanted
		lan  []string
		was  map[string]string
		want []setting
	}{
		{"laptop", w, nil, map[string]string{"all/forwarding": "0", "wan/accept_ra": "1"}, nil},
		{"not captured", off, lan, map[string]string{"all/forwarding": "0", "wan/accept_ra": "1"}, nil},
		{"no IPv6", w, lan, nil, nil},
		{"LAN", w, lan, map[string]string{"all/forwarding": "0", "wan/accept_ra": "1"}, []setting{{"wan/accept_ra", "2"}, {"all/forwarding", "1"}}},
		{"no advertisements", w, lan, map[string]string{"all/forwarding": "0", "wan/accept_ra": "0"}, []setting{{"all/forwarding", "1"}}},
		{"router", w, lan, map[string]string{"all/forwarding": "1", "wan/accept_ra": "1"}, []setting{{"wan/accept_ra", "2"}}},
		{"router without LAN", w, nil, map[string]string{"all/forwarding": "1", "wan/accept_ra": "2"}, nil},
		{"LAN, later kernel", w, lan, map[string]string{"all/forwarding": "0", "wan/accept_ra": "1", "tap/force_forwarding": "0",
			"wan/force_forwarding": "0", "lan/force_forwarding": "1", "lan/accept_ra": "1", "lan/forwarding": "0"},
			[]setting{{"wan/accept_ra", "2"}, {"lan/accept_ra", "0"}, {"tap/force_forwarding", "1"}, {"wan/force_forwarding", "1"}, {"lan/forwarding", "1"}}},
		{"another way out", other, lan, map[string]string{"all/forwarding": "0", "dsl/accept_ra": "1", "cable/accept_ra": "1"},
			[]setting{{"dsl/accept_ra", "2"}, {"all/forwarding", "1"}}},
		{"router, later kernel", w, lan, map[string]string{"all/forwarding": "1", "wan/accept_ra": "1", "tap/force_forwarding": "0"},
			[]setting{{"wan/accept_ra", "2"}}},
	} {
		var want []setting
		for _, s := range c.want {
			want = append(want, setting{confDirV6 + "/" + s.path, s.value})
		}
		got := routingV6(c.w, c.lan, func(path string) (string, bool) {
			value, ok := c.was[path[len(confDirV6)+1:]]
			return value, ok
		})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
}

// routerV6 is a gateway whose default route comes from advertisements.
type routerV6 struct {
	t    *testing.T
	topo *lab.Topology
	gw   *lab.Namespace
	g    *Guard
}

func newRouterV6(t *testing.T) *routerV6 {
	t.Helper()
	topo := labtest.Build(t, lab.Options{IPv6: true, Uplinks: make([]lab.UplinkOptions, 1)})
	r := &routerV6{t: t, topo: topo, gw: topo.Gateway}
	labtest.Must(t, topo.Uplinks[0].RemoveRouterV6())
	labtest.Must(t, r.gw.Sysctl(forwardingV6, "0"))
	labtest.Must(t, r.gw.Sysctl(sysctlPathV6(topo.Uplinks[0].Device, "accept_ra"), "1"))
	r.advertise()
	var err error
	r.g, err = Open(filepath.Join(t.TempDir(), "undo.json"))
	labtest.Must(t, err)
	return r
}

// advertise waits until the advertised default route is there.
func (r *routerV6) advertise() {
	r.t.Helper()
	u := r.topo.Uplinks[0]
	const life = time.Hour
	for deadline := time.Now().Add(10 * time.Second); !r.hasDefault(); time.Sleep(10 * time.Millisecond) {
		labtest.Must(r.t, u.Advertise(life, lab.AdvertisedPrefix{Prefix: u.PrefixV6(), Preferred: life, Valid: life}))
		if time.Now().After(deadline) {
			r.t.Fatal("no default route")
		}
	}
}

func (r *routerV6) hasDefault() bool {
	r.t.Helper()
	routes, err := r.gw.Handle().RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	labtest.Must(r.t, err)
	return slices.ContainsFunc(routes, func(o netlink.Route) bool { return o.Protocol == unix.RTPROT_RA && o.Gw != nil })
}

func (r *routerV6) do(f func() error) {
	r.t.Helper()
	labtest.Must(r.t, r.gw.Do(f))
}

func (r *routerV6) expect(when string, want map[string]string) {
	r.t.Helper()
	for path, value := range want {
		if got, err := r.gw.ReadSysctl(path); err != nil || got != value {
			r.t.Errorf("%s: %s is %s, expected %s; %v", when, path, got, value, err)
		}
	}
	if !r.hasDefault() {
		r.t.Errorf("%s: the advertised default route is gone", when)
	}
}

// TestForwardingForALANOfIPv6 on a kernel that can do it only for all interfaces, as there is no TAP that says otherwise: the
// default route stays, later advertisements are heard, and all of it is put back.
func TestForwardingForALANOfIPv6(t *testing.T) {
	r := newRouterV6(t)
	device := r.topo.Uplinks[0].Device
	w := homeV6("absent0", device)
	before := map[string]string{forwardingV6: "0", sysctlPathV6(device, "accept_ra"): "1"}
	routing := map[string]string{forwardingV6: "1", sysctlPathV6(device, "accept_ra"): "2"}
	for range 2 {
		r.do(func() error { return r.g.Apply(w) })
		r.expect("with a LAN", routing)
	}
	if !r.g.ForwardingV6(device) || r.g.Forwarding(device) || !slices.Equal(r.g.LAN(), []string{lab.DeviceLAN}) {
		t.Errorf("ours is IPv6 %t, IPv4 %t, LAN %v", r.g.ForwardingV6(device), r.g.Forwarding(device), r.g.LAN())
	}
	labtest.Must(t, r.topo.Uplinks[0].Advertise(0)) // the router leaves
	for deadline := time.Now().Add(10 * time.Second); r.hasDefault(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its last advertisement was not heard")
		}
	}
	r.advertise()

	off := w
	off.IPv6 = false
	r.do(func() error { return r.g.Apply(off) })
	r.expect("no more captured", before)
	r.do(func() error { return r.g.Apply(w) })
	again, err := Open(r.g.path) // by another process
	labtest.Must(t, err)
	r.do(again.RestoreAll)
	r.expect("restored", before)
}

// TestForwardingByTheUserStays: what the user has switched on is not ours to switch off, but advertisements must be heard.
func TestForwardingByTheUserStays(t *testing.T) {
	r := newRouterV6(t)
	device := r.topo.Uplinks[0].Device
	labtest.Must(t, r.gw.Sysctl(sysctlPathV6(device, "accept_ra"), "2")) // or the route would go with the next line
	labtest.Must(t, r.gw.Sysctl(forwardingV6, "1"))
	labtest.Must(t, r.gw.Sysctl(sysctlPathV6(device, "accept_ra"), "1"))
	r.do(func() error { return r.g.Apply(homeV6("tapgw0", device)) })
	r.expect("with a LAN", map[string]string{forwardingV6: "1", sysctlPathV6(device, "accept_ra"): "2"})
	if r.g.ForwardingV6(device) {
		t.Error("the user's forwarding is taken for ours")
	}
	r.do(r.g.RestoreAll)
	r.expect("restored", map[string]string{forwardingV6: "1", sysctlPathV6(device, "accept_ra"): "1"})
}

// TestForwardingInterfaceByInterface: a kernel that can leaves all others as they are, packets do pass, and a host that we are the
// advertised router of finds that we are one.
func TestForwardingInterfaceByInterface(t *testing.T) {
	r := newRouterV6(t)
	device := r.topo.Uplinks[0].Device
	if _, err := r.gw.ReadSysctl(sysctlPathV6(device, "force_forwarding")); err != nil {
		t.Skip("this kernel has one switch for all interfaces only")
	}
	w := homeV6(device, device) // anything that says that the kernel can
	before := map[string]string{forwardingV6: "0", sysctlPathV6(device, "accept_ra"): "1", sysctlPathV6(device, "force_forwarding"): "0",
		sysctlPathV6(lab.DeviceLAN, "force_forwarding"): "0", sysctlPathV6(lab.DeviceLAN, "accept_ra"): "1",
		sysctlPathV6(lab.DeviceLAN, "forwarding"): "0"}
	host := r.topo.Hosts[0]
	beyond := netip.MustParseAddr("2001:db8:1::1") // at the provider, which has no way back to the LAN: an error would come before
	passes := func() bool {
		arrived := labtest.Capture(t, r.topo.Uplinks[0].ISP, lab.DeviceCustomer)
		conn, err := host.Dial(labtest.Context(t), "udp6", netip.AddrPortFrom(beyond, 7).String())
		labtest.Must(t, err)
		defer conn.Close()
		_, _ = conn.Write([]byte("hello"))
		_, err = host.Ping(labtest.Context(t), lab.GatewayLANAddrV6) // by then it has passed, or not
		labtest.Must(t, err)
		report, err := arrived.Stop()
		labtest.Must(t, err)
		return report.UDP > 0
	}
	if passes() {
		t.Fatal("forwards already")
	}
	r.do(func() error { return r.g.Apply(w) })
	r.expect("with a LAN", map[string]string{forwardingV6: "0", sysctlPathV6(device, "accept_ra"): "2", sysctlPathV6(device, "forwarding"): "0",
		sysctlPathV6(device, "force_forwarding"): "1", sysctlPathV6(lab.DeviceLAN, "force_forwarding"): "1",
		sysctlPathV6(lab.DeviceLAN, "accept_ra"): "0", sysctlPathV6(lab.DeviceLAN, "forwarding"): "1"})
	if !r.g.ForwardingV6(device) {
		t.Error("our forwarding is taken for the user's")
	}
	if !passes() {
		t.Error("does not forward")
	}
	if !saysIsRouter(t, host.Namespace) {
		t.Error("says that it is no router: hosts forget it as one")
	}
	r.do(r.g.RestoreAll)
	r.expect("restored", before)

	r.do(func() error { return r.g.Apply(w) })
	labtest.Must(t, r.gw.Sysctl(forwardingV6, "1"))
	r.do(r.g.RestoreAll)
	r.expect("restored after the user made it a router", map[string]string{forwardingV6: "1", sysctlPathV6(lab.DeviceLAN, "forwarding"): "1"})
}

// saysIsRouter reports whether the gateway says that it is a router when a host of its LAN asks for its link-layer address.
func saysIsRouter(t *testing.T, host *lab.Namespace) bool {
	t.Helper()
	neighbours, err := host.Handle().NeighList(0, netlink.FAMILY_V6)
	labtest.Must(t, err)
	for _, n := range neighbours {
		if n.IP.Equal(lab.GatewayLANAddrV6.AsSlice()) {
			labtest.Must(t, host.Handle().NeighDel(&n)) // asks again
		}
	}
	_, err = host.Ping(labtest.Context(t), lab.GatewayLANAddrV6)
	labtest.Must(t, err)
	neighbours, err = host.Handle().NeighList(0, netlink.FAMILY_V6)
	labtest.Must(t, err)
	return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
		return n.IP.Equal(lab.GatewayLANAddrV6.AsSlice()) && n.Flags&netlink.NTF_ROUTER != 0
	})
}
