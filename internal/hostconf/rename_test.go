package hostconf

import (
	"testing"

	"tapgw/uplinks"
)

// TestRenamedInterfaces: two interfaces get other names, one of them that of the other; what was ours is known to be ours.
func TestRenamedInterfaces(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	apply := func(wan0, wan1, lan string) {
		t.Helper()
		w := r.wanted(true)
		w.Uplinks = []string{wan0, wan1}
		w.Facts.Links = []uplinks.Link{{Index: 2, Name: wan0, Up: true}, {Index: 3, Name: wan1, Up: true}, {Index: 7, Name: lan, Up: true}}
		r.do(func() error { return g.Apply(w) })
	}
	rename := func(old, now string) {
		t.Helper()
		link, err := r.ns.Handle().LinkByName(old)
		r.must(err)
		r.must(r.ns.Handle().LinkSetName(link, now))
	}
	apply("wan0", "wan1", "lan0")
	rename("wan0", "fiber0")
	rename("wan1", "wan0")
	rename("lan0", "home0")
	apply("fiber0", "wan0", "home0")
	if !g.Forwarding("fiber0") || !g.Forwarding("wan0") || g.Forwarding("wan1") || !g.LAN() {
		t.Error("what was ours is not ours any more")
	}
	r.do(g.RestoreAll)
	r.expect("fiber0", "forwarding", "0")
	r.expect("fiber0", "rp_filter", "0")
	r.expect("wan0", "forwarding", "0")
	r.expect("wan0", "rp_filter", "1")
	r.expect("home0", "forwarding", "0")
}
