// Package icmp probes an uplink with echo requests of ICMP (RFC 792) or ICMPv6 (RFC 4443).
package icmp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"tapgw/probe"
	"tapgw/probe/bound"
)

// Prober pings the targets of one uplink over one raw socket, opened at the first probe and replaced when the Link changes or
// the socket fails. The zero value is ready; Close releases the socket.
type Prober struct {
	slot bound.Slot[*socket]
}

// Probe sends one echo request and returns its round-trip time. Only a reply from the target with the identifier, sequence
// number and random payload of the request counts. An ICMP error that quotes the request fails the probe at once.
func (p *Prober) Probe(ctx context.Context, link probe.Link, target probe.Target) (time.Duration, error) {
	s, err := p.slot.Get(link, func() (*socket, error) { return open(ctx, link) })
	if err != nil {
		return 0, err
	}
	e, err := s.prepare(target.Addr)
	if err != nil {
		return 0, err
	}
	defer s.forget(e)
	if err := p.slot.Send(ctx, s, func() error { return s.send(e) }); err != nil {
		return 0, err
	}
	select {
	case a := <-e.answer:
		return a.at.Sub(e.sent), a.err
	case <-s.closed:
		return 0, bound.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Close releases the socket. Probes under way fail; a later one opens a new socket.
func (p *Prober) Close() error { return p.slot.Close() }

// socket is a raw ICMP socket on one uplink and the requests that wait for an answer on it.
type socket struct {
	link   probe.Link
	conn   net.PacketConn
	raw    syscall.RawConn // of conn
	id     uint16
	closed chan struct{} // when the reader has ended

	mu      sync.Mutex
	seq     uint16
	waiting map[uint16]*echo // by sequence number
}

// echo is one request under way.
type echo struct {
	seq     uint16
	dst     netip.Addr
	request []byte // the ICMP message as sent
	sent    time.Time
	answer  chan answer
}

type answer struct {
	at  time.Time
	err error
}

func open(ctx context.Context, link probe.Link) (*socket, error) {
	if err := bound.Check(link); err != nil {
		return nil, err
	}
	id, seq := identity()
	lc := net.ListenConfig{Control: bound.Control(link)}
	conn, err := lc.ListenPacket(ctx, protocolOf(link.Source).network, link.Source.String())
	if err != nil {
		return nil, cause(err)
	}
	raw, err := bound.Raw(conn)
	if err == nil {
		err = setFilter(conn, link, id)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := &socket{link: link, conn: conn, raw: raw, id: id, seq: seq, closed: make(chan struct{}), waiting: make(map[uint16]*echo)}
	go s.read()
	return s, nil
}

func setFilter(conn net.PacketConn, link probe.Link, id uint16) error {
	if link.Source.Is6() {
		return ipv6.NewPacketConn(conn).SetICMPFilter(filterV6())
	}
	return ipv4.NewPacketConn(conn).SetBPF(filter(id))
}

// cookieLen is how many random bytes a request carries.
const cookieLen = 8

// identity draws an unpredictable identifier and first sequence number. The identifier comes from the ephemeral ports, which
// the NAT leaves to the host, so that a reply is never mistaken for one to a translated ping.
func identity() (id, seq uint16) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return firstID + binary.BigEndian.Uint16(b[:])%countID, binary.BigEndian.Uint16(b[2:])
}

// Close ends the reader.
func (s *socket) Close() error { return s.conn.Close() }

// Done is closed when the reader has ended.
func (s *socket) Done() <-chan struct{} { return s.closed }

func (s *socket) send(e *echo) error {
	return cause(bound.SendTo(s.raw, e.request, e.dst))
}

// prepare registers a request before it is sent, since the reply may be faster than the return of the system call.
func (s *socket) prepare(dst netip.Addr) (*echo, error) {
	cookie := make([]byte, cookieLen)
	_, _ = rand.Read(cookie) // never fails
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	message := icmp.Message{Type: protocolOf(dst).echo, Body: &icmp.Echo{ID: int(s.id), Seq: int(s.seq), Data: cookie}}
	request, err := message.Marshal(nil)
	if err != nil {
		return nil, err
	}
	e := &echo{seq: s.seq, dst: dst, request: request, sent: time.Now(), answer: make(chan answer, 1)}
	s.waiting[e.seq] = e
	return e, nil
}

func (s *socket) forget(e *echo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[e.seq] == e {
		delete(s.waiting, e.seq)
	}
}

// read hands answers to the requests they belong to until the socket is closed or fails.
func (s *socket) read() {
	defer close(s.closed)
	buf := make([]byte, 1500)
	for {
		n, from, err := bound.ReceiveFrom(s.raw, buf)
		if err != nil {
			_ = s.conn.Close() // of no use any more, or closed already
			return
		}
		s.deliver(bound.Payload(buf[:n], from), from, time.Now())
	}
}

func (s *socket) deliver(message []byte, from netip.Addr, at time.Time) {
	seq, ok := protocolOf(s.link.Source).sequence(message)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.waiting[seq]
	if e == nil {
		return
	}
	ours, err := e.judge(message, from, s.link.Source)
	if !ours {
		return
	}
	delete(s.waiting, seq)
	e.answer <- answer{at, err} // buffered, and only one is ever sent
}

// cause drops the addresses that net puts around an errno: the verdict names the target already.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
