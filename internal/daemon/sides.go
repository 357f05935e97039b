package daemon

import (
	"net/netip"
	"slices"

	"tapgw/uplinks"
	"tapgw/uplinks/wire"
)

// sides are an uplink to the families that are carried.
func (d *Daemon) sides(u *uplinks.Uplink) []*uplinks.Side {
	if d.carriesIPv6() {
		return []*uplinks.Side{&u.Side, &u.V6}
	}
	return []*uplinks.Side{&u.Side}
}

// carried collects what the sides of an uplink that are carried have.
func (d *Daemon) carried(u *uplinks.Uplink, what func(*uplinks.Side) []netip.Addr) (list []netip.Addr) {
	for _, s := range d.sides(u) {
		list = append(list, what(s)...)
	}
	return list
}

func addresses(s *uplinks.Side) []netip.Addr { return s.Addresses }

// prefixes are those outside that are translated, where IPv6 is carried.
func (d *Daemon) prefixes(s *uplinks.Snapshot) []netip.Prefix {
	if !d.carriesIPv6() {
		return nil
	}
	return s.Prefixes()
}

// received are the addresses to which an uplink receives packets: its own, and as many of the others' as a filter can name.
func (d *Daemon) received(s *uplinks.Snapshot, u *uplinks.Uplink) (list []netip.Addr) {
	room := map[bool]int{true: wire.MaxFilterAddresses, false: wire.MaxFilterAddressesV6}
	for i, one := range slices.Concat([]*uplinks.Uplink{u}, s.Uplinks) {
		for _, a := range d.carried(one, addresses) {
			if own := i == 0; !slices.Contains(list, a) && (own || room[a.Is4()] > 0) {
				list = append(list, a)
				room[a.Is4()]--
			}
		}
	}
	return list
}
