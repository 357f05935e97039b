package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// watchPause between two notifications, so that a storm of transactions costs a bounded number of looks.
	watchPause = 20 * time.Millisecond
	// watchBurst is how many messages are taken at once; what is left stands for another change.
	watchBurst = 256
)

// Watcher tells when the ruleset of nftables was changed, by us or by others. It never says how: a message means "look
// again". Legacy iptables, IPsec and tc are not told of.
type Watcher struct {
	file *os.File
	raw  syscall.RawConn
}

// NewWatcher subscribes in the calling thread's network namespace. Changes from now on are not lost. Close or the end of
// Run releases it.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nftables: open a netlink socket: %w", os.NewSyscallError("socket", err))
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "nftables")}
	if err := subscribe(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: subscribe to changes: %w", err), w.Close())
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: subscribe to changes: %w", err), w.Close())
	}
	return w, nil
}

// subscribe asks for the one message that ends each transaction: the others repeat every rule of it.
func subscribe(fd int) error {
	newGeneration := binary.NativeEndian.AppendUint16(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}, // nlmsg_type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(binary.BigEndian.Uint16(newGeneration)), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	group := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
	return os.NewSyscallError("bind", unix.Bind(fd, group))
}

// Close ends the subscription.
func (w *Watcher) Close() error { return w.file.Close() }

// Run sends to notify, which should hold one element, whenever the ruleset was changed; a notification that was not taken
// yet stands for the later ones too. It returns nil when ctx ends.
func (w *Watcher) Run(ctx context.Context, notify chan<- struct{}) error {
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	defer w.Close()
	for {
		if err := w.await(); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("nftables: receive changes: %w", err)
		}
		select {
		case notify <- struct{}{}:
		default:
		}
		pause(ctx, watchPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// await returns after the next message, and takes all that have come by then.
func (w *Watcher) await() (failure error) {
	err := w.raw.Read(func(fd uintptr) (changed bool) {
		var message [256]byte // cut, as nobody reads it
		for range watchBurst {
			_, _, err := unix.Recvfrom(int(fd), message[:], unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return changed
			case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR): // lost messages are changes, too
				failure = err
				return true
			}
			changed = changed || !errors.Is(err, unix.EINTR)
		}
		return changed
	})
	return errors.Join(failure, err)
}
