package daemon

import (
	"net/netip"
	"testing"

	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

// TestLostAddress: the kernel removes routes with an address, and nobody is accused of it even before its message is read.
func TestLostAddress(t *testing.T) {
	d := &Daemon{watcher: new(rtnl.Watcher)}
	first := uplinks.Address{Index: 1, Prefix: netip.MustParsePrefix("100.64.1.2/24")}
	second := uplinks.Address{Index: 2, Prefix: netip.MustParsePrefix("100.64.2.2/24")}
	d.noteLost([]uplinks.Address{first, second})
	if d.watcher.Shaken(1) || d.watcher.Shaken(2) {
		t.Error("an address is lost at the first look")
	}
	first.Prefix = netip.MustParsePrefix("100.64.77.5/24")
	d.noteLost([]uplinks.Address{first, second})
	if !d.watcher.Shaken(1) || d.watcher.Shaken(2) {
		t.Error("not just the first device lost an address")
	}
}
