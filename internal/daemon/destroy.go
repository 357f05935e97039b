package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sizeofDestroy is that of struct inet_diag_req_v2 (linux/inet_diag.h), bytes.
const sizeofDestroy = 56

// destroy names one socket to the kernel.
type destroy struct {
	protocol uint8
	socket   *netlink.Socket
}

func (destroy) Len() int { return sizeofDestroy }

// Serialize makes it a struct inet_diag_req_v2. The cookie keeps a later socket with the same ports safe.
func (d destroy) Serialize() []byte {
	id := d.socket.ID
	b := append(make([]byte, 0, sizeofDestroy), d.socket.Family, d.protocol, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 0) // states matter to listings only
	b = binary.BigEndian.AppendUint16(b, id.SourcePort)
	b = binary.BigEndian.AppendUint16(b, id.DestinationPort)
	source, destination := id.Source.To16(), id.Destination.To16()
	if d.socket.Family == unix.AF_INET {
		source, destination = append(id.Source.To4(), make([]byte, 12)...), append(id.Destination.To4(), make([]byte, 12)...)
	}
	b = append(append(b, source...), destination...)
	for _, word := range []uint32{id.Interface, id.Cookie[0], id.Cookie[1]} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	return b
}

// closeConnections has applications connect anew, now that they can by plain routing. That the kernel cannot do it is told.
func closeConnections(addr netip.Addr, log *slog.Logger) (closed int) {
	closed, err := closeSockets(addr)
	if err != nil {
		log.Warn("connections through the TAP stay open until their applications give up", "error", err)
	}
	return closed
}

// closeSockets closes the connections of this host that have addr, so that applications connect anew at once instead of
// waiting for answers that cannot come. Servers and sockets without a peer stay. A kernel without
// CONFIG_INET_DIAG_DESTROY answers EOPNOTSUPP.
func closeSockets(addr netip.Addr) (closed int, err error) {
	var errs []error
	for _, list := range []struct {
		protocol uint8
		of       func(family uint8) ([]*netlink.Socket, error)
	}{{unix.IPPROTO_TCP, netlink.SocketDiagTCP}, {unix.IPPROTO_UDP, netlink.SocketDiagUDP}} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // IPv4 is used by sockets of either
			sockets, err := list.of(family)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				errs = append(errs, fmt.Errorf("list sockets of protocol %d: %w", list.protocol, err))
			}
			n, err := destroyAll(list.protocol, sockets, addr)
			closed += n
			errs = append(errs, err)
		}
	}
	return closed, errors.Join(errs...)
}

// destroyAll returns the first refusal of the kernel to close a socket. Sockets without an inode, as in TIME-WAIT, have no
// application any more.
func destroyAll(protocol uint8, sockets []*netlink.Socket, addr netip.Addr) (closed int, refusal error) {
	for _, s := range sockets {
		source, _ := netip.AddrFromSlice(s.ID.Source)
		if source.Unmap() != addr || s.ID.DestinationPort == 0 || s.INode == 0 {
			continue
		}
		request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
		request.AddData(destroy{protocol, s})
		_, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // it ended meanwhile
		}
		if err == nil {
			closed++
		} else if refusal == nil {
			refusal = fmt.Errorf("close a socket of protocol %d: %w", protocol, err)
		}
	}
	return closed, refusal
}
