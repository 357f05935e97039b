package lab

import (
	"errors"
	"net/netip"
)

// RouteV6 has the provider route a prefix to the gateway's address, as one that delegates a prefix does (RFC 8415 §6.3).
func (u *Uplink) RouteV6(p netip.Prefix) error {
	return errors.Join(
		u.ISP.addRoute(p, u.AddrV6(), DeviceCustomer, 0),
		u.internet.addRoute(p, backboneV6(u.Number, 1).Addr(), u.ISP.name, 0))
}
