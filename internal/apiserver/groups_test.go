package apiserver

import (
	"fmt"
	"net/netip"
	"testing"

	"tapgw/api"
)

func TestSessionGroups(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(8)
	for i := range fake.Table {
		fake.Table[i].BytesIn = uint64(1000 * i)
		fake.Table[i].Remote = netip.MustParseAddrPort("198.51.100.80:443")
	}
	fake.Table[3].Domain = "www.example.com"
	_, c := browse(t, fake, "")
	get := func(query string) api.SessionGroups {
		t.Helper()
		g, err := c.SessionGroups(t.Context(), query, "")
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := get("uplink"); fmt.Sprint(g) != "{8 2 [{lte  4 0 16000 [lte]} {fiber  4 0 12000 [fiber]}]}" {
		t.Errorf("by uplink: %v", g)
	}
	fake.Table[3].Host = "nas"
	if g := get("host"); g.Total != 4 || g.Groups[0].Key != "10.0.0.3" || g.Groups[0].Host != "nas" || g.Groups[0].Sessions != 2 {
		t.Errorf("by host: %v", g)
	}
	if g := get("site"); g.Total != 2 || g.Groups[0].Key != "198.51.100.80" || g.Groups[1].Key != "www.example.com" {
		t.Errorf("by site: %v", g)
	}
	if g, err := c.SessionGroups(t.Context(), "session", "EXAMPLE"); err != nil || g.Sessions != 1 || len(g.Groups) != 1 {
		t.Errorf("filtered: %v, %v", g, err)
	}
}

func TestSessionGroupsAreBounded(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(5000)
	_, c := browse(t, fake, "")
	if g, err := c.SessionGroups(t.Context(), "session", ""); err != nil || g.Sessions != 5000 || g.Total != 5000 || len(g.Groups) != maxSessionGroups {
		t.Errorf("%d sessions, %d groups of %d, %v", g.Sessions, len(g.Groups), g.Total, err)
	}
}
