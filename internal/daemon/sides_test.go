package daemon

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"tapgw/configs"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
)

// manyAddresses is an uplink with so many addresses of both families.
func manyAddresses(id uint8, n int) *uplinks.Uplink {
	u := &uplinks.Uplink{ID: id}
	for i := range n {
		u.Addresses = append(u.Addresses, netip.AddrFrom4([4]byte{10, id, byte(i >> 8), byte(i)}))
		u.V6.Addresses = append(u.V6.Addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, id, 14: byte(i >> 8), 15: byte(i)}))
	}
	return u
}

// TestReceivedAddresses: an uplink receives what is to its own addresses, and to as many of the others' as the filter can name, of
// the families that are carried.
func TestReceivedAddresses(t *testing.T) {
	d := newTestDaemon(t)
	few, many := manyAddresses(1, 3), manyAddresses(2, 300)
	s := uplinks.NewSnapshot([]*uplinks.Uplink{few, many})
	count := func(list []netip.Addr) (v4, v6 int) {
		for _, a := range list {
			if a.Is4() {
				v4++
			} else {
				v6++
			}
		}
		return v4, v6
	}
	list := d.received(s, few)
	if v4, v6 := count(list); v4 != wire.MaxFilterAddresses || v6 != wire.MaxFilterAddressesV6 {
		t.Errorf("%d addresses of IPv4 and %d of IPv6, want as many as a filter can name", v4, v6)
	}
	if !slices.Equal(list[:6], slices.Concat(few.Addresses, few.V6.Addresses)) || len(slices.Compact(slices.SortedFunc(slices.Values(list), netip.Addr.Compare))) != len(list) {
		t.Errorf("own addresses do not come first, or one comes twice: %v", list[:6])
	}
	if v4, v6 := count(d.received(s, many)); v4 != 300 || v6 != 300 {
		t.Errorf("%d and %d of its own addresses, want all 300", v4, v6)
	}

	config := configs.Default()
	config.TAP.IPv6 = false
	d = newDaemon(Options{Logger: slog.New(slog.DiscardHandler), Datapath: "userspace"}, &configs.Loaded{Config: config})
	labtest.Must(t, d.openTables(d.cfg()))
	if list := d.received(s, few); slices.ContainsFunc(list, netip.Addr.Is6) || len(list) != wire.MaxFilterAddresses {
		t.Errorf("%d addresses, some of IPv6, which is not captured", len(list))
	}
}
