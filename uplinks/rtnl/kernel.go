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
	return &Kernel{h: h, speeds: s}, nil
}

// Close releases the sockets.
func (k *Kernel) Close() {
	k.h.Close()
	k.speeds.close()
}

// Counters reads the totals of one interface.
func (k *Kernel) Counters(index int) (uplinks.Counters, error) {
	l, err := k.h.LinkByIndex(index)
	if err != nil {
		return uplinks.Counters{}, fmt.Errorf("read the counters of interface %d: %w", index, err)
	}
	s := l.Attrs().Statistics
	if s == nil {
		return uplinks.Counters{}, fmt.Errorf("read the counters of interface %d: the kernel sent none", index)
	}
	return uplinks.Counters{RxBytes: s.RxBytes, TxBytes: s.TxBytes}, nil
}

// Carrier reports whether an interface has its carrier, before the kernel gets round to telling watchers.
func (k *Kernel) Carrier(index int) (bool, error) {
	l, err := k.h.LinkByIndex(index)
	if err != nil {
		return false, fmt.Errorf("read the carrier of interface %d: %w", index, err)
	}
	return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0, nil
}

// dump repeats a listing until it was not interrupted by a change.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var err error
	for range maxDumps {
		var all []T
		all, err = list()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("list %s: %w", what, err)
}
