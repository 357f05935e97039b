package rtnl

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"tapgw/uplinks"
)

// KeepNeighbour makes the kernel resolve a gateway's MAC address now and, from Linux 5.16 on, keep it fresh by itself. Call
// it for each gateway every few seconds, as older kernels only re-check it then, and when addresses have changed: a gateway that was
// asked before the link had one does not answer, and the kernel waits a second until it asks again.
func (k *Kernel) KeepNeighbour(index int, gateway netip.Addr) error {
	return k.resolve(index, gateway, false)
}

// RenewNeighbour forgets a gateway's MAC address and has the kernel ask anew: a router that was replaced without a word is
// otherwise believed for up to a minute.
func (k *Kernel) RenewNeighbour(index int, gateway netip.Addr) error {
	return k.resolve(index, gateway, true)
}

func (k *Kernel) resolve(index int, gateway netip.Addr, anew bool) error {
	is, err := k.entry(index, gateway)
	n := &netlink.Neigh{LinkIndex: index, Family: familyOf(gateway), IP: toIP(gateway)}
	switch {
	case err != nil:
		return err
	case is.State&netlink.NUD_PERMANENT != 0: // by the user, perhaps since the facts were read: whoever asks takes that away
		return nil
	case anew || is.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0:
		if err := k.h.NeighDel(n); err != nil && !gone(err) {
			return fmt.Errorf("forget gateway %s on interface %d: %w", gateway, index, err)
		}
	case is.FlagsExt&netlink.NTF_EXT_MANAGED != 0: // the kernel keeps it by itself already
		return nil
	}
	n.Flags, n.FlagsExt = netlink.NTF_USE, netlink.NTF_EXT_MANAGED
	if err = k.h.NeighSet(n); err != nil {
		n.FlagsExt = 0
		err = k.h.NeighSet(n)
	}
	if err != nil {
		return fmt.Errorf("have the kernel resolve gateway %s on interface %d: %w", gateway, index, err)
	}
	return nil
}

// entry is what the kernel knows of a gateway, zero where that is nothing.
func (k *Kernel) entry(index int, gateway netip.Addr) (netlink.Neigh, error) {
	list, err := k.h.NeighList(index, familyOf(gateway))
	if err != nil {
		return netlink.Neigh{}, fmt.Errorf("neighbours of interface %d: %w", index, err)
	}
	for _, n := range list {
		if n.IP.Equal(toIP(gateway)) {
			return n, nil
		}
	}
	return netlink.Neigh{}, nil
}

// ReleaseNeighbour ends what KeepNeighbour asked for; the entry ages like any other.
func (k *Kernel) ReleaseNeighbour(index int, gateway netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, Family: familyOf(gateway), IP: toIP(gateway), Flags: netlink.NTF_USE}
	if err := k.h.NeighSet(n); err != nil {
		return fmt.Errorf("release gateway %s on interface %d: %w", gateway, index, err)
	}
	return nil
}

// KeptNeighbours lists the gateways in routes of ours that KeepNeighbour still holds, those of an earlier process too.
func (k *Kernel) KeptNeighbours() ([]uplinks.Neighbour, error) {
	have, err := k.present()
	if err != nil {
		return nil, err
	}
	var kept []uplinks.Neighbour
	for _, family := range families {
		list, err := dump("neighbours", func() ([]netlink.Neigh, error) { return k.h.NeighList(0, family) })
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			isGateway := func(r netlink.Route) bool { return r.LinkIndex == n.LinkIndex && r.Gw != nil && r.Gw.Equal(n.IP) }
			if n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 && slices.ContainsFunc(have.routes, isGateway) {
				kept = append(kept, neighbour(n))
			}
		}
	}
	return kept, nil
}
