package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// batch is how many frames one system call sends at most.
const batch = 64

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Sender collects frames and sends them by one system call. It belongs to one goroutine and allocates nothing once made.
type Sender struct {
	port *Port
	n    int
	err  error // of a flush that Queue had to make
	msgs [batch]mmsghdr
	iovs [batch]unix.Iovec
	to   [families]unix.RawSockaddrLinklayer // on a header-less device
}

// Sender returns a new sender of p, one for each goroutine.
func (p *Port) Sender() *Sender {
	s := &Sender{port: p}
	for i := range s.msgs {
		h := &s.msgs[i].hdr
		h.Iov = &s.iovs[i]
		h.SetIovlen(1)
	}
	if p.cfg.HeaderLess {
		s.setAddress()
	}
	return s
}

// setAddress names the protocols of packets, which the kernel cannot read from an Ethernet header that is not there.
func (s *Sender) setAddress() {
	for f, ether := range [families]uint16{ofIPv4: etherIPv4, ofIPv6: etherIPv6} {
		s.to[f] = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: ether>>8 | ether<<8, Ifindex: int32(s.port.cfg.Index)}
	}
	for i := range s.msgs {
		s.msgs[i].hdr.Namelen = unix.SizeofSockaddrLinklayer
	}
}

// Queue adds a translated frame, which must stay untouched until Flush: its Ethernet addresses and virtio header are
// rewritten in place for this uplink. A full queue is flushed first.
func (s *Sender) Queue(frame []byte) {
	if len(frame) < minFrame || familyOf(frame) == ofIPv6 && len(frame) < minFrameV6 {
		s.port.count.refused.Add(1)
		return
	}
	if s.n == batch {
		s.err = s.flush()
	}
	hop, f := s.port.hop.Load(), familyOf(frame)
	h := packet.VnetHeader(frame)
	if h.GSOType() != packet.GSONone {
		fitSegments(frame, hop.mtu)
	}
	if s.port.cfg.HeaderLess {
		frame = stripEthernet(frame)
		s.msgs[s.n].hdr.Name = (*byte)(unsafe.Pointer(&s.to[f]))
	} else {
		copy(frame[packet.VnetLen:], hop.macs[f][:])
	}
	s.iovs[s.n].Base = &frame[0]
	s.iovs[s.n].SetLen(len(frame))
	s.n++
}

// Frames with nothing behind the shortest header of either family.
const (
	minFrame   = packet.VnetLen + packet.EthernetLen + 20
	minFrameV6 = packet.VnetLen + packet.EthernetLen + packet.IPv6Header
)

// headerLen is the length of the Ethernet, IP and transport headers of a super-packet in front of the payload, bytes.
func headerLen(frame []byte) int {
	l4 := packet.VnetLen + transportAt(frame)
	if packet.VnetHeader(frame).GSOType() == packet.GSOUDPL4 {
		return l4 - packet.VnetLen + 8
	}
	if len(frame) <= l4+12 {
		return len(frame) - packet.VnetLen
	}
	return l4 - packet.VnetLen + int(frame[l4+12]>>4)*4
}

// transportAt is where the transport header begins behind the virtio header.
func transportAt(frame []byte) int {
	const l3 = packet.EthernetLen
	b := frame[packet.VnetLen:]
	if familyOf(frame) == ofIPv4 {
		return l3 + int(b[l3]&15)*4
	}
	var p packet.Packet
	if p.DecodeIPv6(b, l3); p.Kind == packet.Malformed {
		return l3 + packet.IPv6Header
	}
	return int(p.L4)
}

// fitSegments makes the segments of a super-packet fit the MTU. The header length is set anew because the kernel's is
// unreliable on forwarded packets.
func fitSegments(frame []byte, mtu int) {
	h := packet.VnetHeader(frame)
	n := headerLen(frame)
	h.SetHdrLen(uint16(n))
	if room := mtu + packet.EthernetLen - n; h.GSOType() != packet.GSOUDPL4 && room > 0 && int(h.GSOSize()) > room {
		h.SetGSOSize(uint16(room))
	}
}

// stripEthernet moves the virtio header over the Ethernet header, and its offsets with it.
func stripEthernet(frame []byte) []byte {
	const shift = packet.EthernetLen
	out := frame[shift:]
	copy(out, frame[:packet.VnetLen])
	h := packet.VnetHeader(out)
	if h.NeedsCsum() {
		h.SetCsumStart(h.CsumStart() - shift)
	}
	if h.GSOType() != packet.GSONone {
		h.SetHdrLen(h.HdrLen() - shift)
	}
	return out
}

// Flush sends what is queued. A frame that cannot be sent is counted and dropped, as a router does; the error is ErrDown
// when the device is down, net.ErrClosed after Close, and nil otherwise.
func (s *Sender) Flush() error {
	err := s.err
	s.err = nil
	if s.n > 0 {
		err = s.flush()
	}
	return err
}

func (s *Sender) flush() error {
	defer s.reset()
	c := &s.port.count
	fd, err := s.port.tx.Acquire()
	if err != nil {
		c.down.Add(uint64(s.n))
		return err
	}
	defer s.port.tx.Release()
	for at := 0; at < s.n; {
		r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.msgs[at])), uintptr(s.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.sent(at, at+int(r))
			at += int(r)
			continue
		case unix.EINTR:
			continue
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
			c.down.Add(uint64(s.n - at))
			return ErrDown
		case unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM:
			c.full.Add(1)
		case unix.EMSGSIZE:
			c.tooBig.Add(1)
		default:
			c.refused.Add(1)
		}
		at++ // the errno speaks of the first message not sent
	}
	return nil
}

func (s *Sender) sent(from, to int) {
	bytes := 0
	for i := from; i < to; i++ {
		bytes += int(s.iovs[i].Len) - packet.VnetLen
	}
	s.port.count.sent.Add(uint64(to - from))
	s.port.count.sentBytes.Add(uint64(bytes))
}

// reset forgets the frames so that their buffers may be collected.
func (s *Sender) reset() {
	for i := range s.iovs[:s.n] {
		s.iovs[i].Base = nil
	}
	s.n = 0
}
