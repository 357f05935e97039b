package hostconf

import (
	"slices"
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
	if !g.Forwarding("fiber0") || !g.Forwarding("wan0") || g.Forwarding("wan1") || len(g.LAN()) == 0 {
		t.Error("what was ours is not ours any more")
	}
	r.do(g.RestoreAll)
	r.expect("fiber0", "forwarding", "0")
	r.expect("fiber0", "rp_filter", "0")
	r.expect("wan0", "forwarding", "0")
	r.expect("wan0", "rp_filter", "1")
	r.expect("home0", "forwarding", "0")
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
