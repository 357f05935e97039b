package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// newKernel makes the gateway do mwan3's job: each new connection gets a mark at random, the mark chooses a routing table
// and with it an uplink, and what leaves is masqueraded.
func newKernel(ctx context.Context, _ int) (*peer, error) {
	return newPeer(ctx, "kernel", func(p *peer) error {
		p.memory = func() (memory, error) { return kernelMemory(p.lab.Gateway) }
		return errors.Join(
			p.lab.Gateway.Sysctl("net/ipv4/ip_forward", "1"),
			addMarkRoutes(p.lab),
			addMarkRules(p.lab.Gateway),
		)
	})
}

// addMarkRoutes makes mark n choose table 100+n, which holds a default route by uplink n.
func addMarkRoutes(t *lab.Topology) error {
	h := t.Gateway.Handle()
	for _, u := range t.Uplinks {
		index, err := t.Gateway.Index(u.Device)
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: index, Gw: u.NextHop().AsSlice(), Table: 100 + u.Number,
			Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("route by %s: %w", u.Device, err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table, rule.Mark = unix.AF_INET, 1000+u.Number, route.Table, uint32(u.Number)
		if err := h.RuleAdd(rule); err != nil {
			return fmt.Errorf("rule for %s: %w", u.Device, err)
		}
	}
	return nil
}

// addMarkRules installs the nftables rules:
//
//	chain pre  { type filter hook prerouting priority mangle
//	             iifname "lan0" ct mark != 0 meta mark set ct mark return
//	             iifname "lan0" ct state new meta mark set numgen random mod 2 offset 1
//	             iifname "lan0" ct mark set meta mark }
//	chain out  { type route hook output priority mangle
//	             ct mark != 0 meta mark set ct mark return
//	             oifname "wan*" ct state new meta mark set numgen random mod 2 offset 1
//	             ct mark set meta mark }
//	chain post { type nat hook postrouting priority srcnat
//	             oifname "wan*" masquerade }
func addMarkRules(gateway *lab.Namespace) error {
	c, err := nftables.New(nftables.WithNetNSFd(gateway.FD()))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: "bench", Family: nftables.TableFamilyIPv4})
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority, rules ...[]expr.Any) {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: at})
		for _, exprs := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
	}
	fromLAN := nameStarts(expr.MetaKeyIIFNAME, lab.DeviceLAN+"\x00")
	toUplink := nameStarts(expr.MetaKeyOIFNAME, "wan")
	chain("pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle,
		join(fromLAN, restoreMark()), join(fromLAN, newMark()), join(fromLAN, saveMark()))
	chain("out", nftables.ChainTypeRoute, nftables.ChainHookOutput, nftables.ChainPriorityMangle,
		restoreMark(), join(toUplink, newMark()), saveMark())
	chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		join(toUplink, []expr.Any{&expr.Masq{}}))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install the kernel's rules (needs nf_tables with numgen, ct and masquerade): %w", err)
	}
	return nil
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// nameStarts matches device names by their first bytes; a final zero makes it the whole name.
func nameStarts(key expr.MetaKey, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(prefix)}}
}

func restoreMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
}

func newMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Numgen{Register: 1, Modulus: 2, Type: unix.NFT_NG_RANDOM, Offset: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func saveMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: 1},
	}
}

// kernelMemory is what the slab of connection tracking takes for the gateway's sessions. The slab is shared by all
// namespaces and keeps what it freed for a while, so sessions are counted, not pages. It leaves out the hash table and the
// extensions of a connection, which have no slab of their own.
func kernelMemory(gateway *lab.Namespace) (m memory, err error) {
	count, err := gateway.ReadSysctl("net/netfilter/nf_conntrack_count")
	if err != nil {
		return m, err
	}
	if m.sessions, err = strconv.Atoi(count); err != nil {
		return m, err
	}
	slabs, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return m, err
	}
	each, err := slabShare(string(slabs), "nf_conntrack")
	m.bytes = uint64(m.sessions) * each
	return m, err
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
