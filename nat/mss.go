package nat

import (
	"encoding/binary"
	"math/bits"

	"tapgw/internal/packet"
)

// Kinds of TCP options (RFC 9293 §3.2), and the length of the one that is changed.
const (
	optionEnd    = 0
	optionNop    = 1
	optionMSS    = 2
	optionMSSLen = 4
)

// What RFC 6691 takes from an MTU to get an MSS: the shortest IP and TCP headers.
const (
	mssHeaders   = 40
	mssHeadersV6 = 60
)

// ClampMSS lowers the maximum segment size that a SYN or its answer announces to what fits an MTU, and never raises it.
// Options are read up to the first that is malformed, and the rest is left alone. partial is as for RewriteOut.
func ClampMSS(frame []byte, p *packet.Packet, mtu int, partial bool) {
	headers := mssHeaders
	if p.IPv6 {
		headers = mssHeadersV6
	}
	if p.Kind != packet.TCP || p.TCPFlags&packet.SYN == 0 || mtu <= headers {
		return
	}
	limit := uint16(min(mtu-headers, 0xffff))
	l4 := frame[p.L4 : int(p.L3)+int(p.Len)]
	header := min(int(l4[12]>>4)*4, len(l4))
	for at := tcpOptionsAt; at < header; {
		n := optionLen(l4[at:header])
		if n == 0 {
			return
		}
		if l4[at] == optionMSS && n == optionMSSLen {
			lower(frame, p, int(p.L4)+at+2, limit, partial)
		}
		at += n
	}
}

// tcpOptionsAt is the length of a TCP header without options.
const tcpOptionsAt = 20

// optionLen is the length of the first option, 0 for the end of the list and where the rest is malformed.
func optionLen(options []byte) int {
	switch {
	case options[0] == optionEnd:
		return 0
	case options[0] == optionNop:
		return 1
	case len(options) < 2 || options[1] < 2 || int(options[1]) > len(options):
		return 0
	}
	return int(options[1])
}

// lower replaces the MSS at an offset by limit, if that is smaller. An option may begin anywhere: at an odd place its
// bytes belong to different words of the checksum, which sums them the other way round (RFC 1071 §2).
func lower(frame []byte, p *packet.Packet, at int, limit uint16, partial bool) {
	old := binary.BigEndian.Uint16(frame[at:])
	if old <= limit {
		return
	}
	binary.BigEndian.PutUint16(frame[at:], limit)
	if partial {
		return // the device sums the options
	}
	from, to := old, limit
	if (at-int(p.L4))%2 == 1 {
		from, to = bits.ReverseBytes16(from), bits.ReverseBytes16(to)
	}
	var d packet.Delta
	d.Replace16(from, to)
	fix(frame, p.ChecksumOffset(), d)
}
