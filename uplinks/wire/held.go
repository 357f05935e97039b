package wire

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// HeldBySocket reports whether a socket of the host holds the TCP or UDP port of addr, on that address or on all, which one of
// IPv6 may do for both families. It asks the kernel by binding a socket of its own for a moment. What cannot be asked counts as
// free.
func HeldBySocket(proto uint8, addr netip.Addr, port uint16) bool {
	family, at := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: addr.As16()})
	if addr.Is4() {
		at = &unix.SockaddrInet4{Port: int(port), Addr: addr.As4()}
	} else {
		family = unix.AF_INET6
	}
	kind := unix.SOCK_STREAM
	if proto == packet.ProtoUDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return errors.Is(unix.Bind(fd, at), unix.EADDRINUSE)
}

const (
	heldSlots = 256         // power of two; each slot remembers one port
	heldFresh = time.Second // how long an answer is repeated
)

// HeldCache repeats answers of HeldBySocket for a second, so that a flood to one port costs one system call. It holds a
// fixed number of answers. The zero value is ready; all methods may be called from several goroutines.
type HeldCache struct {
	mu    sync.Mutex
	slots [heldSlots]heldAnswer
}

type heldAnswer struct {
	addr  netip.Addr
	port  uint16
	proto uint8
	held  bool
	until time.Time
}

// Held is HeldBySocket with an answer that may be a second old.
func (c *HeldCache) Held(proto uint8, addr netip.Addr, port uint16, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := &c.slots[(port^uint16(proto)<<3)%heldSlots]
	if slot.port == port && slot.proto == proto && slot.addr == addr && now.Before(slot.until) {
		return slot.held
	}
	*slot = heldAnswer{addr, port, proto, HeldBySocket(proto, addr, port), now.Add(heldFresh)}
	return slot.held
}
