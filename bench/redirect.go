package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
)

// lanMAC is the hardware address of the gateway's LAN port, as the laboratory sets it.
var lanMAC = [6]byte{2, 0, 0, 0, 0, 0xaa}

// newRouted makes the gateway a plain router: nothing is translated or tracked.
func newRouted(ctx context.Context, r room) (*peer, error) {
	p := &peer{name: nameRouted, family: r.family}
	return newPeer(ctx, p, func() error { return errors.Join(p.routeLAN(), p.forward()) })
}

// newRoutedRules makes it one that tracks what it forwards, and has the rules of kernel-rules.
func newRoutedRules(ctx context.Context, r room) (*peer, error) {
	p := &peer{name: nameRoutedRules, family: r.family}
	return newPeer(ctx, p, func() error { return errors.Join(p.routeLAN(), p.forward(), addForwardRules(p.lab.Gateway, p.family)) })
}

// forward makes the gateway a router.
func (p *peer) forward() error { return p.lab.Gateway.Sysctl(p.family.forwarding, "1") }

// newRedirect makes the gateway redirect packets between the LAN and the uplinks and nothing else, which is as fast as a BPF
// program there can be.
func newRedirect(ctx context.Context, r room) (*peer, error) {
	p := &peer{name: nameRedirect, family: r.family}
	return newPeer(ctx, p, func() error {
		if err := p.routeLAN(); err != nil {
			return err
		}
		redirect, err := p.loadRedirect()
		if err != nil {
			return err
		}
		p.stop = redirect.close
		err = redirect.attach("redirect_out", p.lab.Gateway, lab.DeviceLAN)
		for _, u := range p.lab.Uplinks {
			err = errors.Join(err, redirect.attach("redirect_in", p.lab.Gateway, u.Device))
		}
		return err
	})
}

func (p *peer) loadRedirect() (*programs, error) {
	constants := map[string]any{"lan": prefixToBPF(p.family.lan), "servers": prefixToBPF(p.family.servers)}
	gateway := p.lab.Gateway
	index, err := gateway.Index(lab.DeviceLAN)
	if err != nil {
		return nil, err
	}
	constants["lan_ifindex"] = uint32(index)
	for i, u := range p.lab.Uplinks {
		index, err := gateway.Index(u.Device)
		if err != nil {
			return nil, err
		}
		constants[fmt.Sprintf("uplink%d", i)] = bpfWay{Ifindex: uint32(index), NextHop: toBPF(p.family.nextHop(u))}
	}
	return loadPrograms(p.family, constants, "redirect_out", "redirect_in")
}

// routeLAN makes the providers and the Internet know the LAN, whose addresses are not translated. Replies come by the
// first provider.
func (p *peer) routeLAN() error {
	f, internet := p.family, p.lab.Internet.Handle()
	for _, u := range p.lab.Uplinks {
		route := &netlink.Route{Dst: ipNet(f.lan), Gw: f.own(u).AsSlice()}
		if err := u.ISP.Handle().RouteAdd(route); err != nil {
			return fmt.Errorf("route the LAN at the provider: %w", err)
		}
	}
	back, err := internet.RouteGet(f.own(p.lab.Uplinks[0]).AsSlice())
	if err != nil || len(back) == 0 {
		return fmt.Errorf("find the first provider's route: %w", err)
	}
	if err := internet.RouteAdd(&netlink.Route{Dst: ipNet(f.lan), Gw: back[0].Gw}); err != nil {
		return fmt.Errorf("route the LAN in the Internet: %w", err)
	}
	return nil
}
