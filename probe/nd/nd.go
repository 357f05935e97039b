// Package nd probes an uplink by resolving its gateway's address (RFC 4861). That proves the link, not the path behind it.
package nd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"

	"tapgw/probe"
	"tapgw/probe/bound"
)

// ErrNoGateway is returned for a link without a gateway of IPv6 to ask for, or without Ethernet.
var ErrNoGateway = errors.New("the link has no gateway to ask for: use icmp:// or tcp:// targets")

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
	message, group, err := solicitation(gateway, ifi.HardwareAddr)
	if err != nil {
		return 0, fmt.Errorf("ask for %s: %w", gateway, err)
	}
	sent := time.Now()
	to := &net.IPAddr{IP: group.AsSlice(), Zone: ifi.Name}
	if _, err := conn.WriteTo(message, &ipv6.ControlMessage{HopLimit: ndp.HopLimit}, to); err != nil {
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
		if control != nil && control.HopLimit == ndp.HopLimit && advertises(buf[:n], gateway) {
			return time.Since(sent), nil
		}
	}
}

// solicitation asks for an address with our own link-layer address; the kernel sets the checksum.
func solicitation(gateway netip.Addr, mac net.HardwareAddr) (message []byte, group netip.Addr, err error) {
	own := &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}
	if message, err = ndp.MarshalMessage(&ndp.NeighborSolicitation{TargetAddress: gateway, Options: []ndp.Option{own}}); err == nil {
		group, err = ndp.SolicitedNodeMulticast(gateway)
	}
	return message, group, err
}

// advertises reports whether a message says where the gateway is.
func advertises(m []byte, gateway netip.Addr) bool {
	message, err := ndp.ParseMessage(m)
	a, ok := message.(*ndp.NeighborAdvertisement)
	return err == nil && ok && m[1] == 0 && a.TargetAddress == gateway
}
