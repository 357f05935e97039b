package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"tapgw/internal/portal"
	"tapgw/probe"
	"tapgw/probe/bound"
	"tapgw/probe/dns"
)

// byLink reaches what one uplink leads to, as probes do: neither by another uplink nor by the TAP.
type byLink probe.Link

// wayBy binds to one family of an uplink, which kernels before 5.7 allow to root only.
func wayBy(ctx context.Context, o Outlet) (portal.Way, error) {
	device, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return nil, fmt.Errorf("use %s: %w", o.Interface, err)
	}
	link := probe.Link{Name: o.Interface, Index: device.Index, Source: o.Source, Gateway: o.Gateway}
	if err := bound.Check(link); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: bound.Control(link)}
	trial, err := config.ListenPacket(ctx, "udp", netip.AddrPortFrom(o.Source, 0).String())
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("use %s alone: %w; run the command with sudo", o.Interface, err)
	case err != nil:
		return nil, fmt.Errorf("use %s alone: %w", o.Interface, err)
	}
	return byLink(link), trial.Close()
}

// Resolve asks the resolvers that probes ask.
func (l byLink) Resolve(ctx context.Context, name string) (netip.Addr, error) {
	return dns.Resolve(ctx, probe.Link(l), name)
}

func (l byLink) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return bound.Dial(ctx, probe.Link(l), "tcp", to.String())
}

func (byLink) Own() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own, nil
}

// browsers take the proxy on their command line.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "brave-browser"}

// findBrowser returns the one that is installed, "" for none.
func findBrowser() string {
	for _, name := range browsers {
		if inPath(name) != "" {
			return name
		}
	}
	return ""
}
