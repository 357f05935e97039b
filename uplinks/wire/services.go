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

// SocketReader lists the sockets of the network namespace of the thread that opened it.
type SocketReader struct{ kernel *netlink.Handle }

// OpenSocketReader connects to the kernel. A kernel without socket diagnosis is ErrNoServices.
func OpenSocketReader() (*SocketReader, error) {
	h, err := netlink.NewHandle(unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, lacking("open a socket to list sockets", err)
	}
	return &SocketReader{h}, nil
}

// Close gives up the socket.
func (r *SocketReader) Close() { r.kernel.Close() }

// Read lists the sockets there are. Errors but ErrNoServices may pass.
func (r *SocketReader) Read() (*Sockets, error) {
	s := new(Sockets)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // a socket of IPv6 mostly serves IPv4 as well
		tcp, err := sockets("TCP", r.kernel.SocketDiagTCP, family)
		if err != nil {
			return nil, err
		}
		udp, err := sockets("UDP", r.kernel.SocketDiagUDP, family)
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
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, lacking("list "+kind+" sockets", err)
	}
	return found, nil
}

// lacking marks errors that will not pass.
func lacking(what string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%s: %w (%w)", what, ErrNoServices, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
