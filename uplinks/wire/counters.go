package wire

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

type counters struct {
	sent, sentBytes         atomic.Uint64
	received, receivedBytes atomic.Uint64
	full, tooBig            atomic.Uint64
	refused, down           atomic.Uint64
	overflow                atomic.Uint64
}

// Stats are the counts of a port since Open. A super-packet counts as one frame; bytes are without the virtio header.
type Stats struct {
	Sent, SentBytes         uint64
	Received, ReceivedBytes uint64
	DroppedFull             uint64 // the device's queue or the send buffer was full
	DroppedTooBig           uint64 // larger than the MTU and not cut by the caller
	DroppedRefused          uint64 // by the kernel, for other reasons (egress filters, contradictory headers)
	DroppedDown             uint64 // the device was down
	Overflow                uint64 // received faster than read
}

func (p *Port) countOverflow() {
	fd, err := p.rx.Acquire()
	if err != nil {
		return
	}
	defer p.rx.Release()
	if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		p.count.overflow.Add(uint64(s.Drops)) // the kernel's count starts anew with each reading
	}
}

// Stats returns the counts.
func (p *Port) Stats() Stats {
	c := &p.count
	if p.rx != nil {
		p.countOverflow()
	}
	return Stats{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(),
		DroppedFull: c.full.Load(), DroppedTooBig: c.tooBig.Load(),
		DroppedRefused: c.refused.Load(), DroppedDown: c.down.Load(),
		Overflow: c.overflow.Load(),
	}
}
