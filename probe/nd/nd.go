// Package nd probes an uplink by resolving its gateway's address (RFC 4861). That proves the link, not the path behind it.
package nd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"

	"tapgw/probe"
	"tapgw/probe/bound"
)

// ErrNoGateway is returned for a link without a gateway of IPv6 to ask for, or without Ethernet.
var ErrNoGateway = errors.New("the link has no gateway to ask for: use icmp:// or tcp:// targets")

const (
	solicitation  = 135
	advertisement = 136
	targetAt      = 8  // of the address in both messages (RFC 4861 §4.3, §4.4)
	messageLen    = 24 // without options
	hopLimit      = 255
)

// Prober asks for the gateway over a socket of its own. The zero value is ready.
type Prober struct{}

// Probe returns how long the answer took.
func (Prober) Probe(ctx context.Context, link probe.Link, _ probe.Target) (time.Duration, error) {
	if link.HeaderLess || !link.Gateway.Is6() {
		return 0, ErrNoGateway
	}
	if err := bound.Check(link); err != nil {
		return 0, err
	}
	ifi, err := net.InterfaceByIndex(link.Index)
	if err != nil {
		return 0, fmt.Errorf("find interface %d (%s): %w", link.Index, link.Name, err)
	}
	lc := net.ListenConfig{Control: bound.Control(link)}
	conn, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", link.Source.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	return ask(ctx, ipv6.NewPacketConn(conn), ifi, link.Gateway)
}

func ask(ctx context.Context, conn *ipv6.PacketConn, ifi *net.Interface, gateway netip.Addr) (time.Duration, error) {
	filter := new(ipv6.ICMPFilter)
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	if err := errors.Join(conn.SetICMPFilter(filter), conn.SetControlMessage(ipv6.FlagHopLimit, true)); err != nil {
		return 0, fmt.Errorf("set up the socket: %w", err)
	}
	sent := time.Now()
	to := &net.IPAddr{IP: group(gateway).AsSlice(), Zone: ifi.Name}
	if _, err := conn.WriteTo(request(gateway, ifi.HardwareAddr), &ipv6.ControlMessage{HopLimit: hopLimit}, to); err != nil {
		return 0, fmt.Errorf("send a neighbour solicitation: %w", err)
	}
	buf := make([]byte, 1500)
	for {
		n, control, _, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		if control != nil && control.HopLimit == hopLimit && advertises(buf[:n], gateway) {
			return time.Since(sent), nil
		}
	}
}

// request is a solicitation for an address with our own link-layer address.
func request(gateway netip.Addr, mac net.HardwareAddr) []byte {
	m := make([]byte, messageLen, messageLen+8)
	m[0] = solicitation
	target := gateway.As16()
	copy(m[targetAt:], target[:])
	return append(append(m, 1, 1), mac...) // the kernel sets the checksum
}

// advertises reports whether a message says where the gateway is.
func advertises(m []byte, gateway netip.Addr) bool {
	return len(m) >= messageLen && m[0] == advertisement && m[1] == 0 && netip.AddrFrom16([16]byte(m[targetAt:])) == gateway
}

// group is that of the nodes which may have an address (RFC 4291 §2.7.1).
func group(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}
