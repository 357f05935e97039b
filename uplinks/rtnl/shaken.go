package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// shakenFor is how long after such an event missing routes are laid to it.
	shakenFor = 3 * time.Second
	maxShaken = 4096

	indexOffset = 4 // in struct ifinfomsg and struct ifaddrmsg
	flagsOffset = 8 // in struct ifinfomsg
	headerSize  = 12
)

// Shaken remembers devices whose routes the kernel itself has removed: they were switched off or lost an address. The kernel
// says so before it removes the routes, hence it has a socket that is read on demand: who misses a route and then looks finds
// the message. It is not safe for concurrent use.
type Shaken struct {
	socket *nl.NetlinkSocket
	buffer []byte
	at     map[int]time.Time
	all    time.Time // messages were lost
}

// NewShaken listens in the calling thread's network namespace from now on. Close releases it.
func NewShaken() (*Shaken, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return &Shaken{socket: s, buffer: make([]byte, nl.RECEIVE_BUFFER_SIZE), at: make(map[int]time.Time)}, nil
}

// Close ends the subscription.
func (s *Shaken) Close() { s.socket.Close() }

// Has reports whether the kernel itself may have removed routes of a device just now, so that nobody else need have. What it
// says of one moment is complete after Look.
func (s *Shaken) Has(index int) bool {
	return time.Since(s.at[index]) < shakenFor || time.Since(s.all) < shakenFor
}

// Look takes what the kernel has said since the last look.
func (s *Shaken) Look() error {
	for {
		n, from, err := unix.Recvfrom(s.socket.GetFd(), s.buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			s.all = time.Now()
		case err != nil:
			return fmt.Errorf("receive from rtnetlink: %w", err)
		default:
			s.take(s.buffer[:n], from)
		}
	}
}

func (s *Shaken) take(b []byte, from unix.Sockaddr) {
	sender, ok := from.(*unix.SockaddrNetlink)
	if !ok || sender.Pid != nl.PidKernel {
		return
	}
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		s.all = time.Now() // as if it were lost
	}
	if len(s.at) >= maxShaken {
		clear(s.at)
	}
	for _, m := range messages {
		if index := shakenBy(m); index != 0 {
			s.at[index] = time.Now()
		}
	}
}

// shakenBy is the device that m takes routes from, 0 for none.
func shakenBy(m syscall.NetlinkMessage) int {
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		if len(m.Data) < headerSize || binary.NativeEndian.Uint32(m.Data[flagsOffset:])&unix.IFF_UP != 0 {
			return 0
		}
	case unix.RTM_DELLINK, unix.RTM_DELADDR:
		if len(m.Data) < indexOffset+4 {
			return 0
		}
	default:
		return 0
	}
	return int(binary.NativeEndian.Uint32(m.Data[indexOffset:]))
}
