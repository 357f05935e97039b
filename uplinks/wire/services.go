package wire

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Services lists the UDP ports of sockets of this host that wait for packets to any of its addresses, in ascending order
// and at most MaxFilterServices: their answers get the address that the route suggests. It asks the network namespace of
// the calling thread; the error says that the kernel cannot tell (CONFIG_INET_UDP_DIAG).
func Services() ([]uint16, error) {
	var ports []uint16
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // a socket of IPv6 mostly serves IPv4 as well
		sockets, err := netlink.SocketDiagUDP(family)
		if err != nil {
			return nil, fmt.Errorf("list UDP sockets: %w", err)
		}
		for _, s := range sockets {
			if s.ID.Source.IsUnspecified() && s.ID.DestinationPort == 0 {
				ports = append(ports, s.ID.SourcePort)
			}
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	return ports[:min(len(ports), MaxFilterServices)], nil
}
