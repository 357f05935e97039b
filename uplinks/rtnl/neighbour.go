package rtnl

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// KeepNeighbour makes the kernel resolve a gateway's MAC address now and, from Linux 5.16 on, keep it fresh by itself. Call
// it for each gateway every few seconds: older kernels only re-check it then.
func (k *Kernel) KeepNeighbour(index int, gateway netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, IP: toIP(gateway), Flags: netlink.NTF_USE,
		FlagsExt: netlink.NTF_EXT_MANAGED}
	err := k.h.NeighSet(n)
	if err != nil {
		n.FlagsExt = 0
		err = k.h.NeighSet(n)
	}
	if err != nil {
		return fmt.Errorf("have the kernel resolve gateway %s on interface %d: %w", gateway, index, err)
	}
	return nil
}

// RenewNeighbour forgets a gateway's MAC address and has the kernel ask anew: a router that was replaced without a word is
// otherwise believed for up to a minute.
func (k *Kernel) RenewNeighbour(index int, gateway netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, IP: toIP(gateway)}
	if err := k.h.NeighDel(n); err != nil && !gone(err) {
		return fmt.Errorf("forget gateway %s on interface %d: %w", gateway, index, err)
	}
	return k.KeepNeighbour(index, gateway)
}

// ReleaseNeighbour ends what KeepNeighbour asked for; the entry ages like any other.
func (k *Kernel) ReleaseNeighbour(index int, gateway netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, IP: toIP(gateway), Flags: netlink.NTF_USE}
	if err := k.h.NeighSet(n); err != nil {
		return fmt.Errorf("release gateway %s on interface %d: %w", gateway, index, err)
	}
	return nil
}
