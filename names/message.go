package names

import (
	"errors"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of what is read of one message (RFC 1035 §4).
const (
	maxRecords = 128 // of the answer section
	maxFound   = 32  // addresses
	maxName    = 255 // bytes
)

// question is what a message asks, or answers.
type question struct {
	id   uint16
	kind dnsmessage.Type
	name [maxName]byte // in small letters, without a final dot
	size int
}

func (q *question) text() []byte { return q.name[:q.size] }

// found is an address that an answer gives. The time to live is in seconds.
type found struct {
	addr netip.Addr
	ttl  uint32
}

// readQuestion reads the header and the one question for addresses that a message must have; false when it is no such
// message, or the name no host's.
func readQuestion(p *dnsmessage.Parser, payload []byte, response bool) (q question, ok bool) {
	h, err := p.Start(payload)
	if err != nil || h.Response != response || h.OpCode != 0 || h.RCode != dnsmessage.RCodeSuccess {
		return q, false
	}
	asked, err := p.Question()
	if err != nil || asked.Class != dnsmessage.ClassINET || asked.Type != dnsmessage.TypeA && asked.Type != dnsmessage.TypeAAAA {
		return q, false
	}
	if err := p.SkipQuestion(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return q, false
	}
	q.id, q.kind = h.ID, asked.Type
	return q, q.setName(&asked.Name)
}

// setName takes the name of a host, in small letters. What else a name may hold is refused: people will read it.
func (q *question) setName(n *dnsmessage.Name) bool {
	for _, c := range n.Data[:n.Length] {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
		q.name[q.size] = c
		q.size++
	}
	q.size-- // the final dot
	return q.size > 0
}

// readAddresses calls yield with the addresses of the answer section that somebody may send to. Whose they are of a chain
// of names (CNAME) makes no difference: all belong to the name that was asked for.
func readAddresses(p *dnsmessage.Parser, yield func(found)) {
	n := 0
	for range maxRecords {
		h, err := p.AnswerHeader()
		if err != nil || n == maxFound {
			return
		}
		addr, err := readAddress(p, &h)
		if err != nil {
			return
		}
		if addr.IsGlobalUnicast() && !addr.Is4In6() {
			n++
			yield(found{addr, h.TTL})
		}
	}
}

// readAddress reads one record; the address is invalid where it has none.
func readAddress(p *dnsmessage.Parser, h *dnsmessage.ResourceHeader) (addr netip.Addr, err error) {
	switch {
	case h.Class != dnsmessage.ClassINET:
	case h.Type == dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	case h.Type == dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA), err
	}
	return addr, p.SkipAnswer()
}
