// Package wire carries packets out of and into one uplink: an AF_PACKET socket that only sends and one that only receives
// what the socket filter says may be ours, both with a virtio header, so that 64 KiB super-packets and unfinished checksums
// pass as they are. A frame is always [virtio header, 10 bytes][Ethernet header][IP packet], also on uplinks that have
// no Ethernet header.
package wire

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
	"tapgw/uplinks/wire/batchio"
)

// Errors that callers test. After Port.Close methods return net.ErrClosed.
var (
	// ErrDown: the uplink's device is down or gone. The port works again when the same device comes up; for another
	// device (a new index) open a new port.
	ErrDown = errors.New("uplink device is down")
	// ErrNoPermission: CAP_NET_RAW is missing.
	ErrNoPermission = errors.New("packet sockets need root or CAP_NET_RAW")
)

// socketBuffer is asked for in both directions, bytes: 60 ms at 1 Gbit/s.
const socketBuffer = 8 << 20

// Config describes the uplink that Open attaches to.
type Config struct {
	Index        int     // of the device
	MAC          [6]byte // of the device
	GatewayMAC   [6]byte // see SetNextHop
	GatewayMACV6 [6]byte // for IPv6
	MTU          int     // bytes
	HeaderLess   bool    // packets of the device have no Ethernet header (TUN, PPP, WWAN)
	SendOnly     bool    // received packets come in another way; SetFilter and ReadBatch are not for such a port
}

// Port is one uplink's pair of sockets; the receiving one is missing in a port that only sends. All methods may be called from several goroutines, but ReadBatch from one at a time.
type Port struct {
	cfg    Config
	tx, rx *batchio.File
	hop    atomic.Pointer[nextHop]
	count  counters
}

// nextHop is what SetNextHop replaces as a whole.
type nextHop struct {
	macs [families][12]byte // destination and source, as they stand in a frame
	mtu  int
}

// Families of IP, as indexes.
const (
	ofIPv4 = iota
	ofIPv6
	families
)

// familyOf reads the family of the packet in a frame from the Ethernet header.
func familyOf(frame []byte) int {
	if eth := frame[packet.VnetLen:]; eth[12] == etherIPv6>>8 && eth[13] == etherIPv6&0xff {
		return ofIPv6
	}
	return ofIPv4
}

// Open attaches to a device. Nothing is received until SetFilter.
func Open(cfg Config) (*Port, error) {
	p := &Port{cfg: cfg}
	p.SetNextHop(cfg.GatewayMAC, cfg.GatewayMACV6, cfg.MTU)
	var err error
	if p.tx, err = open(cfg.Index, 0); err != nil {
		return nil, err
	}
	if cfg.SendOnly {
		return p, nil
	}
	if p.rx, err = open(cfg.Index, unix.ETH_P_ALL); err != nil {
		return nil, errors.Join(err, p.tx.Close())
	}
	return p, nil
}

// open makes a packet socket that passes nothing up: the refusing filter stands before the socket is bound, so that no
// packet of before SetFilter can be queued.
func open(index int, protocol uint16) (*batchio.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, ErrNoPermission
	}
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setup(fd, index, protocol); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return batchio.NewSocket(fd)
}

func setup(fd, index int, protocol uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fmt.Errorf("PACKET_VNET_HDR: %w", err)
	}
	if protocol != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return fmt.Errorf("PACKET_IGNORE_OUTGOING (needs Linux 4.20): %w", err)
		}
		if err := attach(fd, refuseAll); err != nil {
			return err
		}
	}
	for force, plain := range map[int]int{unix.SO_SNDBUFFORCE: unix.SO_SNDBUF, unix.SO_RCVBUFFORCE: unix.SO_RCVBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil { // without CAP_NET_ADMIN the limit of the host holds
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
		}
	}
	err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: index})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("bind to device %d: %w (%w)", index, ErrDown, err)
	}
	if err != nil {
		return fmt.Errorf("bind packet socket to device %d: %w", index, err)
	}
	return nil
}

// SetFilter replaces what is received. Packets queued under the filter before are still delivered.
func (p *Port) SetFilter(c FilterConfig) error {
	prog, err := program(c, p.cfg.HeaderLess)
	if err != nil {
		return err
	}
	fd, err := p.rx.Acquire()
	if err != nil {
		return err
	}
	defer p.rx.Release()
	return attach(fd, prog)
}

// SetNextHop changes where frames of each family go and how large they may be (MTU in bytes), for every frame queued from now
// on.
func (p *Port) SetNextHop(macV4, macV6 [6]byte, mtu int) {
	h := &nextHop{mtu: mtu}
	for f, mac := range [families][6]byte{ofIPv4: macV4, ofIPv6: macV6} {
		copy(h.macs[f][:6], mac[:])
		copy(h.macs[f][6:], p.cfg.MAC[:])
	}
	p.hop.Store(h)
}

// Close wakes ReadBatch, which then returns net.ErrClosed, and closes both sockets.
func (p *Port) Close() error {
	if p.rx == nil {
		return p.tx.Close()
	}
	return errors.Join(p.rx.Close(), p.tx.Close())
}

// ReadBatch blocks until a frame is there and returns as many as wait, up to len(bufs) and about batchio.MaxBytes; frame i
// is bufs[i][:sizes[i]]. Buffers hold batchio.BufferLen bytes. Run it on a goroutine locked to its thread. ErrDown is
// returned once when the device goes down; reading on waits for it to come back.
func (p *Port) ReadBatch(bufs [][]byte, sizes []int) (int, error) {
	skip := 0
	if p.cfg.HeaderLess {
		skip = packet.EthernetLen
	}
	n, err := p.rx.ReadBatch(bufs, sizes, skip)
	if err != nil {
		return 0, readError(err)
	}
	bytes := 0
	for i := range n {
		if p.cfg.HeaderLess {
			sizes[i] = p.addEthernet(bufs[i], sizes[i])
		}
		bytes += sizes[i] - packet.VnetLen
	}
	p.count.received.Add(uint64(n))
	p.count.receivedBytes.Add(uint64(bytes))
	return n, nil
}

// Handled reports whether all frames received before the first call with p have been handled by who reads.
func (p *Port) Handled(by *batchio.Progress) bool { return p.rx == nil || p.rx.Handled(by) }

func readError(err error) error {
	if errors.Is(err, unix.ENETDOWN) {
		return ErrDown
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("read from uplink: %w", err)
	}
	return err
}

// addEthernet gives a frame of n bytes that was read 14 bytes too late into b the header its device lacks.
func (p *Port) addEthernet(b []byte, n int) int {
	const shift = packet.EthernetLen
	h := packet.VnetHeader(b)
	copy(h, b[shift:shift+packet.VnetLen])
	if h.NeedsCsum() {
		h.SetCsumStart(h.CsumStart() + shift)
	}
	if h.GSOType() != packet.GSONone {
		h.SetHdrLen(h.HdrLen() + shift)
	}
	eth := b[packet.VnetLen : packet.VnetLen+shift]
	copy(eth, p.cfg.MAC[:])
	copy(eth[6:], make([]byte, 6))
	eth[12], eth[13] = etherIPv4>>8, etherIPv4&0xff
	if n > packet.VnetLen && b[packet.VnetLen+shift]>>4 == 6 {
		eth[12], eth[13] = etherIPv6>>8, etherIPv6&0xff
	}
	return n + shift
}
