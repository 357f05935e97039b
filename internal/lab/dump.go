package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State is what a namespace holds, one object a line, sorted. Interface indexes, counters, carrier and whatever else
// changes by itself is left out, so two states of an untouched namespace are equal.
type State []string

// maxDumps is how often a namespace is read in which things vanish meanwhile.
const maxDumps = 10

// Dump reads the state of a namespace: links and their qdiscs, addresses, routes of all tables, rules, permanent
// neighbours, the nftables ruleset and the settings that a router changes.
func Dump(n *Namespace) (state State, err error) {
	for range maxDumps {
		if state, err = dump(n); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return state, err
}

func dump(n *Namespace) (State, error) {
	d := &dumper{ns: n, names: map[int]string{0: "-"}}
	for _, read := range []func() error{d.links, d.qdiscs, d.addresses, d.routes, d.rules, d.neighbours, d.ruleset, d.sysctls} {
		if err := read(); err != nil {
			return nil, fmt.Errorf("dump namespace %s: %w", n.name, err)
		}
	}
	slices.Sort(d.state)
	return d.state, nil
}

// Diff returns the lines that only before and only after have.
func Diff(before, after State) (removed, added []string) {
	return before.without(after), after.without(before)
}

// without returns the lines of s that other lacks, counting repeated ones.
func (s State) without(other State) (rest []string) {
	count := make(map[string]int, len(other))
	for _, line := range other {
		count[line]++
	}
	for _, line := range s {
		if count[line]--; count[line] < 0 {
			rest = append(rest, line)
		}
	}
	return rest
}

type dumper struct {
	ns    *Namespace
	names map[int]string // of interfaces, by index
	state State
}

func (d *dumper) add(format string, args ...any) {
	d.state = append(d.state, fmt.Sprintf(format, args...))
}

func (d *dumper) links() error {
	links, err := d.ns.handle.LinkList()
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for _, l := range links {
		d.names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		d.add("link %s kind %s mac %s mtu %d up %t promisc %d allmulti %d master %s xdp %t", a.Name, l.Type(), a.HardwareAddr,
			a.MTU, a.Flags&net.FlagUp != 0, a.Promisc, a.Allmulti, d.names[a.MasterIndex], a.Xdp != nil && a.Xdp.Attached)
	}
	return nil
}

func (d *dumper) qdiscs() error {
	list, err := d.ns.handle.QdiscList(nil)
	if err != nil {
		return fmt.Errorf("qdiscs: %w", err)
	}
	for _, q := range list {
		if q.Type() != "noqueue" {
			d.add("qdisc %s %s handle %x parent %x", d.names[q.Attrs().LinkIndex], q.Type(), q.Attrs().Handle, q.Attrs().Parent)
		}
	}
	return nil
}

func (d *dumper) addresses() error {
	list, err := d.ns.handle.AddrList(nil, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for _, a := range list {
		if ownLinkLocal(a.IPNet) {
			continue
		}
		d.add("address %s %s peer %s scope %d label %s", d.names[a.LinkIndex], a.IPNet, a.Peer, a.Scope, a.Label)
	}
	return nil
}

func (d *dumper) routes() error {
	list, err := d.ns.handle.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range list {
		if r.Flags&unix.RTM_F_CLONED == 0 && !(r.Protocol == unix.RTPROT_KERNEL && ownLinkLocal(r.Dst)) {
			d.add("route %s table %d type %d dev %s via %v src %v metric %d protocol %d scope %d mtu %d onlink %t hops %s",
				dst(r.Dst, "default"), r.Table, r.Type, d.names[r.LinkIndex], r.Gw, r.Src, r.Priority, r.Protocol, r.Scope, r.MTU,
				r.Flags&int(netlink.FLAG_ONLINK) != 0, d.hops(r.MultiPath))
		}
	}
	return nil
}

// ownLinkLocal tells what the kernel gives each device for IPv6 by itself, some time after the device came up.
func ownLinkLocal(p *net.IPNet) bool {
	return p != nil && p.IP.To4() == nil && (p.IP.IsLinkLocalUnicast() || p.IP.IsMulticast())
}

func (d *dumper) hops(list []*netlink.NexthopInfo) string {
	var b strings.Builder
	for _, h := range list {
		fmt.Fprintf(&b, "(dev %s via %v weight %d)", d.names[h.LinkIndex], h.Gw, h.Hops+1)
	}
	return b.String()
}

func (d *dumper) rules() error {
	list, err := d.ns.handle.RuleList(unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	for _, r := range list {
		mask := uint32(0)
		if r.Mask != nil {
			mask = *r.Mask
		}
		d.add("rule %d family %d not %t from %s to %s iif %q oif %q mark %#x/%#x lookup %d suppress %d goto %d proto %d type %d protocol %d",
			r.Priority, r.Family, r.Invert, dst(r.Src, "all"), dst(r.Dst, "all"), r.IifName, r.OifName, r.Mark, mask, r.Table,
			r.SuppressPrefixlen, r.Goto, r.IPProto, r.Type, r.Protocol)
	}
	return nil
}

func dst(p *net.IPNet, none string) string {
	if p == nil {
		return none
	}
	return p.String()
}

// neighbours lists the permanent entries and the proxied addresses; those the kernel learned come and go.
func (d *dumper) neighbours() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := d.ns.handle.NeighList(0, family)
		if err != nil {
			return fmt.Errorf("neighbours: %w", err)
		}
		for _, e := range list {
			if e.State&netlink.NUD_PERMANENT != 0 {
				d.add("neighbour %s %s mac %s", d.names[e.LinkIndex], e.IP, e.HardwareAddr)
			}
		}
		proxies, err := d.ns.handle.NeighProxyList(0, family)
		if err != nil {
			return fmt.Errorf("proxied neighbours: %w", err)
		}
		for _, e := range proxies {
			d.add("proxy neighbour %s %s", d.names[e.LinkIndex], e.IP)
		}
	}
	return nil
}

// dumpedSysctls are the patterns of the settings a router changes, under /proc/sys/net.
var dumpedSysctls = []string{
	"ipv4/ip_forward", "ipv4/ip_local_port_range", "ipv4/ip_local_reserved_ports", "ipv4/tcp_ecn",
	"ipv4/conf/*/forwarding", "ipv4/conf/*/rp_filter", "ipv4/conf/*/arp_*", "ipv4/conf/*/accept_*",
	"ipv4/conf/*/send_redirects", "ipv4/conf/*/src_valid_mark", "ipv4/conf/*/proxy_arp", "ipv4/conf/*/route_localnet",
	"ipv6/conf/*/forwarding", "ipv6/conf/*/force_forwarding", "ipv6/conf/*/accept_ra", "ipv6/conf/*/disable_ipv6",
	"netfilter/nf_conntrack_max", "netfilter/nf_conntrack_acct",
}

func (d *dumper) sysctls() error {
	const root = "/proc/sys/net/"
	return d.ns.Do(func() error {
		for _, pattern := range dumpedSysctls {
			paths, err := filepath.Glob(root + pattern)
			if err != nil {
				return err
			}
			for _, path := range paths {
				value, err := os.ReadFile(path)
				if err != nil {
					return fmt.Errorf("sysctl: %w", err)
				}
				d.add("sysctl %s = %s", strings.TrimPrefix(path, root), strings.Join(strings.Fields(string(value)), " "))
			}
		}
		return nil
	})
}
