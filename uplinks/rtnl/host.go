package rtnl

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host returns the name of the device by which the kernel reaches an address, and the hardware address of its next hop: the host itself,
// or the router that it is behind; zero while that is not known.
func (k *Kernel) Host(addr netip.Addr) (device string, mac [6]byte, err error) {
	routes, err := k.h.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return "", mac, fmt.Errorf("find the way to %s: %w", addr, err)
	}
	link, err := k.h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", mac, fmt.Errorf("find the device that leads to %s: %w", addr, err)
	}
	hop := addr
	if gateway, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		hop = gateway.Unmap()
	}
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	neighbours, err := dump("neighbours", func() ([]netlink.Neigh, error) { return k.h.NeighList(routes[0].LinkIndex, family) })
	for _, n := range neighbours {
		if found := neighbour(n); found.Addr == hop {
			mac = found.MAC
		}
	}
	return link.Attrs().Name, mac, err
}
