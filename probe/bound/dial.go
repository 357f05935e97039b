package bound

import (
	"context"
	"net"
	"net/netip"

	"tapgw/probe"
)

// Dial connects from the address of link by its interface alone; the network is tcp or udp.
func Dial(ctx context.Context, link probe.Link, network, address string) (net.Conn, error) {
	local := netip.AddrPortFrom(link.Source, 0)
	dialer := net.Dialer{Control: Control(link), KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(local)}
	if network == "udp" {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	return dialer.DialContext(ctx, network, address)
}
