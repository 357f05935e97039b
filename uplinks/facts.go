package uplinks

import (
	"net/netip"
	"time"
)

// Facts is what the kernel says at one moment: everything discovery and policy routing are computed from. The Linux edge
// (rtnl) fills it anew after each netlink event.
type Facts struct {
	Links      []Link
	Addresses  []Address // this, and what follows up to Ruled, of IPv4
	Routes     []Route
	Neighbours []Neighbour
	Ruled      bool // somebody else has routing rules
	V6         FactsV6
	// Resolvers are those that DHCP clients and other managers of the host were told on a link, by its index, of both families.
	Resolvers map[int][]netip.Addr
}

// FactsV6 are those of IPv6.
type FactsV6 struct {
	Addresses  []Address
	Routes     []Route
	Neighbours []Neighbour
	Ruled      bool
}

// Of returns the facts of one family, in the place of those of IPv4.
func (f Facts) Of(family Family) Facts {
	if family == IPv6 {
		return Facts{Links: f.Links, Addresses: f.V6.Addresses, Routes: f.V6.Routes, Neighbours: f.V6.Neighbours, Ruled: f.V6.Ruled,
			Resolvers: f.Resolvers}
	}
	return Facts{Links: f.Links, Addresses: f.Addresses, Routes: f.Routes, Neighbours: f.Neighbours, Ruled: f.Ruled, Resolvers: f.Resolvers}
}

// Link is one network device.
type Link struct {
	Index        int
	Name         string
	MTU          int
	MAC          [6]byte // zero when the device has no Ethernet header
	Up           bool    // administratively up
	Carrier      bool    // IFF_LOWER_UP
	Loopback     bool
	PointToPoint bool
	HeaderLess   bool   // frames start with the IP header (TUN, PPP, WWAN)
	Speed        uint64 // bits per second as the driver says, 0 when it does not
	Kind         string // rtnl link kind ("veth", "tun", "bridge", ...), "" for plain hardware
}

// cut reports whether a device that exists passes nothing.
func (l *Link) cut() bool { return l.Index != 0 && !(l.Up && l.Carrier) }

// Address is one address of a device, of global scope (the edge leaves out the others), primary ones before secondary.
type Address struct {
	Index  int // of the link
	Prefix netip.Prefix
	Peer   netip.Addr // other end of a point-to-point link, or invalid
	// Passing is an IPv6 address that is not for new connections, or not for long: tentative, deprecated or temporary.
	Passing bool
	// Deprecated is a Passing one that still serves where there is no other (RFC 6724 §5 rule 3).
	Deprecated bool
}

// Route is one route. The same type describes routes found and routes wanted. One that is found but leads to no link
// (blackhole, unreachable, prohibit, throw, local) has index 0 and no gateway; none such is ever wanted.
type Route struct {
	Table    int
	Dst      netip.Prefix // 0.0.0.0/0 or ::/0 for a default route
	Gateway  netip.Addr   // invalid when on-link
	Source   netip.Addr   // preferred source, or invalid
	Index    int          // of the output link, or 0
	Metric   int
	Protocol int
	OnLink   bool // the gateway is reachable on the link although no prefix covers it
}

// Neighbour is one entry of the ARP table, or of that of neighbour discovery.
type Neighbour struct {
	Index int
	Addr  netip.Addr
	MAC   [6]byte
	State int // NUD_* bits
}

// Rule is one policy routing rule: traffic from Source looks up Table, or what is sent to a port of a Destination.
type Rule struct {
	Priority    int
	Source      netip.Prefix // 0.0.0.0/0 or ::/0 for everything of a family
	Destination netip.Addr   // invalid for all
	Port        uint16       // 0 for all
	Table       int
	// SuppressDefault makes the rule skip default routes of its table (suppress_prefixlength 0).
	SuppressDefault bool
}

// Counters are the interface totals that load is measured from.
type Counters struct {
	RxBytes, TxBytes uint64
}

// Health is what a prober says of one uplink.
type Health struct {
	Known  bool // at least one round has finished
	Usable bool
	// Degraded: usable, but a better one is preferred.
	Degraded bool
	// Portal is the page at which somebody must sign in before the uplink can be used, "" for none.
	Portal string
	RTT    time.Duration
	Loss   float64 // 0–1
	Reason string  // one clause for people, empty when all is well
}
