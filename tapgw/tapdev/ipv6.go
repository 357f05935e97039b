package tapdev

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IPv6 is what the device has of IPv6. The zero value switches it off there.
type IPv6 struct {
	Address netip.Addr   // the host's, for new connections, or invalid
	Earlier []netip.Addr // deprecated ones, for connections that have them (RFC 4862 §5.5.4)
	Gateway netip.Addr   // link-local; gets a permanent neighbour entry with GatewayMAC
}

func (v IPv6) wanted() bool { return v.Address.IsValid() || len(v.Earlier) > 0 }

// has reports whether a is among the addresses in that role.
func (v IPv6) has(a netip.Addr, deprecated bool) bool {
	if deprecated {
		return slices.Contains(v.Earlier, a)
	}
	return a == v.Address
}

// SetIPv6 changes what the next Check makes the device have.
func (d *Device) SetIPv6(v IPv6) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cfg.IPv6 = v
}

// HasIPv6 reports whether the device has an address for new connections since the last Check, so that a route may lead there.
// With an MTU below 1280 it cannot (RFC 8200 §5).
func (d *Device) HasIPv6() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.standing.Address.IsValid()
}

// quiet are the settings with which the kernel makes no address of its own there, and asks nobody for one, for a router or
// whether an address is free: nobody but us is there.
var quiet = []struct{ name, value string }{
	{"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"dad_transmits", "0"}, {"router_solicitations", "0"},
}

func settingV6(device, name string) string { return "/proc/sys/net/ipv6/conf/" + device + "/" + name }

// setV6 writes a setting of a device, if the kernel has IPv6 there, and reports whether it was another.
func setV6(device, name, value string) (changed bool, err error) {
	path := settingV6(device, name)
	now, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(now)) != value {
		changed, err = true, setSysctl(path, value)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("set %s: %w", name, err)
	}
	return changed, nil
}

// setSysctl writes a setting of the kernel.
func setSysctl(path, value string) error {
	err := os.WriteFile(path, []byte(value), 0o644)
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w (%w)", ErrReadOnly, err)
	}
	return err
}

// disableIPv6 keeps the kernel from sending router solicitations and multicast reports into a device without IPv6.
func disableIPv6(device string) error {
	_, err := setV6(device, "disable_ipv6", "1")
	return err
}

// checkIPv6 makes the device have what is wanted of IPv6. What it had before, or a device that had none, is repaired; the rest is
// a new wish.
func (d *Device) checkIPv6(link netlink.Link) (repaired []string, err error) {
	before := d.standing
	if !d.cfg.IPv6.wanted() {
		d.standing = IPv6{}
		return d.checkOff(before)
	}
	if _, err := os.Stat(settingV6(d.name, "disable_ipv6")); err != nil {
		d.standing = IPv6{} // the MTU is too small, or the kernel has no IPv6 at all
		return nil, nil     //nolint:nilerr // there is nothing to be set
	}
	for _, step := range []func(netlink.Link, IPv6) ([]string, error){d.checkQuiet, d.checkAddressesV6, d.checkNeighbourV6} {
		what, err := step(link, before)
		repaired = append(repaired, what...)
		if err != nil {
			return repaired, err
		}
	}
	d.standing = d.cfg.IPv6
	return repaired, d.leaveMulticast()
}

// checkOff keeps IPv6 off, which whoever switches it on for all devices changes here too.
func (d *Device) checkOff(before IPv6) (repaired []string, err error) {
	enabled, err := setV6(d.name, "disable_ipv6", "1")
	if enabled && !before.wanted() {
		repaired = []string{"IPv6 off"}
	}
	return repaired, err
}

// checkQuiet switches IPv6 off while any setting changes, so that what others made of the old ones goes.
func (d *Device) checkQuiet(_ netlink.Link, before IPv6) ([]string, error) {
	other := false
	for _, s := range quiet {
		now, err := os.ReadFile(settingV6(d.name, s.name))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.name, err)
		}
		other = other || strings.TrimSpace(string(now)) != s.value
	}
	var errs []error
	if other {
		errs = append(errs, disableIPv6(d.name))
		for _, s := range quiet {
			_, err := setV6(d.name, s.name, s.value)
			errs = append(errs, err)
		}
	}
	enabled, err := setV6(d.name, "disable_ipv6", "0")
	if (other || enabled) && before.wanted() {
		return []string{"IPv6 on"}, errors.Join(append(errs, err)...)
	}
	return nil, errors.Join(append(errs, err)...)
}

func (d *Device) checkAddressesV6(link netlink.Link, before IPv6) (repaired []string, err error) {
	have, err := d.handle.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return nil, fmt.Errorf("list IPv6 addresses: %w", err)
	}
	list := slices.Concat([]netip.Addr{d.cfg.IPv6.Address}, d.cfg.IPv6.Earlier)
	for i, a := range list {
		deprecated := i > 0
		if !a.IsValid() || slices.ContainsFunc(have, func(h netlink.Addr) bool { return isV6(h, a, deprecated) }) {
			continue
		}
		if err := d.handle.AddrReplace(link, addressV6(a, deprecated)); err != nil {
			return repaired, fmt.Errorf("set address %s: %w", a, err)
		}
		if before.has(a, deprecated) {
			repaired = append(repaired, "address "+a.String())
		}
	}
	for _, a := range slices.Concat([]netip.Addr{before.Address}, before.Earlier) {
		if !a.IsValid() || slices.Contains(list, a) {
			continue
		}
		if err := d.handle.AddrDel(link, addressV6(a, false)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return repaired, fmt.Errorf("remove address %s: %w", a, err)
		}
	}
	return repaired, nil
}

func isV6(h netlink.Addr, a netip.Addr, deprecated bool) bool {
	return h.IP.Equal(a.AsSlice()) && (h.Flags&unix.IFA_F_DEPRECATED != 0) == deprecated
}

// addressV6 is valid for ever. Nobody else is in its subnet, which therefore gets no route.
func addressV6(a netip.Addr, deprecated bool) *netlink.Addr {
	out := &netlink.Addr{
		IPNet: netlink.NewIPNet(a.AsSlice()), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
		ValidLft: math.MaxUint32, PreferedLft: math.MaxUint32,
	}
	if deprecated {
		out.PreferedLft = 0
	}
	return out
}

func (d *Device) checkNeighbourV6(_ netlink.Link, before IPv6) ([]string, error) {
	what, err := d.neighbour(netlink.FAMILY_V6, d.cfg.IPv6.Gateway)
	if what == "" || before.Gateway != d.cfg.IPv6.Gateway {
		return nil, err
	}
	return []string{what}, err
}

// multicastV6 is all of it (RFC 4291 §2.7).
var multicastV6 = &net.IPNet{IP: net.ParseIP("ff00::"), Mask: net.CIDRMask(8, 128)}

// leaveMulticast takes back the route for multicast that the kernel gives each device with its first address, of equal metric
// for all: after an uplink went down and up the TAP's would be the first, and discovery would end here.
func (d *Device) leaveMulticast() error {
	err := d.handle.RouteDel(&netlink.Route{
		Family: unix.AF_INET6, Table: unix.RT_TABLE_LOCAL, LinkIndex: d.index, Dst: multicastV6,
	})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route for multicast: %w", err)
	}
	return nil
}
