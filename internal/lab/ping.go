package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const pingTimeout = 2 * time.Second // without a deadline of the caller

// dialect is ICMP of one family.
type dialect struct {
	network, any   string
	proto          int
	request, reply icmp.Type
}

var (
	dialectV4 = dialect{"ip4:icmp", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply}
	dialectV6 = dialect{"ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply}
)

func dialectOf(a netip.Addr) *dialect {
	if a.Is6() {
		return &dialectV6
	}
	return &dialectV4
}

// Ping sends one ICMP echo request from inside the namespace and returns the round-trip time. Without a reply before ctx
// ends (or 2 s) the error is a timeout; an ICMP error that quotes the request is an error too.
func (n *Namespace) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	d := dialectOf(addr)
	conn, err := n.ListenPacket(d.network, d.any)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(pingTimeout)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	request := &icmp.Echo{ID: rand.IntN(1 << 16), Seq: 1, Data: []byte("tapgw laboratory")}
	b, err := (&icmp.Message{Type: d.request, Body: request}).Marshal(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	if err := d.awaitReply(conn, addr, request); err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	return time.Since(start), nil
}

// awaitReply reads until the reply of request comes; a raw socket sees everybody's ICMP.
func (d *dialect) awaitReply(conn net.PacketConn, addr netip.Addr, request *icmp.Echo) error {
	buf := make([]byte, maxPacket)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(d.proto, buf[:size])
		if err != nil {
			continue
		}
		reply, ok := m.Body.(*icmp.Echo)
		if ok && m.Type == d.reply && reply.ID == request.ID && from.String() == addr.String() {
			return nil
		}
		if d.quotes(m, addr, request) {
			return fmt.Errorf("%s from %s, code %d", m.Type, from, m.Code)
		}
	}
}

// quotes reports whether m is an ICMP error about request.
func (d *dialect) quotes(m *icmp.Message, addr netip.Addr, request *icmp.Echo) bool {
	var quoted []byte
	switch body := m.Body.(type) {
	case *icmp.DstUnreach:
		quoted = body.Data
	case *icmp.TimeExceeded:
		quoted = body.Data
	case *icmp.PacketTooBig:
		quoted = body.Data
	}
	proto, dst, length := d.header(quoted)
	if proto != d.proto || dst.String() != addr.String() || len(quoted) < length {
		return false
	}
	m, err := icmp.ParseMessage(d.proto, quoted[length:])
	if err != nil {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && echo.ID == request.ID
}

// header reads the protocol, the destination and the length of a quoted header of IP; the protocol is 0 when there is none.
func (d *dialect) header(quoted []byte) (proto int, dst net.IP, length int) {
	if d == &dialectV6 {
		if h, err := ipv6.ParseHeader(quoted); err == nil {
			return h.NextHeader, h.Dst, ipv6.HeaderLen
		}
		return 0, nil, 0
	}
	if h, err := icmp.ParseIPv4Header(quoted); err == nil {
		return h.Protocol, h.Dst, h.Len
	}
	return 0, nil, 0
}
