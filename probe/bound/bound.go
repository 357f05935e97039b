// Package bound ties sockets to one uplink, so that a probe can leave neither by another uplink nor by the TAP.
package bound

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"tapgw/probe"
)

// ErrLink is returned for a Link without an interface or own address; an unbound probe would prove nothing.
var ErrLink = errors.New("the uplink has no interface or no address")

// Check refuses a Link that sockets cannot be bound to.
func Check(link probe.Link) error {
	if link.Index <= 0 || !link.Source.IsValid() {
		return ErrLink
	}
	return nil
}

// Control is the Control function of a net.Dialer or net.ListenConfig that binds the socket to the interface of link before
// it gets its address. It goes by index: another device may have taken over the name.
func Control(link probe.Link) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, link.Index)
		}); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("bind to %s (interface %d): %w", link.Name, link.Index, err)
		}
		return nil
	}
}
