package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
)

// kernelMaker makes the gateway do mwan3's job: each new connection gets a mark at random, the mark chooses a routing table
// and with it an uplink, and what leaves is masqueraded. With rules the host has an opinion of what it forwards, too.
func kernelMaker(name string, rules bool) maker {
	return maker{name, func(ctx context.Context, r room) (*peer, error) {
		p := &peer{name: name, family: r.family, translates: true}
		return newPeer(ctx, p, func() error {
			p.sessions = func() (int, error) { return readNumber(p.lab.Gateway, "net/netfilter/nf_conntrack_count") }
			p.memory = func() (memory, error) { return kernelMemory(p) }
			err := errors.Join(p.forward(), p.addMarkRoutes(), addMarkRules(p.lab.Gateway, p.family))
			if rules {
				err = errors.Join(err, addForwardRules(p.lab.Gateway, p.family))
			}
			return err
		})
	}}
}

// addMarkRoutes makes mark n choose table 100+n, which holds a default route by uplink n.
func (p *peer) addMarkRoutes() error {
	h := p.lab.Gateway.Handle()
	for _, u := range p.lab.Uplinks {
		index, err := p.lab.Gateway.Index(u.Device)
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: index, Gw: p.family.nextHop(u).AsSlice(), Table: 100 + u.Number, Dst: p.family.everywhere()}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("route by %s: %w", u.Device, err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table, rule.Mark = p.family.domain, 1000+u.Number, route.Table, uint32(u.Number)
		if err := h.RuleAdd(rule); err != nil {
			return fmt.Errorf("rule for %s: %w", u.Device, err)
		}
	}
	return nil
}

// readNumber reads a setting that is a number.
func readNumber(ns *lab.Namespace, path string) (int, error) {
	text, err := ns.ReadSysctl(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// kernelMemory is what the slab of connection tracking takes for the gateway's sessions. The slab is shared by all
// namespaces and keeps what it freed for a while, so sessions are counted, not pages. It leaves out the hash table and the
// extensions of a connection, which have no slab of their own.
func kernelMemory(p *peer) (m memory, err error) {
	sessions, err := p.sessions()
	if err != nil {
		return m, err
	}
	slabs, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return m, err
	}
	each, err := slabShare(string(slabs), "nf_conntrack")
	return memory{bytes: uint64(sessions) * each}, err
}

// slabShare is an object's share of its slab's pages, bytes. A line is "name active objects size per-slab pages-per-slab …".
func slabShare(slabinfo, name string) (uint64, error) {
	for line := range strings.Lines(slabinfo) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != name {
			continue
		}
		objects, err := strconv.ParseUint(f[4], 10, 32)
		pages, also := strconv.ParseUint(f[5], 10, 32)
		if err := errors.Join(err, also); err != nil || objects == 0 {
			return 0, fmt.Errorf("/proc/slabinfo reads %q: %w", line, err)
		}
		return pages * uint64(os.Getpagesize()) / objects, nil
	}
	return 0, fmt.Errorf("/proc/slabinfo has no line %s", name)
}
