package wire

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// ErrNoServices says that the kernel cannot tell which sockets there are.
var ErrNoServices = errors.New("the kernel lacks CONFIG_INET_DIAG or CONFIG_INET_UDP_DIAG")

// Sockets is what the sockets of this host have.
type Sockets struct {
	TCP, UDP packet.PortSet // ports of this side, on any address
	// Services are the UDP ports of sockets that wait for packets to any of its addresses, in ascending order: their
	// answers get the address that the route suggests.
	Services []uint16
}

// ReadSockets asks the network namespace of the calling thread. Errors but ErrNoServices may pass.
func ReadSockets() (*Sockets, error) {
	s := new(Sockets)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // a socket of IPv6 mostly serves IPv4 as well
		tcp, err := sockets("TCP", netlink.SocketDiagTCP, family)
		if err != nil {
			return nil, err
		}
		udp, err := sockets("UDP", netlink.SocketDiagUDP, family)
		if err != nil {
			return nil, err
		}
		for _, t := range tcp {
			s.TCP.Add(t.ID.SourcePort)
		}
		for _, u := range udp {
			s.UDP.Add(u.ID.SourcePort)
			if u.ID.Source.IsUnspecified() && u.ID.DestinationPort == 0 {
				s.Services = append(s.Services, u.ID.SourcePort)
			}
		}
	}
	slices.Sort(s.Services)
	s.Services = slices.Compact(s.Services)
	return s, nil
}

func sockets(kind string, list func(uint8) ([]*netlink.Socket, error), family uint8) ([]*netlink.Socket, error) {
	found, err := list(family)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("list %s sockets: %w (%w)", kind, ErrNoServices, err)
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list %s sockets: %w", kind, err)
	}
	return found, nil
}
