package daemon

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"

	"tapgw/internal/hostconf"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
)

// tapAddressesKey is where the journal of changes keeps the host's IPv6 addresses on the TAP, for they go with it in a crash but
// connections from them do not.
const tapAddressesKey = "tap_addresses"

// followTAPAddress has the host's IPv6 address on the TAP follow the prefixes of the uplinks.
func (d *Daemon) followTAPAddress(s *uplinks.Snapshot, f uplinks.Facts) error {
	if !d.carriesIPv6() {
		return nil
	}
	next := d.tapAddresses.Follow(s, f, rand.Uint64)
	if reflect.DeepEqual(next, d.tapAddresses) {
		return nil
	}
	if next.Current != d.tapAddresses.Current {
		d.log.Info("IPv6 address of the TAP", "address", next.Current, "before", d.tapAddresses.Current)
	}
	for _, a := range addressesOn(d.tapAddresses) {
		if !slices.Contains(addressesOn(next), a) { // too many came after it
			closeConnections(a, d.log)
		}
	}
	return errors.Join(d.host.Put(tapAddressesKey, addressesOn(next)), d.setTAPAddresses(next))
}

func (d *Daemon) setTAPAddresses(next uplinks.TapAddresses) error {
	d.tapAddresses = next
	d.gateway.For(uplinks.IPv6).SetHost(d.hostOn(uplinks.IPv6), next.Earlier...)
	d.setLimits(d.cfg())
	d.pumps.tap.Load().SetIPv6(d.tapIPv6())
	return d.setHost()
}

// adoptTAPAddresses takes over those of a killed daemon but for what this host has by other means now, so that its applications go
// on or hear at once that their connections are over. Where IPv6 is not captured any more, they are closed.
func (d *Daemon) adoptTAPAddresses(f uplinks.Facts) error {
	var left []netip.Addr
	if found, err := d.host.Get(tapAddressesKey, &left); err != nil || !found {
		return err
	}
	left = slices.DeleteFunc(left, func(a netip.Addr) bool {
		return !a.Is6() || a.Is4In6() || !a.IsGlobalUnicast() || has(f.V6.Addresses, a)
	})
	if d.carriesIPv6() {
		return d.setTAPAddresses(uplinks.TapAddresses{Earlier: left})
	}
	for _, a := range left {
		closeConnections(a, d.log)
	}
	return d.host.Put(tapAddressesKey, nil)
}

// has reports whether an address is one of a list.
func has(list []uplinks.Address, addr netip.Addr) bool {
	return slices.ContainsFunc(list, func(a uplinks.Address) bool { return a.Prefix.Addr() == addr })
}

// tapIPv6 is what the TAP is to have of IPv6.
func (d *Daemon) tapIPv6() tapdev.IPv6 {
	return tapdev.IPv6{Address: d.tapAddresses.Current, Earlier: d.tapAddresses.Earlier, Gateway: gatewayV6}
}

// addressesOn lists all that are valid.
func addressesOn(t uplinks.TapAddresses) []netip.Addr {
	return slices.DeleteFunc(append([]netip.Addr{t.Current}, t.Earlier...), func(a netip.Addr) bool { return !a.IsValid() })
}

// capturesIPv6 reports whether IPv6 has come by the TAP, as an uplink has or had it: that its packets could be carried is not enough.
func (d *Daemon) capturesIPv6() bool { return len(addressesOn(d.tapAddresses)) > 0 }

// captured is where traffic is captured: IPv6 as long as the TAP has an address of it.
func (d *Daemon) captured() uplinks.Capture {
	c, tap := d.cfg().TAP, d.pumps.tap.Load()
	capture := uplinks.Capture{TapIndex: tap.Index(), TapAddress: c.Address.Addr(), TapGateway: c.Gateway(), Steered: d.fast != nil}
	if tap.HasIPv6() {
		capture.TapAddressV6, capture.TapGatewayV6 = d.tapAddresses.Current, gatewayV6
	}
	if d.isPaused() {
		capture.Steered, capture.Only = false, append([]netip.Addr{c.Address.Addr()}, addressesOn(d.tapAddresses)...)
	}
	return capture
}

// closeCaptured closes the connections of this host that go through the TAP, and forgets its addresses.
func (d *Daemon) closeCaptured() error {
	closed := 0
	for _, a := range append([]netip.Addr{d.cfg().TAP.Address.Addr()}, addressesOn(d.tapAddresses)...) {
		closed += closeConnections(a, d.log)
	}
	if closed > 0 {
		d.log.Info("connections through the TAP closed, applications can connect anew", "connections", closed)
	}
	return d.host.Put(tapAddressesKey, nil)
}

// tapAddressesLeft takes those of a killed daemon from the journal.
func tapAddressesLeft(host *hostconf.Guard) (list []netip.Addr, err error) {
	_, err = host.Get(tapAddressesKey, &list)
	return list, errors.Join(err, host.Put(tapAddressesKey, nil))
}
