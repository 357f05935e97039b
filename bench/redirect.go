package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/packet"
)

// lanMAC is the hardware address of the gateway's LAN port, as the laboratory sets it.
var lanMAC = [6]byte{2, 0, 0, 0, 0, 0xaa}

// lanNet is the LAN of the laboratory.
var lanNet = netip.PrefixFrom(lab.GatewayLANAddr, 24).Masked()

// newRouted makes the gateway a plain router: nothing is translated or tracked.
func newRouted(ctx context.Context, _ int) (*peer, error) {
	return newPeer(ctx, nameRouted, func(p *peer) error {
		return errors.Join(routeLAN(p.lab), p.lab.Gateway.Sysctl("net/ipv4/ip_forward", "1"))
	})
}

// newRoutedRules makes it one that tracks what it forwards, and has the rules of kernel-rules.
func newRoutedRules(ctx context.Context, _ int) (*peer, error) {
	return newPeer(ctx, nameRoutedRules, func(p *peer) error {
		return errors.Join(routeLAN(p.lab), p.lab.Gateway.Sysctl("net/ipv4/ip_forward", "1"), addForwardRules(p.lab.Gateway))
	})
}

// newRedirect makes the gateway redirect packets between the LAN and the uplinks and nothing else, which is as fast as a BPF
// program there can be.
func newRedirect(ctx context.Context, _ int) (*peer, error) {
	return newPeer(ctx, nameRedirect, func(p *peer) error {
		if err := routeLAN(p.lab); err != nil {
			return err
		}
		redirect, err := loadRedirect(p.lab)
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

// way is struct way of bench.bpf.c.
type way struct{ Index, NextHop uint32 }

func loadRedirect(t *lab.Topology) (*programs, error) {
	constants := map[string]any{
		"lan": packet.HostOrder(lanNet.Addr()), "lan_mask": binary.BigEndian.Uint32(net.CIDRMask(lanNet.Bits(), 32)),
	}
	index, err := t.Gateway.Index(lab.DeviceLAN)
	if err != nil {
		return nil, err
	}
	constants["lan_ifindex"] = uint32(index)
	for i, u := range t.Uplinks {
		index, err := t.Gateway.Index(u.Device)
		if err != nil {
			return nil, err
		}
		next := u.NextHop().As4()
		constants[fmt.Sprintf("uplink%d", i)] = way{uint32(index), binary.NativeEndian.Uint32(next[:])}
	}
	return loadPrograms(constants, "redirect_out", "redirect_in")
}

// routeLAN makes the providers and the Internet know the LAN, whose addresses are not translated. Replies come by the
// first provider.
func routeLAN(t *lab.Topology) error {
	for _, u := range t.Uplinks {
		route := &netlink.Route{Dst: lanPrefix(), Gw: u.Addr().AsSlice()}
		if err := u.ISP.Handle().RouteAdd(route); err != nil {
			return fmt.Errorf("route the LAN at the provider: %w", err)
		}
	}
	back, err := t.Internet.Handle().RouteGet(t.Uplinks[0].Addr().AsSlice())
	if err != nil || len(back) == 0 {
		return fmt.Errorf("find the first provider's route: %w", err)
	}
	if err := t.Internet.Handle().RouteAdd(&netlink.Route{Dst: lanPrefix(), Gw: back[0].Gw}); err != nil {
		return fmt.Errorf("route the LAN in the Internet: %w", err)
	}
	return nil
}

func lanPrefix() *net.IPNet {
	return &net.IPNet{IP: lanNet.Addr().AsSlice(), Mask: net.CIDRMask(lanNet.Bits(), 32)}
}
