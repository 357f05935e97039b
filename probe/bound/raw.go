package bound

import (
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Go's scheduler is not told of the system calls here, as they never wait: each that it is told of wakes up a thread of the runtime
// that was asleep, which would be most of what a probe costs while nothing else goes on.

// Raw is the descriptor of a socket of package net.
func Raw(conn net.PacketConn) (syscall.RawConn, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, unix.EOPNOTSUPP
	}
	return c.SyscallConn()
}

// SendTo sends a packet by a raw socket of the address's family, when there is room.
func SendTo(c syscall.RawConn, packet []byte, to netip.Addr) error {
	address, size := sockaddr(to)
	var errno unix.Errno
	err := c.Write(func(fd uintptr) (done bool) {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&packet[0])), uintptr(len(packet)), unix.MSG_DONTWAIT,
			uintptr(address), size)
		return errno != unix.EAGAIN
	})
	return first(err, errno)
}

// ReceiveFrom waits for a packet of a raw socket.
func ReceiveFrom(c syscall.RawConn, buf []byte) (n int, from netip.Addr, err error) {
	var address unix.RawSockaddrInet6
	var errno unix.Errno
	err = c.Read(func(fd uintptr) (done bool) {
		size := uint32(unsafe.Sizeof(address))
		r, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)))
		n, errno = int(r), e
		return errno != unix.EAGAIN
	})
	if err := first(err, errno); err != nil {
		return 0, from, err
	}
	if address.Family == unix.AF_INET {
		return n, netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&address)).Addr), nil
	}
	return n, netip.AddrFrom16(address.Addr), nil
}

// Payload is what follows the header that packets of IPv4 have at a raw socket.
func Payload(packet []byte, from netip.Addr) []byte {
	if from.Is4() && len(packet) > 0 {
		return packet[min(len(packet), int(packet[0]&0xf)*4):]
	}
	return packet
}

func first(err error, errno unix.Errno) error {
	if err == nil && errno != 0 {
		return errno
	}
	return err
}

func sockaddr(a netip.Addr) (address unsafe.Pointer, size uintptr) {
	if a.Is4() {
		s := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
		return unsafe.Pointer(s), unsafe.Sizeof(*s)
	}
	s := &unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16()}
	return unsafe.Pointer(s), unsafe.Sizeof(*s)
}
