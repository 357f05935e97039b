package tapdev

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// queueLen is how many frames wait in the device for the daemon: 3 ms at 0.3 million a second.
const queueLen = 1000

// minIPv6MTU is the least with which a device has IPv6 at all (RFC 8200 §5), bytes.
const minIPv6MTU = 1280

// configure does what Check repairs, and what nobody else touches.
func (d *Device) configure() error {
	if err := disableIPv6(d.cfg.Name); err != nil {
		return err
	}
	link, err := d.handle.LinkByIndex(d.index)
	if err != nil {
		return fmt.Errorf("find it again: %w", err)
	}
	if err := d.handle.LinkSetTxQLen(link, queueLen); err != nil {
		return fmt.Errorf("set queue length: %w", err)
	}
	_, err = d.Check(d.cfg.MTU)
	return err
}

// Check puts back what someone changed: MAC, MTU (bytes, the one now wanted), addresses, neighbour entries and up; a new name is
// kept. It returns what it repaired, one clause each, ErrGone when the device no longer exists, and net.ErrClosed after Close.
func (d *Device) Check(mtu int) (repaired []string, err error) {
	if _, err := d.queues[0].file.Acquire(); err != nil {
		return nil, err
	}
	defer d.queues[0].file.Release()
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted := d.cfg.MTU
	d.cfg.MTU = mtu
	link, err := d.handle.LinkByIndex(d.index)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("TAP device %s: %w", d.name, err)
	}
	if now := link.Attrs().Name; now != d.name {
		repaired = append(repaired, fmt.Sprintf("name: %s is now %s", d.name, now))
		d.name = now
	}
	checkMTU := func(l netlink.Link) (string, error) { return d.checkMTU(l, wanted) }
	for _, step := range []func(netlink.Link) (string, error){d.checkMAC, checkMTU, d.checkUp, d.checkAddress, d.checkNeighbour} {
		what, err := step(link)
		if err != nil {
			return repaired, fmt.Errorf("TAP device %s: %w", d.name, err)
		}
		if what != "" {
			repaired = append(repaired, what)
		}
	}
	v6, err := d.checkIPv6(link)
	if err != nil {
		err = fmt.Errorf("TAP device %s: %w", d.name, err)
	}
	return append(repaired, v6...), err
}

func (d *Device) checkMAC(link netlink.Link) (string, error) {
	want := net.HardwareAddr(d.cfg.MAC[:])
	if bytes.Equal(link.Attrs().HardwareAddr, want) {
		return "", nil
	}
	if err := d.handle.LinkSetHardwareAddr(link, want); err != nil {
		return "", fmt.Errorf("set MAC address: %w", err)
	}
	return "MAC address", nil
}

// checkMTU does not call it a repair when only the wish has changed since the one before.
func (d *Device) checkMTU(link netlink.Link, before int) (string, error) {
	now := link.Attrs().MTU
	if now == d.cfg.MTU {
		return "", nil
	}
	if err := d.handle.LinkSetMTU(link, d.cfg.MTU); err != nil {
		return "", fmt.Errorf("set MTU %d: %w", d.cfg.MTU, err)
	}
	if now < minIPv6MTU { // IPv6 comes to the device, with its defaults
		if err := disableIPv6(d.name); err != nil {
			return "", err
		}
	}
	if now == before {
		return "", nil
	}
	return fmt.Sprintf("MTU %d", d.cfg.MTU), nil
}

func (d *Device) checkUp(link netlink.Link) (string, error) {
	if link.Attrs().Flags&net.FlagUp != 0 {
		return "", nil
	}
	if err := d.handle.LinkSetUp(link); err != nil {
		return "", fmt.Errorf("bring up: %w", err)
	}
	return "up", nil
}

func (d *Device) checkAddress(link netlink.Link) (string, error) {
	if !d.cfg.Address.IsValid() {
		return "", nil
	}
	have, err := d.handle.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	want, err := netlink.ParseAddr(d.cfg.Address.String())
	if err != nil {
		return "", err
	}
	if d.cfg.Address.IsSingleIP() { // nobody is reached by it, so it must not become the source of packets elsewhere
		want.Scope = unix.RT_SCOPE_HOST
	}
	for _, a := range have {
		if a.IPNet.String() == want.IPNet.String() {
			return "", nil
		}
	}
	if err := d.handle.AddrReplace(link, want); err != nil {
		return "", fmt.Errorf("set address %s: %w", d.cfg.Address, err)
	}
	return "address " + d.cfg.Address.String(), nil
}

func (d *Device) checkNeighbour(netlink.Link) (string, error) {
	if !d.cfg.Gateway.IsValid() {
		return "", nil
	}
	return d.neighbour(netlink.FAMILY_V4, d.cfg.Gateway)
}

// neighbour makes a gateway's entry permanent, and says so where it was not.
func (d *Device) neighbour(family int, gateway netip.Addr) (string, error) {
	have, err := d.handle.NeighList(d.index, family)
	if err != nil {
		return "", fmt.Errorf("list neighbours: %w", err)
	}
	want := &netlink.Neigh{LinkIndex: d.index, Family: family, State: unix.NUD_PERMANENT,
		IP: gateway.AsSlice(), HardwareAddr: d.cfg.GatewayMAC[:]}
	for _, n := range have {
		if n.State == unix.NUD_PERMANENT && n.IP.Equal(want.IP) && bytes.Equal(n.HardwareAddr, want.HardwareAddr) {
			return "", nil
		}
	}
	if err := d.handle.NeighSet(want); err != nil {
		return "", fmt.Errorf("set neighbour %s: %w", gateway, err)
	}
	return "neighbour " + gateway.String(), nil
}
