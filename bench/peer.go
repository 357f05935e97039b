package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// serverNet is a network of servers, all of them in the Internet namespace, so that short connections do not run out of
// port numbers.
var serverNet = netip.MustParsePrefix("203.0.113.0/24")

// peer is one way of doing the gateway's job, in a laboratory of its own.
type peer struct {
	name    string
	lab     *lab.Topology
	servers *servers
	sink    *programs // drops the flood at the providers

	sessions func() (int, error) // that it holds now; nil for one that keeps none
	memory   func() (memory, error)
	stop     func() error // what makes it a gateway; nil for nothing to stop
}

// maker makes a peer that may hold so many sessions.
type maker struct {
	name string
	make func(ctx context.Context, sessions int) (*peer, error)
}

// What is measured. The names of tapgw's begin with tapgw.
const (
	nameKernel      = "kernel"          // connection marks and masquerade by nftables
	nameKernelRules = "kernel-rules"    // the same with rules for what is forwarded
	nameShortcut    = "tapgw-shortcut"  // kernel datapath, past the host's own forwarding
	namePlain       = "tapgw-plain"     // kernel datapath behind it, with the same rules as kernel-rules
	nameUserspace   = "tapgw-userspace" // without the kernel datapath
	nameRedirect    = "redirect"        // a BPF program that redirects and does nothing else
	nameRouted      = "routed"          // the kernel forwarding, without any translation
	nameRoutedRules = "routed-rules"    // the same with tracking and rules for what is forwarded
)

// newPeer builds a laboratory, lets start make its gateway one, and waits until it forwards.
func newPeer(ctx context.Context, name string, start func(*peer) error) (p *peer, err error) {
	p = &peer{name: name}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", name, err), p.close())
		}
	}()
	if p.lab, err = lab.Build(lab.Options{}); err != nil {
		return p, err
	}
	if err := p.prepareInternet(); err != nil {
		return p, err
	}
	if err := start(p); err != nil {
		return p, err
	}
	return p, p.awaitForwarding(ctx)
}

// prepareInternet starts the servers and makes the providers drop the flood.
func (p *peer) prepareInternet() (err error) {
	lo, err := p.lab.Internet.Handle().LinkByName("lo")
	if err != nil {
		return err
	}
	err = p.lab.Internet.Handle().RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Scope: unix.RT_SCOPE_HOST, Dst: &net.IPNet{IP: serverNet.Addr().AsSlice(), Mask: net.CIDRMask(serverNet.Bits(), 32)}})
	if err != nil {
		return fmt.Errorf("route the servers' network: %w", err)
	}
	if err := p.dropFlood(); err != nil {
		return err
	}
	p.servers, err = startServers(p.lab.Internet)
	return err
}

// dropFlood drops UDP to the discard port, and only that, where the provider's port to its customer receives it.
func (p *peer) dropFlood() (err error) {
	if p.sink, err = loadPrograms(nil, "discard"); err != nil {
		return err
	}
	for _, u := range p.lab.Uplinks {
		if err := p.sink.attach("discard", u.ISP, lab.DeviceCustomer); err != nil {
			return err
		}
	}
	return nil
}

// awaitForwarding pings a server from the LAN, which also fills the neighbour tables on the way.
func (p *peer) awaitForwarding(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		try, done := context.WithTimeout(ctx, time.Second)
		_, err := p.host().Ping(try, lab.ServerAddrs[0])
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway forwards nothing: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *peer) host() *lab.Host { return p.lab.Hosts[0] }

// close stops everything the peer is made of.
func (p *peer) close() error {
	var errs []error
	if p.stop != nil {
		errs = append(errs, p.stop())
	}
	if p.servers != nil {
		errs = append(errs, p.servers.close())
	}
	if p.sink != nil {
		errs = append(errs, p.sink.close())
	}
	if p.lab != nil {
		errs = append(errs, p.lab.Close())
	}
	return errors.Join(errs...)
}

// forwarded is how many packets the gateway has sent by its uplinks.
func (p *peer) forwarded() (packets uint64, err error) {
	for _, u := range p.lab.Uplinks {
		link, err := p.lab.Gateway.Handle().LinkByName(u.Device)
		if err != nil {
			return 0, fmt.Errorf("read the counters of %s: %w", u.Device, err)
		}
		packets += link.Attrs().Statistics.TxPackets
	}
	return packets, nil
}
