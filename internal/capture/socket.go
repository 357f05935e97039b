package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of buffers.
const (
	maxPacket  = 1<<16 + 256 // bytes of a super-packet with its link header
	socketRoom = 16 << 20    // bytes that the kernel keeps for us
	controlLen = 64
)

// socket is a packet socket on a device.
type socket struct {
	file  *os.File
	kind  kind
	ended chan struct{} // closed when read returns
}

// openSocket binds only after all options are set, so that no packet comes without its time.
func openSocket(p *Point) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("%w: use sudo", err)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	protocol := p.kind.protocol()
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketRoom),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: p.Index}),
	)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("open a packet socket", err), unix.Close(fd))
	}
	s := &socket{os.NewFile(uintptr(fd), "capture"), p.kind, make(chan struct{})}
	return s, nil
}

// protocol is what a socket asks for: all, which it gets before any program, or one, which it gets behind them.
func (k kind) protocol() uint16 {
	switch k {
	case socketHost:
		return unix.ETH_P_IP
	case socketHostV6:
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_ALL
}

// takes reports whether packets of a direction are wanted.
func (k kind) takes(outgoing bool) bool { return k == socketBoth || outgoing == (k == socketOut) }

func (s *socket) read(take func(time.Time, []byte, int)) error {
	defer close(s.ended)
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	buf, control := make([]byte, maxPacket), make([]byte, controlLen)
	drain := func(fd uintptr) { s.drain(int(fd), buf, control, take) }
	err = raw.Read(func(fd uintptr) bool { // until close sets a deadline
		drain(fd)
		return false
	})
	return errors.Join(err, raw.Control(drain))
}

// drain takes all packets that there are.
func (s *socket) drain(fd int, buf, control []byte, take func(time.Time, []byte, int)) {
	for {
		n, c, _, from, err := unix.Recvmsg(fd, buf, control, unix.MSG_TRUNC)
		if err == unix.EINTR || err == unix.ENETDOWN { // the device may come up again
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && s.kind.takes(ll.Pkttype == unix.PACKET_OUTGOING) {
			take(timeOf(control[:c]), buf[:min(n, len(buf))], n)
		}
	}
}

// timespecLen is the length of struct timespec.
const timespecLen = 16

// timeOf reads when a packet passed, now where the kernel does not tell.
func timeOf(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= timespecLen {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// close has read take what passed before.
func (s *socket) close() (lost int, err error) {
	if err := s.file.SetReadDeadline(time.Now()); err != nil {
		return 0, err
	}
	<-s.ended
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) {
		if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = int(stats.Drops)
		}
	})
	return lost, errors.Join(err, s.file.Close())
}
