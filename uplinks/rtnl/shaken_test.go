package rtnl

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestShaken: whoever misses a route that went with its address or device finds out at once, also when both came back, and a
// route that somebody deleted is laid to nobody.
func TestShaken(t *testing.T) {
	w := newWorld(t)
	index := w.veth("eth7", "192.0.2.2", "192.0.2.1")
	route := w.defaultVia("eth7", "192.0.2.1", 7)
	var s *Shaken
	w.must(w.host.Do(func() (err error) { s, err = NewShaken(); return err }))
	defer s.Close()
	shaken := func(change string, want bool) {
		t.Helper()
		w.must(s.Look())
		if s.Has(index) != want {
			t.Errorf("%s: shaken %t", change, !want)
		}
		clear(s.at)
	}
	w.must(w.h.RouteDel(route))
	shaken("a route deleted", false)
	w.must(w.h.RouteAdd(route))
	for range 100 {
		w.must(w.h.AddrDel(w.link("eth7"), parse("192.0.2.2/24")))
		w.must(w.h.AddrAdd(w.link("eth7"), parse("192.0.2.2/24")))
		shaken("an address renewed", true)
	}
	w.must(w.h.LinkSetDown(w.link("eth7")))
	w.must(w.h.LinkSetUp(w.link("eth7")))
	shaken("the device switched off and on", true)
}

// TestShakenWhileRoutesGo: the message is there before the route is gone.
func TestShakenWhileRoutesGo(t *testing.T) {
	w := newWorld(t)
	index := w.veth("eth7", "192.0.2.2", "192.0.2.1")
	var s *Shaken
	w.must(w.host.Do(func() (err error) { s, err = NewShaken(); return err }))
	defer s.Close()
	link, address := w.link("eth7"), parse("192.0.2.2/24")
	for range 50 {
		w.defaultVia("eth7", "192.0.2.1", 7)
		w.must(s.Look())
		clear(s.at)
		done := make(chan error, 1)
		go func() { done <- w.isolated(func(h *netlink.Handle) error { return h.AddrDel(link, address) }) }()
		for begun := time.Now(); w.hasRoutes(link); {
			if time.Since(begun) > bound {
				t.Fatal("the route stays")
			}
		}
		w.must(s.Look())
		if !s.Has(index) {
			t.Fatal("the route was gone before the message came")
		}
		w.must(<-done)
		w.must(w.h.AddrAdd(link, address))
	}
}

// isolated calls f with a handle of its own, because one handle is not for two goroutines.
func (w *world) isolated(f func(h *netlink.Handle) error) error {
	return w.host.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
}

// hasRoutes reports whether any route of the main table leads to the device.
func (w *world) hasRoutes(link netlink.Link) bool {
	w.t.Helper()
	routes, err := w.h.RouteList(link, unix.AF_INET)
	w.must(err)
	return len(routes) > 0
}
