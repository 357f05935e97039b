package packet

import "encoding/binary"

// VnetLen is the length of the virtio header before each frame, bytes.
const VnetLen = 10

// Bits of VnetHeader.Flags, and the types of VnetHeader.GSOType (virtio 1.2 §5.1.6).
const (
	VnetNeedsCsum = 1
	VnetDataValid = 2

	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80 // added to a TCP type
)

// VnetHeader views the virtio header at the start of a buffer of at least VnetLen bytes. Fields are in host order:
// the kernel reads them so for legacy headers; every platform we build for is little-endian.
type VnetHeader []byte

// NeedsCsum reports whether the transport checksum is only the pseudo header's sum and is completed by the device.
func (h VnetHeader) NeedsCsum() bool { return h[0]&VnetNeedsCsum != 0 }

// GSOType is the kind of super-packet, GSONone for an ordinary frame.
func (h VnetHeader) GSOType() uint8 { return h[1] }

// HdrLen is the length of all headers of a super-packet, from the start of the frame.
func (h VnetHeader) HdrLen() uint16 { return binary.LittleEndian.Uint16(h[2:]) }

// GSOSize is the payload of each segment, bytes.
func (h VnetHeader) GSOSize() uint16 { return binary.LittleEndian.Uint16(h[4:]) }

// CsumStart is where summing starts, from the start of the frame.
func (h VnetHeader) CsumStart() uint16 { return binary.LittleEndian.Uint16(h[6:]) }

// CsumOffset is where the sum is stored, from CsumStart.
func (h VnetHeader) CsumOffset() uint16 { return binary.LittleEndian.Uint16(h[8:]) }

// SetHdrLen sets HdrLen.
func (h VnetHeader) SetHdrLen(v uint16) { binary.LittleEndian.PutUint16(h[2:], v) }

// SetGSOSize sets GSOSize.
func (h VnetHeader) SetGSOSize(v uint16) { binary.LittleEndian.PutUint16(h[4:], v) }

// SetCsumStart sets CsumStart.
func (h VnetHeader) SetCsumStart(v uint16) { binary.LittleEndian.PutUint16(h[6:], v) }

// DivideTCP makes a frame whose TCP header has so many bytes a super-packet with segments of up to size bytes. Its checksum must
// be the sum of the pseudo header alone from then on.
func (h VnetHeader) DivideTCP(p *Packet, header, size uint16) {
	h[0], h[1] = VnetNeedsCsum, GSOTCPv4
	if p.IPv6 {
		h[1] = GSOTCPv6
	}
	h.SetHdrLen(p.L4 + header)
	h.SetGSOSize(size)
	h.SetCsumStart(p.L4)
	binary.LittleEndian.PutUint16(h[8:], tcpSumOffset)
}

// tcpSumOffset is where the checksum lies in a TCP header.
const tcpSumOffset = 16

// Clear makes h the header of an ordinary frame with a complete checksum.
func (h VnetHeader) Clear() { clear(h[:VnetLen]) }
