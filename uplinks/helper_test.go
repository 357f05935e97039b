package uplinks

import (
	"net/netip"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// world builds facts piece by piece.
type world struct{ Facts }

func (w *world) eth(index int, name string) *world {
	w.Links = append(w.Links, Link{Index: index, Name: name, MTU: 1500, MAC: [6]byte{2, 0, 0, 0, 0, byte(index)}, Up: true, Carrier: true})
	return w
}

func (w *world) p2p(index int, name, kind string) *world {
	w.Links = append(w.Links, Link{Index: index, Name: name, MTU: 1400, Up: true, Carrier: true, PointToPoint: true, HeaderLess: true, Kind: kind})
	return w
}

func (w *world) addr(index int, prefix string) *world {
	w.Addresses = append(w.Addresses, Address{Index: index, Prefix: pfx(prefix)})
	return w
}

// via adds a default route; gw "" means on-link.
func (w *world) via(index int, gw string, metric int) *world {
	r := Route{Table: TableMain, Dst: everywhere, Index: index, Metric: metric, Protocol: 3}
	if gw != "" {
		r.Gateway = addr(gw)
	}
	w.Routes = append(w.Routes, r)
	return w
}

func (w *world) arp(index int, ip string, last byte, state int) *world {
	w.Neighbours = append(w.Neighbours, Neighbour{Index: index, Addr: addr(ip), MAC: [6]byte{2, 1, 1, 1, 1, last}, State: state})
	return w
}

func (w *world) link(index int) *Link {
	for i := range w.Links {
		if w.Links[i].Index == index {
			return &w.Links[i]
		}
	}
	return nil
}

// remove takes away a device and all that hangs on it, as the kernel does.
func (w *world) remove(index int) *world {
	var f Facts
	for _, l := range w.Links {
		if l.Index != index {
			f.Links = append(f.Links, l)
		}
	}
	for _, a := range w.Addresses {
		if a.Index != index {
			f.Addresses = append(f.Addresses, a)
		}
	}
	for _, r := range w.Routes {
		if r.Index != index {
			f.Routes = append(f.Routes, r)
		}
	}
	for _, n := range w.Neighbours {
		if n.Index != index {
			f.Neighbours = append(f.Neighbours, n)
		}
	}
	w.Facts = f
	return w
}

// twoISPs is two Ethernet uplinks with the same subnet and gateway address.
func twoISPs() *world {
	return new(world).
		eth(2, "eth0").addr(2, "192.168.1.10/24").via(2, "192.168.1.1", 100).arp(2, "192.168.1.1", 1, 0x02).
		eth(3, "eth1").addr(3, "192.168.1.20/24").via(3, "192.168.1.1", 200).arp(3, "192.168.1.1", 2, 0x02)
}

func healthy() TrackerConfig { return TrackerConfig{TapName: "tapgw0", AssumeHealthy: true} }

func byName(t *testing.T, s *Snapshot, name string) *Uplink {
	t.Helper()
	for _, u := range s.Uplinks {
		if u.Name == name {
			return u
		}
	}
	t.Fatalf("no uplink %q", name)
	return nil
}

func names(s *Snapshot) string {
	out := ""
	for _, u := range s.Uplinks {
		out += u.Name + " "
	}
	return out
}

func kinds(events []Event) string {
	out := ""
	for _, e := range events {
		out += string(e.Kind) + " "
	}
	return out
}
