package rtnl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// pause between two notifications, so that a storm of messages costs a bounded number of re-reads.
	pause         = 20 * time.Millisecond
	receiveBuffer = 1 << 20
	maxNeighbours = 4096
)

// Watcher tells when facts may have changed. It never says what: a message means "read again".
type Watcher struct {
	socket     *nl.NetlinkSocket
	log        *slog.Logger
	neighbours map[neighbourID]neighbourWord
}

type neighbourID struct {
	index int
	addr  netip.Addr
}

// neighbourWord is what matters of an entry: its address and whether it is usable.
type neighbourWord struct {
	mac    [6]byte
	usable bool
}

// NewWatcher subscribes in the calling thread's network namespace. Changes from now on are not lost, so read the facts
// after it. Close or the end of Run releases it.
func NewWatcher(log *slog.Logger) (*Watcher, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF) // forwarding and reverse path filters
	if err != nil {
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	if s.SetReceiveBufferSize(receiveBuffer, true) != nil {
		_ = s.SetReceiveBufferSize(receiveBuffer, false) // smaller without CAP_NET_ADMIN; an overflow is survived anyway
	}
	return &Watcher{socket: s, log: log, neighbours: make(map[neighbourID]neighbourWord)}, nil
}

// Close ends the subscription.
func (w *Watcher) Close() { w.socket.Close() }

// Run sends to notify, which should hold one element, whenever something relevant changed; a notification that was not
// taken yet stands for the later ones too. It returns nil when ctx ends.
func (w *Watcher) Run(ctx context.Context, notify chan<- struct{}) error {
	stop := context.AfterFunc(ctx, w.Close)
	defer stop()
	defer w.Close()
	changed, failed := make(chan struct{}, 1), make(chan error, 1)
	go func() { failed <- w.receive(changed) }()
	for {
		select {
		case <-changed:
			poke(notify)
			wait(ctx, pause)
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// receive reads messages until the socket is closed.
func (w *Watcher) receive(changed chan<- struct{}) error {
	for {
		messages, from, err := w.socket.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.log.Warn("rtnetlink messages were lost, reading everything again")
			clear(w.neighbours)
			poke(changed)
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
		case err != nil:
			return fmt.Errorf("receive from rtnetlink: %w", err)
		case from.Pid == nl.PidKernel && w.matter(messages):
			poke(changed)
		}
	}
}

func (w *Watcher) matter(messages []syscall.NetlinkMessage) bool {
	matters := false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			matters = w.neighbourMatters(m) || matters
		default:
			matters = true
		}
	}
	return matters
}

// neighbourMatters keeps out the noise of ARP timers: only a new MAC address or a change of usability counts.
func (w *Watcher) neighbourMatters(m syscall.NetlinkMessage) bool {
	n, err := netlink.NeighDeserialize(m.Data)
	if err != nil {
		return false
	}
	addr, ok := toAddr(n.IP)
	if !ok {
		return false
	}
	id := neighbourID{n.LinkIndex, addr}
	const unusable = netlink.NUD_NONE | netlink.NUD_INCOMPLETE | netlink.NUD_FAILED
	word := neighbourWord{usable: m.Header.Type == unix.RTM_NEWNEIGH && n.State&^unusable != 0}
	if word.usable && len(n.HardwareAddr) == len(word.mac) {
		copy(word.mac[:], n.HardwareAddr)
	}
	known, ok := w.neighbours[id]
	if ok && known == word || !ok && !word.usable {
		return false
	}
	if len(w.neighbours) >= maxNeighbours {
		clear(w.neighbours)
	}
	w.neighbours[id] = word
	return true
}
