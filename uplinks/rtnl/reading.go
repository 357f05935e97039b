package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// Reading is what changes on an interface without a message, or before one.
type Reading struct {
	Carrier bool
	uplinks.Counters
}

// reader asks for one interface after another over a socket of its own. It allocates nothing and parses only what a
// Reading holds, because it is asked several times a second for as long as the daemon runs.
type reader struct {
	mu      sync.Mutex
	fd      int
	seq     uint32
	request [requestSize]byte
	answer  [16 << 10]byte // several times the longest answer about an interface
}

const (
	ifinfoSize    = unix.SizeofIfInfomsg
	requestSize   = unix.SizeofNlMsghdr + ifinfoSize
	attributeMask = 0x3fff // of a type: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	rxBytesOffset = 16     // in struct rtnl_link_stats64
	txBytesOffset = 24
)

// errAnswer is an answer that the kernel would not give.
var errAnswer = errors.New("the kernel's answer makes no sense")

func newReader() (*reader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &reader{fd: fd}, nil
}

func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = unix.Close(r.fd)
	r.fd = -1
}

// read asks for the present state of one interface.
func (r *reader) read(index int) (Reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	h := r.request[:]
	binary.NativeEndian.PutUint32(h, requestSize)
	binary.NativeEndian.PutUint16(h[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(h[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], r.seq)
	binary.NativeEndian.PutUint32(h[unix.SizeofNlMsghdr+4:], uint32(index))
	if err := again(func() error { _, err := unix.Write(r.fd, h); return err }); err != nil {
		return Reading{}, err
	}
	return r.receive()
}

// receive takes the answer to the latest request, which the kernel has queued before the request returned.
func (r *reader) receive() (Reading, error) {
	for {
		n := 0
		if err := again(func() (err error) { n, err = unix.Read(r.fd, r.answer[:]); return err }); err != nil {
			return Reading{}, err
		}
		m := r.answer[:n]
		if n < requestSize || int(binary.NativeEndian.Uint32(m)) > n {
			return Reading{}, errAnswer
		}
		if binary.NativeEndian.Uint32(m[8:]) != r.seq {
			continue // an answer that an error left behind
		}
		switch binary.NativeEndian.Uint16(m[4:]) {
		case unix.NLMSG_ERROR:
			return Reading{}, unix.Errno(-int32(binary.NativeEndian.Uint32(m[unix.SizeofNlMsghdr:])))
		case unix.RTM_NEWLINK:
			return parseLink(m[unix.SizeofNlMsghdr:binary.NativeEndian.Uint32(m)])
		default:
			return Reading{}, errAnswer
		}
	}
}

// parseLink reads a struct ifinfomsg and the attributes behind it.
func parseLink(m []byte) (Reading, error) {
	if len(m) < ifinfoSize {
		return Reading{}, errAnswer
	}
	out := Reading{Carrier: binary.NativeEndian.Uint32(m[flagsOffset:])&unix.IFF_LOWER_UP != 0}
	for m = m[ifinfoSize:]; len(m) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(m))
		if size < unix.SizeofRtAttr || size > len(m) {
			break
		}
		data := m[unix.SizeofRtAttr:size]
		if binary.NativeEndian.Uint16(m[2:])&attributeMask == unix.IFLA_STATS64 && len(data) >= txBytesOffset+8 {
			out.RxBytes = binary.NativeEndian.Uint64(data[rxBytesOffset:])
			out.TxBytes = binary.NativeEndian.Uint64(data[txBytesOffset:])
			return out, nil
		}
		m = m[min(len(m), (size+3)&^3):]
	}
	return Reading{}, errAnswer
}

// again repeats a system call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
