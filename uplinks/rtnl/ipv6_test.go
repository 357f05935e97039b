package rtnl

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// addIPv6 gives an uplink IPv6 as its router's advertisements would: a lasting address, a temporary one and a default route.
func (w *world) addIPv6(name, lasting, temporary, gateway string) {
	w.t.Helper()
	link := w.link(name)
	for address, flags := range map[string]int{lasting: unix.IFA_F_NODAD, temporary: unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR} {
		a := parse(address)
		a.Flags = flags
		w.must(w.h.AddrAdd(link, a))
	}
	w.must(w.h.RouteAppend(&netlink.Route{Dst: toIPNet(everything(unix.AF_INET6)), Gw: net.ParseIP(gateway), LinkIndex: link.Attrs().Index,
		Family: unix.AF_INET6, Priority: 1024, Protocol: unix.RTPROT_RA}))
}

// dualWorld has two uplinks with both families.
func dualWorld(t *testing.T) *world {
	w := newWorld(t)
	for i, name := range []string{"wan0", "wan1"} {
		last := string(rune('1' + i))
		w.veth(name, "192.0."+last+".2", "192.0."+last+".1")
		w.defaultVia(name, "192.0."+last+".1", 100+i)
		w.addIPv6(name, "2001:db8:"+last+"::2/64", "2001:db8:"+last+"::77/64", "fe80::"+last)
	}
	return w
}

func TestReadIPv6(t *testing.T) {
	w := dualWorld(t)
	index := w.link("wan0").Attrs().Index
	expired := parse("2001:db8:1::3/64")
	expired.Flags, expired.ValidLft = unix.IFA_F_NODAD, 1000 // preferred no more
	w.must(w.h.AddrAdd(w.link("wan0"), expired))
	f := w.read()
	for address, passing := range map[string]bool{"2001:db8:1::2/64": false, "2001:db8:1::3/64": true} {
		want := uplinks.Address{Index: index, Prefix: netip.MustParsePrefix(address), Passing: passing, Deprecated: passing}
		if !slices.Contains(f.V6.Addresses, want) {
			t.Errorf("no %+v in %+v", want, f.V6.Addresses)
		}
	}
	route := uplinks.Route{Table: unix.RT_TABLE_MAIN, Dst: everything(unix.AF_INET6), Gateway: netip.MustParseAddr("fe80::1"), Index: index,
		Metric: 1024, Protocol: unix.RTPROT_RA}
	if !slices.Contains(f.V6.Routes, route) {
		t.Errorf("no %+v in %+v", route, f.V6.Routes)
	}
	for _, a := range f.Addresses {
		if a.Prefix.Addr().Is6() {
			t.Errorf("%s among those of IPv4", a.Prefix)
		}
	}
}

// TestApplyIPv6: each address leaves by its own uplink; nothing is done twice, and all of it is taken back.
func TestApplyIPv6(t *testing.T) {
	w := dualWorld(t)
	tr := uplinks.NewTracker(uplinks.TrackerConfig{AssumeHealthy: true})
	before := w.objects()
	rec := NewReconciler(w.k)
	w.apply(rec, tr, uplinks.Capture{})
	w.expectLeaving(map[[2]string]string{
		{"2001:db8:1::2", "2001:db8:f::1"}:  "wan0",
		{"2001:db8:1::77", "2001:db8:f::1"}: "wan0",
		{"2001:db8:2::2", "2001:db8:f::1"}:  "wan1",
		{"2001:db8:2::77", "2001:db8:f::1"}: "wan1",
		{"2001:db8:2::2", "2001:db8:1::9"}:  "wan0",
	})
	if again := w.apply(rec, tr, uplinks.Capture{}); again.Changed() {
		t.Errorf("second Apply changed %+v", again)
	}
	w.must(rec.Cleanup())
	w.sameObjects(before)
}

// TestWatcherTellsIPv6: addresses, routes and neighbours of IPv6 are told of too.
func TestWatcherTellsIPv6(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "192.0.2.2", "192.0.2.1")
	notify := w.watch()
	w.addIPv6("wan0", "2001:db8:1::2/64", "2001:db8:1::77/64", "fe80::1")
	w.await(notify, "address and route", func(f uplinks.Facts) bool {
		return len(f.V6.Addresses) == 2 && slices.ContainsFunc(f.V6.Routes, func(r uplinks.Route) bool { return r.Dst.Bits() == 0 })
	})
	gateway := netip.MustParseAddr("fe80::1")
	w.must(w.h.NeighAdd(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET6, IP: gateway.AsSlice(), State: unix.NUD_STALE,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 6, 1}}))
	w.await(notify, "neighbour", func(f uplinks.Facts) bool {
		return slices.ContainsFunc(f.V6.Neighbours, func(n uplinks.Neighbour) bool { return n.Addr == gateway && n.MAC == [6]byte{2, 0, 0, 0, 6, 1} })
	})
	w.must(w.k.KeepNeighbour(index, gateway))
	w.must(w.k.ReleaseNeighbour(index, gateway))
}

// TestRouterLifetimes: what an advertisement renews is no change of what we do.
func TestRouterLifetimes(t *testing.T) {
	w := dualWorld(t)
	tr := uplinks.NewTracker(uplinks.TrackerConfig{AssumeHealthy: true})
	rec := NewReconciler(w.k)
	w.apply(rec, tr, uplinks.Capture{})
	renewed := parse("2001:db8:1::2/64")
	renewed.Flags, renewed.PreferedLft, renewed.ValidLft = unix.IFA_F_NODAD, 600, 1200
	w.must(w.h.AddrReplace(w.link("wan0"), renewed))
	s, events := tr.Update(time.Now(), w.read())
	if report := w.apply(rec, tr, uplinks.Capture{}); report.Changed() || len(events) > 0 {
		t.Errorf("uplinks %+v, events %+v, changes %+v", s.Uplinks, events, report)
	}
}

// TestWatcherTellsOfBothFamilies: an address, a route and a rule that somebody removes are told of, each where nothing else
// happens meanwhile.
func TestWatcherTellsOfBothFamilies(t *testing.T) {
	for _, address := range []string{"192.0.2.2/32", "2001:db8:1::2/128"} {
		prefix := netip.MustParsePrefix(address)
		rule := toRule(uplinks.Rule{Priority: uplinks.RuleBase, Source: prefix, Table: uplinks.TableBase})
		route := func(w *world) *netlink.Route {
			return toRoute(uplinks.Route{Table: uplinks.TableBase, Dst: prefix, Index: w.link("lo").Attrs().Index, Protocol: uplinks.Protocol})
		}
		for what, change := range map[string]struct{ prepare, remove func(*world) error }{
			"rule":  {func(w *world) error { return w.h.RuleAdd(rule) }, func(w *world) error { return w.h.RuleDel(rule) }},
			"route": {func(w *world) error { return w.h.RouteAdd(route(w)) }, func(w *world) error { return w.h.RouteDel(route(w)) }},
			"address": {
				func(w *world) error { return w.h.AddrAdd(w.link("lo"), parse(address)) },
				func(w *world) error { return w.h.AddrDel(w.link("lo"), parse(address)) },
			},
		} {
			w := newWorld(t)
			w.must(change.prepare(w))
			notify := w.watch()
			w.must(change.remove(w))
			select {
			case <-notify:
			case <-time.After(bound):
				t.Errorf("nothing was told of the %s of %s", what, address)
			}
		}
	}
}
