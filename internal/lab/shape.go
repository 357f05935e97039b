package lab

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	minBurst = 16 << 10              // bytes: several full-size packets, so that low rates still flow
	minQueue = 64 << 10              // bytes: one super-packet, so that TCP's first burst survives
	usual    = 50 * time.Millisecond // of queue, for a TCP window
	tickNS   = 64                    // nanoseconds per tick of the packet scheduler's clock (PSCHED_SHIFT)
)

// Shape limits what a device sends to rate bits per second, with a queue of so long, 0 for 50 ms; a rate of 0 removes the limit.
func (n *Namespace) Shape(device string, rate uint64, queue time.Duration) error {
	link, err := n.link(device)
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if rate == 0 {
		return n.unshape(device, attrs)
	}
	if err := n.handle.QdiscReplace(bucket(attrs, rate/8, queue)); err != nil {
		return fmt.Errorf("namespace %s: limit %s to %d bit/s: %w", n.name, device, rate, err)
	}
	return nil
}

func (n *Namespace) unshape(device string, attrs netlink.QdiscAttrs) error {
	err := n.handle.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("namespace %s: remove the limit of %s: %w", n.name, device, err)
	}
	return nil
}

// bucket sizes a token bucket for rate bytes per second: 5 ms of burst covers timer slack.
func bucket(attrs netlink.QdiscAttrs, rate uint64, queue time.Duration) *netlink.Tbf {
	if queue == 0 {
		queue = usual
	}
	burst := max(rate/200, minBurst)
	return &netlink.Tbf{
		QdiscAttrs: attrs,
		Rate:       rate,
		Buffer:     uint32(burst * 1e9 / rate / tickNS),
		Limit:      uint32(burst + max(uint64(queue.Seconds()*float64(rate)), minQueue)),
	}
}
