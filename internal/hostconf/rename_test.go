package hostconf

import (
	"slices"
	"testing"

	"tapgw/uplinks"
)

// apply gives the guard facts with these names.
func (r *router) apply(g *Guard, wan0, wan1, lan string) {
	r.t.Helper()
	w := r.wanted(true)
	w.Uplinks = []string{wan0, wan1}
	w.Facts.Links = []uplinks.Link{{Index: 2, Name: wan0, Up: true}, {Index: 3, Name: wan1, Up: true}, {Index: 7, Name: lan, Up: true}}
	r.do(func() error { return g.Apply(w) })
}

func (r *router) rename(old, now string) {
	r.t.Helper()
	link, err := r.ns.Handle().LinkByName(old)
	r.must(err)
	r.must(r.ns.Handle().LinkSetName(link, now))
}

// TestRenamedInterfaces: two interfaces get other names, one of them that of the other; what was ours is known to be ours.
func TestRenamedInterfaces(t *testing.T) {
	for name, stale := range map[string]bool{"facts of now": false, "once facts of before": true} {
		t.Run(name, func(t *testing.T) { testRenamedInterfaces(t, stale) })
	}
}

func testRenamedInterfaces(t *testing.T, stale bool) {
	r := newRouter(t)
	g := r.open()
	r.apply(g, "wan0", "wan1", "lan0")
	r.rename("wan0", "fiber0")
	r.rename("wan1", "wan0")
	r.rename("lan0", "home0")
	if stale {
		r.apply(g, "wan0", "wan1", "lan0")
	}
	r.apply(g, "fiber0", "wan0", "home0")
	if !g.Forwarding("fiber0") || !g.Forwarding("wan0") || g.Forwarding("wan1") || len(g.LAN()) == 0 {
		t.Error("what was ours is not ours any more")
	}
	r.do(g.RestoreAll)
	r.expect("fiber0", "forwarding", "0")
	r.expect("fiber0", "rp_filter", "0")
	r.expect("wan0", "forwarding", "0")
	r.expect("wan0", "rp_filter", "1")
	r.expect("home0", "forwarding", "0")
	r.emptied()
}

// TestGoneInterface: what was written down for an interface leaves the journal when the facts do not name it any more.
func TestGoneInterface(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.apply(g, "wan0", "wan1", "lan0")
	link, err := r.ns.Handle().LinkByName("wan1")
	r.must(err)
	r.must(r.ns.Handle().LinkDel(link))
	r.apply(g, "wan0", "wan1", "lan0")
	if !g.Forwarding("wan1") {
		t.Error("forgotten while the facts name it")
	}
	w := r.wanted(true)
	r.do(func() error { return g.Apply(w) })
	if g.Forwarding("wan1") {
		t.Error("still known")
	}
	r.do(g.RestoreAll)
	r.emptied()
}

// TestNameOfAGoneInterface: what was written down for it does not mix with what is known of the one that has its name now.
func TestNameOfAGoneInterface(t *testing.T) {
	j := journal{Version: journalVersion, Sysctls: []entry{
		{sysctlPath("wan0", "rp_filter"), "1", "2"}, {sysctlPath("wan1", "rp_filter"), "0", "2"}, {sysctlPath("wan2", "rp_filter"), "1", "2"},
	}}
	j, lan := follow(map[string]string{"wan0": "wan1"}, j, []string{"wan0", "lan0"})
	want := []entry{{sysctlPath("wan1", "rp_filter"), "1", "2"}, {sysctlPath("wan2", "rp_filter"), "1", "2"}}
	if !slices.Equal(j.Sysctls, want) || !slices.Equal(lan, []string{"wan1", "lan0"}) {
		t.Errorf("%v, LAN %v", j.Sysctls, lan)
	}
}
