package owner

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Sizes and places in the messages of linux/inet_diag.h.
const (
	requestSize    = unix.SizeofNlMsghdr + 56
	idOffset       = 8 // in struct inet_diag_req_v2
	answerSize     = 72
	uidOffset      = 64 // in struct inet_diag_msg
	inodeOffset    = 68
	anyCookie      = ^uint32(0) // INET_DIAG_NOCOOKIE
	diagCgroupID   = 21         // INET_DIAG_CGROUP_ID, of Linux 5.7
	attributeMask  = 0x3fff     // of a type: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	sockDiagFamily = 20         // SOCK_DIAG_BY_FAMILY
)

// errAnswer is an answer that the kernel would not give.
var errAnswer = errors.New("the kernel's answer makes no sense")

// socket is what the kernel says of one.
type socket struct {
	uid, inode uint32
	cgroup     uint64 // number of the one that it was made in, 0 when that is not told
}

// diag asks the kernel for one socket after another.
type diag struct {
	mu     sync.Mutex
	fd     int
	seq    uint32
	answer [4 << 10]byte // several times the longest about a socket
}

func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	return &diag{fd: fd}, nil
}

func (d *diag) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = unix.Close(d.fd)
	d.fd = -1
}

// find asks for the socket that takes what the remote sends to the local endpoint, unix.ENOENT when there is none.
func (d *diag) find(proto uint8, local, remote netip.AddrPort) (socket, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	request := encode(d.seq, proto, local, remote)
	if err := again(func() error { _, err := unix.Write(d.fd, request[:]); return err }); err != nil {
		return socket{}, err
	}
	return d.receive()
}

// encode makes the request. Of UDP the kernel takes the ends the other way around.
func encode(seq uint32, proto uint8, local, remote netip.AddrPort) (m [requestSize]byte) {
	binary.NativeEndian.PutUint32(m[:], requestSize)
	binary.NativeEndian.PutUint16(m[4:], sockDiagFamily)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], seq)
	r := m[unix.SizeofNlMsghdr:]
	r[0], r[1] = unix.AF_INET, proto
	if local.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(r[4:], ^uint32(0)) // in all states
	if proto == unix.IPPROTO_UDP {
		local, remote = remote, local
	}
	id := r[idOffset:]
	binary.BigEndian.PutUint16(id, local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[40:], anyCookie)
	binary.NativeEndian.PutUint32(id[44:], anyCookie)
	return m
}

// receive takes the answer to the latest request, which the kernel has queued before the request returned.
func (d *diag) receive() (socket, error) {
	for {
		n := 0
		if err := again(func() (err error) { n, err = unix.Read(d.fd, d.answer[:]); return err }); err != nil {
			return socket{}, err
		}
		m := d.answer[:n]
		if n < unix.SizeofNlMsghdr+4 || int(binary.NativeEndian.Uint32(m)) > n || binary.NativeEndian.Uint32(m) < unix.SizeofNlMsghdr+4 {
			return socket{}, errAnswer
		}
		if binary.NativeEndian.Uint32(m[8:]) != d.seq {
			continue // an answer that an error left behind
		}
		body := m[unix.SizeofNlMsghdr:binary.NativeEndian.Uint32(m)]
		switch binary.NativeEndian.Uint16(m[4:]) {
		case unix.NLMSG_ERROR:
			return socket{}, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case sockDiagFamily:
			return parseSocket(body)
		default:
			return socket{}, errAnswer
		}
	}
}

// parseSocket reads a struct inet_diag_msg and the attributes behind it.
func parseSocket(m []byte) (socket, error) {
	if len(m) < answerSize {
		return socket{}, errAnswer
	}
	s := socket{uid: binary.NativeEndian.Uint32(m[uidOffset:]), inode: binary.NativeEndian.Uint32(m[inodeOffset:])}
	for m = m[answerSize:]; len(m) >= unix.SizeofNlAttr; {
		size := int(binary.NativeEndian.Uint16(m))
		if size < unix.SizeofNlAttr || size > len(m) {
			break
		}
		if binary.NativeEndian.Uint16(m[2:])&attributeMask == diagCgroupID && size >= unix.SizeofNlAttr+8 {
			s.cgroup = binary.NativeEndian.Uint64(m[unix.SizeofNlAttr:])
		}
		m = m[min(len(m), (size+3)&^3):]
	}
	return s, nil
}

// again repeats a system call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
