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
)

const (
	pingTimeout = 2 * time.Second // without a deadline of the caller
	protoICMP   = 1
)

// Ping sends one ICMP echo request from inside the namespace and returns the round-trip time. Without a reply before ctx
// ends (or 2 s) the error is a timeout; an ICMP error that quotes the request is an error too.
func (n *Namespace) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	conn, err := n.ListenPacket("ip4:icmp", "0.0.0.0")
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
	b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: request}).Marshal(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	if err := awaitReply(conn, addr, request); err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	return time.Since(start), nil
}

// awaitReply reads until the reply of request comes; a raw socket sees everybody's ICMP.
func awaitReply(conn net.PacketConn, addr netip.Addr, request *icmp.Echo) error {
	buf := make([]byte, maxPacket)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(protoICMP, buf[:size])
		if err != nil {
			continue
		}
		reply, ok := m.Body.(*icmp.Echo)
		if ok && m.Type == ipv4.ICMPTypeEchoReply && reply.ID == request.ID && from.String() == addr.String() {
			return nil
		}
		if quotes(m, addr, request) {
			return fmt.Errorf("%s from %s, code %d", m.Type, from, m.Code)
		}
	}
}

// quotes reports whether m is an ICMP error about request.
func quotes(m *icmp.Message, addr netip.Addr, request *icmp.Echo) bool {
	var quoted []byte
	switch body := m.Body.(type) {
	case *icmp.DstUnreach:
		quoted = body.Data
	case *icmp.TimeExceeded:
		quoted = body.Data
	}
	h, err := icmp.ParseIPv4Header(quoted)
	if err != nil || h.Protocol != protoICMP || h.Dst.String() != addr.String() || len(quoted) < h.Len {
		return false
	}
	m, err = icmp.ParseMessage(protoICMP, quoted[h.Len:])
	if err != nil {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && echo.ID == request.ID
}
