package main

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
)

// family is a version of the Internet Protocol, and what the laboratory has of it.
type family struct {
	name       string
	ipv6       bool
	domain     int    // of sockets
	tcp        string // network of TCP, for package net
	table      nftables.TableFamily
	forwarding string // sysctl that makes a router
	room       string // configuration of how many sessions tapgw may hold
	floodLen   int    // length of the flood's packets, bytes of Ethernet

	// servers are all of them in the Internet namespace: many, so that short connections do not run out of port numbers.
	servers netip.Prefix
	gateway netip.Addr // of the LAN
	lan     netip.Prefix

	own, nextHop func(*lab.Uplink) netip.Addr
	state        func(api.Uplink) string
}

var (
	ipv4 = &family{
		name: "IPv4", domain: unix.AF_INET, tcp: "tcp4", table: nftables.TableFamilyIPv4,
		forwarding: "net/ipv4/ip_forward", room: "max_sessions", floodLen: 60,
		servers: netip.MustParsePrefix("203.0.113.0/24"),
		gateway: lab.GatewayLANAddr, lan: netip.PrefixFrom(lab.GatewayLANAddr, 24).Masked(),
		own: (*lab.Uplink).Addr, nextHop: (*lab.Uplink).NextHop,
		state: func(u api.Uplink) string { return u.State },
	}
	ipv6 = &family{
		name: "IPv6", ipv6: true, domain: unix.AF_INET6, tcp: "tcp6", table: nftables.TableFamilyIPv6,
		forwarding: "net/ipv6/conf/all/forwarding", room: "max_sessions_ipv6", floodLen: 80,
		servers: netip.MustParsePrefix("2001:db8:f::/120"),
		gateway: lab.GatewayLANAddrV6, lan: netip.PrefixFrom(lab.GatewayLANAddrV6, 64).Masked(),
		own: (*lab.Uplink).AddrV6, nextHop: (*lab.Uplink).NextHopV6,
		state: func(u api.Uplink) string { return u.IPv6.State },
	}
)

// server is the address of server i.
func (f *family) server(i int) netip.Addr {
	b := f.servers.Addr().AsSlice()
	b[len(b)-1] += byte(1 + i%serverCount)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// any is the address of nobody.
func (f *family) any() netip.Addr {
	if f.ipv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// sockaddr is an address for system calls.
func (f *family) sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if f.ipv6 {
		return &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	}
	return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
}

// everywhere is the destination of a default route.
func (f *family) everywhere() *net.IPNet { return ipNet(netip.PrefixFrom(f.any(), 0)) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// toBPF is an address for bench.bpf.c.
func toBPF(a netip.Addr) bpfAddress { return words(a.AsSlice()) }

func prefixToBPF(p netip.Prefix) bpfPrefix {
	return bpfPrefix{Address: toBPF(p.Addr()), Mask: words(net.CIDRMask(p.Bits(), p.Addr().BitLen()))}
}

// words are bytes in the order of the network.
func words(b []byte) (a bpfAddress) {
	for i := range len(b) / 4 {
		a.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return a
}

// flag is the constant ipv6 of bench.bpf.c.
func (f *family) flag() uint32 {
	if f.ipv6 {
		return 1
	}
	return 0
}
