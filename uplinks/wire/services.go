package wire

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoServices says that the kernel cannot tell which UDP sockets there are.
var ErrNoServices = errors.New("the kernel lacks CONFIG_INET_UDP_DIAG")

// Services lists the UDP ports of sockets of this host that wait for packets to any of its addresses, in ascending order:
// their answers get the address that the route suggests. It asks the network namespace of the calling thread. Errors but
// ErrNoServices may pass.
func Services() ([]uint16, error) {
	var ports []uint16
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // a socket of IPv6 mostly serves IPv4 as well
		sockets, err := netlink.SocketDiagUDP(family)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, fmt.Errorf("list UDP sockets: %w (%w)", ErrNoServices, err)
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list UDP sockets: %w", err)
		}
		for _, s := range sockets {
			if s.ID.Source.IsUnspecified() && s.ID.DestinationPort == 0 {
				ports = append(ports, s.ID.SourcePort)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}
