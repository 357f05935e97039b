package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tapgw/internal/lab"
)

// peer is one way of doing the gateway's job, in a laboratory of its own.
type peer struct {
	name       string
	family     *family
	rates      string // as in room
	translates bool   // what it forwards leaves with its own addresses
	lab        *lab.Topology
	servers    *servers
	sinks      []*programs // drop the flood at the providers

	sessions func() (int, error)    // that it holds now; nil for one that keeps none
	sent     func() (uint64, error) // packets that left through a program although the kernel was to carry them; nil where nobody was
	memory   func() (memory, error)
	stop     func() error // what makes it a gateway; nil for nothing to stop
}

// room is what a gateway is made for. Gateways of the same room are shared by tasks.
type room struct {
	family   *family
	sessions int    // that it may hold
	rates    string // of the uplinks in Mbit/s, both ways, as 100/20; two without a limit when empty
}

// maker makes a peer.
type maker struct {
	name string
	make func(context.Context, room) (*peer, error)
}

// What is measured. The names of tapgw's begin with tapgw.
const (
	nameKernel      = "kernel"          // connection marks and masquerade by nftables
	nameKernelRules = "kernel-rules"    // the same with rules for what is forwarded
	nameShortcut    = "tapgw-shortcut"  // kernel datapath, past the host's own forwarding
	namePlain       = "tapgw-plain"     // kernel datapath behind it, with the same rules as kernel-rules
	nameWatched     = "tapgw-watched"   // tapgw-shortcut with all attached to it that people look with
	nameUserspace   = "tapgw-userspace" // without the kernel datapath
	nameRedirect    = "redirect"        // a BPF program that redirects and does nothing else
	nameRouted      = "routed"          // the kernel forwarding, without any translation
	nameRoutedRules = "routed-rules"    // the same with tracking and rules for what is forwarded
)

// newPeer builds a laboratory, lets start make the gateway p, and waits until it forwards.
func newPeer(ctx context.Context, p *peer, start func() error) (_ *peer, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", p.name, err), p.close())
		}
	}()
	if p.lab, err = lab.Build(lab.Options{IPv6: p.family.ipv6, Uplinks: shaped(p.rates)}); err != nil {
		return p, err
	}
	if err := p.prepareInternet(); err != nil {
		return p, err
	}
	if err := start(); err != nil {
		return p, err
	}
	return p, p.awaitForwarding(ctx)
}

// prepareInternet starts the servers and makes the providers drop the flood.
func (p *peer) prepareInternet() (err error) {
	if err := serveNetwork(p.lab.Internet, p.family); err != nil {
		return err
	}
	if err := p.dropFlood(); err != nil {
		return err
	}
	p.servers, err = startServers(p.lab.Internet, p.family)
	return err
}

// dropFlood drops UDP to the discard port, and only that, where the provider's port to its customer receives it.
func (p *peer) dropFlood() error {
	for _, u := range p.lab.Uplinks {
		sink, err := loadPrograms(p.family, map[string]any{"expected": prefixToBPF(p.expected(u))}, "discard")
		if err != nil {
			return err
		}
		p.sinks = append(p.sinks, sink)
		if err := sink.attach("discard", u.ISP, lab.DeviceCustomer); err != nil {
			return err
		}
	}
	return nil
}

// expected is where what the gateway forwards to a provider comes from.
func (p *peer) expected(u *lab.Uplink) netip.Prefix {
	if !p.translates {
		return p.family.lan
	}
	own := p.family.own(u)
	return netip.PrefixFrom(own, own.BitLen())
}

// checkSources fails when packets of the flood had not the source that they must have behind this gateway.
func (p *peer) checkSources() error {
	for i, sink := range p.sinks {
		var packets uint64
		if err := sink.Variables["unexpected"].Get(&packets); err != nil {
			return err
		}
		if packets > 0 {
			return fmt.Errorf("%d packets left by %s with a wrong source", packets, p.lab.Uplinks[i].Device)
		}
	}
	return nil
}

// awaitForwarding waits until packets of the LAN get to a server and back.
func (p *peer) awaitForwarding(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := p.forwards(ctx)
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

// forwards pings a server from the LAN, which also fills the neighbour tables on the way. A gateway that keeps sessions must
// hold one then: what the host forwards without it does not count.
func (p *peer) forwards(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	if _, err := p.host().Ping(ctx, p.family.server(0)); err != nil || p.sessions == nil {
		return err
	}
	held, err := p.sessions()
	if err == nil && held == 0 {
		err = errors.New("the ping has no session")
	}
	return err
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
	for _, sink := range p.sinks {
		errs = append(errs, sink.close())
	}
	if p.lab != nil {
		errs = append(errs, p.lab.Close())
	}
	return errors.Join(errs...)
}

// maxUpcalls is the share of a program's packets above which the kernel's speed was not measured.
const maxUpcalls = 0.1

// carried measures packets of known sessions, and fails when it was not the kernel that carried them where it was to.
func (p *peer) carried(measure func() (float64, error)) (float64, error) {
	if p.sent == nil {
		return measure()
	}
	sent, all, err := p.left()
	if err != nil {
		return 0, err
	}
	value, err := measure()
	if err != nil {
		return 0, err
	}
	sentNow, allNow, err := p.left()
	if sent, all = sentNow-sent, allNow-all; err == nil && float64(sent) > maxUpcalls*float64(all) {
		err = fmt.Errorf("%d of %d packets were not the kernel's", sent, all)
	}
	return value, err
}

// left is how many packets have left by the uplinks through a program, and how many in all.
func (p *peer) left() (sent, all uint64, err error) {
	if sent, err = p.sent(); err == nil {
		all, err = p.forwarded()
	}
	return sent, all, err
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
