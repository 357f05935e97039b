package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a Capture.
const (
	vnetLen    = 10 // struct virtio_net_hdr
	captureBuf = vnetLen + 18 + maxPacket
	socketBuf  = 64 << 20 // bytes the kernel may hold for us
	maxBad     = 16       // bad packets kept
	maxKept    = 10_000   // packets kept on request
)

// Report is what a Capture saw.
type Report struct {
	Packets   uint64 // all frames, of any protocol
	Bytes     uint64 // of all frames
	IPv4      uint64
	IPv6      uint64
	TCP       uint64
	UDP       uint64
	ICMP      uint64
	Fragments uint64 // their transport checksum cannot be checked
	Super     uint64 // carry more than one segment (GSO)
	Partial   uint64 // transport checksum left to the device: checked to be the pseudo header's sum
	Bad       uint64 // malformed, or a checksum is wrong
	Lost      uint64 // arrived faster than we read
	BadOnes   []*Packet
	Kept      []*Packet
}

// Capture records what passes a device, decodes it independently of the program under test and verifies each checksum.
type Capture struct {
	keep func(*Packet) bool
	file *os.File
	done chan struct{}
	stop sync.Once

	mu      sync.Mutex
	report  Report
	waiters map[chan *Packet]func(*Packet) bool

	failure error // written before done is closed
}

// StartCapture records on a device, in both directions, until Stop. Packets for which keep holds are kept (the first
// 10,000); nil keeps none.
func (n *Namespace) StartCapture(device string, keep func(*Packet) bool) (*Capture, error) {
	return n.startCapture(device, unix.ETH_P_ALL, keep)
}

// StartStackCapture is StartCapture for the IPv4 packets that the namespace's own stack gets from a device, as programs at the
// device's ingress have left them.
func (n *Namespace) StartStackCapture(device string, keep func(*Packet) bool) (*Capture, error) {
	return n.startCapture(device, unix.ETH_P_IP, keep)
}

func (n *Namespace) startCapture(device string, protocol uint16, keep func(*Packet) bool) (*Capture, error) {
	index, err := n.Index(device)
	if err != nil {
		return nil, err
	}
	c := &Capture{keep: keep, done: make(chan struct{}), waiters: make(map[chan *Packet]func(*Packet) bool)}
	err = n.Do(func() error {
		c.file, err = openCapture(index, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: capture on %s: %w", n.name, device, err)
	}
	go c.run()
	return c, nil
}

// openCapture binds only after all options are set, so that no frame comes without its virtio header.
func openCapture(index int, protocol uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuf),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: index}),
	)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "capture"), nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Report returns what was seen so far. The packets in it must not be changed.
func (c *Capture) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.report
	r.BadOnes, r.Kept = append([]*Packet(nil), r.BadOnes...), append([]*Packet(nil), r.Kept...)
	return r
}

// Await returns the next packet for which match holds.
func (c *Capture) Await(ctx context.Context, match func(*Packet) bool) (*Packet, error) {
	return c.AwaitAfter(ctx, match, func() error { return nil })
}

// AwaitAfter is Await for a packet that action causes: it watches before action runs.
func (c *Capture) AwaitAfter(ctx context.Context, match func(*Packet) bool, action func() error) (*Packet, error) {
	found := make(chan *Packet, 1)
	c.mu.Lock()
	c.waiters[found] = match
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiters, found)
		c.mu.Unlock()
	}()
	if err := action(); err != nil {
		return nil, err
	}
	select {
	case p := <-found:
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("await packet: %w", ctx.Err())
	case <-c.done:
		return nil, fmt.Errorf("await packet: capture: %w", os.ErrClosed)
	}
}

// Stop reads what has already passed the device, ends the capture and returns its report.
func (c *Capture) Stop() (Report, error) {
	c.stop.Do(func() {
		err := c.file.SetReadDeadline(time.Now())
		<-c.done
		c.failure = errors.Join(c.failure, err, c.file.Close())
	})
	return c.Report(), c.failure
}

// run reads until Stop sets a deadline in the past and the socket is empty.
func (c *Capture) run() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.failure = err
		return
	}
	buf := make([]byte, captureBuf)
	for err == nil {
		err = raw.Read(func(fd uintptr) bool {
			c.drain(int(fd), buf)
			return false // wait for more
		})
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.failure = err
		return
	}
	c.failure = raw.Control(func(fd uintptr) { c.finish(int(fd), buf) })
}

// drain reads until the socket is empty.
func (c *Capture) drain(fd int, buf []byte) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == unix.EINTR || err == unix.ENETDOWN: // the device went down: it may come back
			continue
		case err != nil:
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			c.record(newPacket(buf[:n], ll))
		}
	}
}

// finish empties the socket and reads the kernel's count of lost frames.
func (c *Capture) finish(fd int, buf []byte) {
	c.drain(fd, buf)
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.report.Lost = uint64(stats.Drops)
	}
}

func (c *Capture) record(p *Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.count(p)
	if p.Problem != "" && len(c.report.BadOnes) < maxBad {
		c.report.BadOnes = append(c.report.BadOnes, p.clone())
	}
	if c.keep != nil && len(c.report.Kept) < maxKept && c.keep(p) {
		c.report.Kept = append(c.report.Kept, p.clone())
	}
	for found, match := range c.waiters {
		if match(p) {
			found <- p.clone()
			delete(c.waiters, found)
		}
	}
}

func (r *Report) count(p *Packet) {
	r.Packets++
	r.Bytes += uint64(len(p.Data))
	addIf(&r.Bad, p.Problem != "")
	addIf(&r.Super, p.Super)
	addIf(&r.Partial, p.Partial)
	addIf(&r.IPv4, p.IP != nil)
	addIf(&r.IPv6, p.V6 != nil)
	addIf(&r.Fragments, p.Fragment)
	addIf(&r.TCP, p.TCP != nil)
	addIf(&r.UDP, p.UDP != nil)
	addIf(&r.ICMP, p.ICMP != nil)
}

func addIf(n *uint64, condition bool) {
	if condition {
		*n++
	}
}
