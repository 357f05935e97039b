// Package rtnl is the Linux edge of package uplinks: it reads the facts from the kernel over rtnetlink, watches them
// change, and makes rules and routes what uplinks.Plan wants.
package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// maxDumps bounds how often a listing is asked for again because the kernel changed under it.
const maxDumps = 10

// Kernel is a connection to the network namespace of the thread that called Open. It is safe for concurrent use.
type Kernel struct {
	h      *netlink.Handle
	speeds *speeds
	reader *reader
}

// Open connects to the kernel in the calling thread's network namespace.
func Open() (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	s, err := newSpeeds()
	if err != nil {
		h.Close()
		return nil, err
	}
	r, err := newReader()
	if err != nil {
		h.Close()
		s.close()
		return nil, err
	}
	return &Kernel{h: h, speeds: s, reader: r}, nil
}

// Close releases the sockets.
func (k *Kernel) Close() {
	k.h.Close()
	k.speeds.close()
	k.reader.close()
}

// Measure reads the carrier, before the kernel gets round to telling watchers, and the totals of one interface.
func (k *Kernel) Measure(index int) (Reading, error) {
	r, err := k.reader.read(index)
	if err != nil {
		return r, fmt.Errorf("measure interface %d: %w", index, err)
	}
	return r, nil
}

// Counters reads the totals of one interface.
func (k *Kernel) Counters(index int) (uplinks.Counters, error) {
	r, err := k.Measure(index)
	return r.Counters, err
}

// dump repeats a listing until it was not interrupted by a change.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var err error
	for range maxDumps {
		var all []T
		all, err = list()
		if err == nil || errors.Is(err, unix.EAFNOSUPPORT) { // the kernel may have no IPv6
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("list %s: %w", what, err)
}
