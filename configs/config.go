// Package configs is the user's file: its types, defaults, loading through viper, validation and the annotated reference.
// A Config holds only valid values; what the file may look like stays inside this package.
package configs

import (
	"net/netip"
	"time"
)

// Limits of a configuration.
const (
	MaxUplinks = 32      // uplinks in one configuration
	maxTAPName = 14      // the give-back device is named one character longer, and IFNAMSIZ leaves 15
	maxIfName  = 15      // IFNAMSIZ less the final zero
	maxTargets = 16      // probe targets
	maxSocket  = 107     // sun_path less the final zero
	maxFile    = 1 << 18 // bytes
)

// Config is one complete, valid configuration.
type Config struct {
	TAP      TAP
	Datapath Datapath
	Uplinks  []Uplink // empty means every uplink found
	NAT      NAT
	Policy   Policy
	Probe    Probe
	API      API

	Dashboard Dashboard

	Helpers Helpers
	Sets    []Set
	Groups  []Group
	Rules   []Rule // the first that matches counts
}

// TAP is the device that captures the default route.
type TAP struct {
	Name    string
	Address netip.Prefix // IPv4 address of the host on it, /30 or larger
	IPv6    bool         // IPv6 is captured too, while an uplink has it
}

// Gateway is the address on the TAP that the captured default route points to: the one after the host's own, or before it
// when the host has the last.
func (t TAP) Gateway() netip.Addr {
	if next := t.Address.Addr().Next(); next != lastAddr(t.Address) {
		return next
	}
	return t.Address.Addr().Prev()
}

// Datapath configures who carries the packets of known sessions.
type Datapath struct {
	Mode        DatapathMode
	LANShortcut LANShortcut
}

// DatapathMode is a way to choose the datapath.
type DatapathMode string

// The modes of a Datapath.
const (
	DatapathAuto      DatapathMode = "auto"      // the kernel where possible, else userspace
	DatapathKernel    DatapathMode = "kernel"    // the kernel, or the daemon does not start
	DatapathUserspace DatapathMode = "userspace" // the daemon, always
)

// DatapathModes are all modes, the default first.
func DatapathModes() []DatapathMode {
	return []DatapathMode{DatapathAuto, DatapathKernel, DatapathUserspace}
}

// LANShortcut says whether packets of known sessions may bypass the host's own forwarding between LAN and uplinks.
type LANShortcut string

// The values of a LANShortcut.
const (
	LANShortcutAuto LANShortcut = "auto" // where no firewall rule of the host could match them
	LANShortcutOff  LANShortcut = "off"  // never
)

// Uplink narrows or names one way to the Internet. Zero values mean "as found".
type Uplink struct {
	Name      string
	Interface string
	Gateway   netip.Addr
	Addresses []netip.Addr // outside addresses to translate to
	Static    []Static     // inside hosts with an outside address of their own
	NPTv6     []NPTv6      // prefixes of the inside with a prefix outside of their own
	DNS       []netip.Addr // the ISP's resolvers
	Capacity  Capacity
	Weight    int // share under the weighted scheduler, ≥ 1
	Tier      int // lower is preferred; 1 for a metered uplink unless given
	Metered   Metered
	OnRecover OnRecover // "" for that of its kind: drain where it is metered, else keep
}

// Static is a one-to-one mapping: the inside host has the outside address alone.
type Static struct{ Inside, Outside netip.Addr }

// NPTv6 is a pair of prefixes that are translated to each other, one to one (RFC 6296).
type NPTv6 struct{ Inside, Outside netip.Prefix }

// Capacity is what the ISP delivers, in bits per second; 0 is unknown.
type Capacity struct{ Up, Down uint64 }

// NAT configures address translation.
type NAT struct {
	MaxSessions, MaxSessionsIPv6 int // of each family

	Ports     []PortRange // outside ports in ascending order, empty means automatic
	ClampMSS  bool        // lower the maximum segment size of TCP to what the uplink takes
	AdoptTCP  bool        // open sessions in the middle of a TCP connection
	Timeouts  Timeouts
	Limits    Limits
	Exempt    []netip.Prefix // destinations to which hosts of the LAN are not translated (RFC 6888 REQ-6)
	Filtering Filtering
}

// Limits bound what one host of the LAN may take from the others (RFC 6888 REQ-4 and REQ-5).
type Limits struct {
	SessionsPerHost Limit
	NewPerSecond    Limit
	PortsPerHost    Limit // outside ports and ICMP identifiers of all protocols together
}

// Limit is a number from 1, or one of the two below.
type Limit int

// The words of a Limit.
const (
	LimitOff  Limit = 0  // none
	LimitAuto Limit = -1 // for SessionsPerHost: a quarter of the family's sessions, and no fewer than 4,096
)

// Filtering says which remotes without a session of their own reach a mapped endpoint, for each protocol (RFC 4787 §5).
type Filtering struct{ UDP, TCP Filter }

// Filter is a way to choose them.
type Filter string

// The values of a Filter.
const (
	FilterNone    Filter = "endpoint_independent"       // all
	FilterAddress Filter = "address_dependent"          // those at addresses that the inside endpoint has sent to
	FilterPort    Filter = "address_and_port_dependent" // none: only the endpoints that it has sent to
)

// PortRange is an inclusive range of ports.
type PortRange struct{ First, Last uint16 }

// Timeouts are the idle lifetimes of sessions.
type Timeouts struct {
	TCPEstablished time.Duration // RFC 5382 REQ-5: at least 2 h 4 min
	TCPTransitory  time.Duration // opening and closing; RFC 5382 REQ-5: at least 4 min
	TCPClosed      time.Duration // closed by both sides
	UDP            time.Duration // RFC 4787 REQ-5: at least 2 min
	ICMP           time.Duration // RFC 5508 REQ-2: at least 60 s
	Other          time.Duration // protocols without ports, as GRE and ESP
}

// Policy configures the choice of an uplink.
type Policy struct {
	Scheduler    string // one of schedulers
	Stickiness   Stickiness
	OnUplinkDown OnUplinkDown
}

// OnRecover says what becomes of the sessions of an uplink when a better one works again.
type OnRecover string

// The values of an OnRecover.
const (
	RecoverKeep  OnRecover = "keep"  // they stay until they end
	RecoverDrain OnRecover = "drain" // all but TCP leave when they pause
	RecoverMove  OnRecover = "move"  // all but TCP leave with their next packet, and TCP is reset towards the inside
)

// OnUplinkDown says what becomes of TCP connections whose uplink is down while another works.
type OnUplinkDown string

// The values of an OnUplinkDown.
const (
	DownReset OnUplinkDown = "reset"              // reset towards the inside; unanswered ones move
	DownMove  OnUplinkDown = "move-if-unanswered" // wait for the uplink; unanswered ones move
	DownKeep  OnUplinkDown = "keep"               // wait for the uplink
)

// schedulers are the names policy.scheduler accepts, the default first.
var schedulers = []string{
	"least-load", "weighted", "round-robin", "least-sessions", "lowest-latency", "overflow", "source-hash", "failover",
}

// Probe configures the active health checks.
type Probe struct {
	Interval time.Duration // between the starts of two rounds
	Timeout  time.Duration // of one probe
	Targets  []Target
	Quorum   int // targets that must answer for a round to succeed
	Degraded Degraded
	Fall     int // failed rounds of all targets in a row until an uplink is down
	Rise     int // good rounds in a row until it is up
}

// Degraded says from when an uplink is spared; 0 is never.
type Degraded struct {
	Loss    float64       // 0–1 of the probes
	Latency time.Duration // of their answers
	// Flapping is in which time the memory of its falls fades to half.
	Flapping time.Duration
}

// The methods of a Target.
const (
	ICMP = "icmp" // echo request
	TCP  = "tcp"  // connect
	DNS  = "dns"  // ask for the address of a name
	HTTP = "http" // fetch a page
	ARP  = "arp"  // of the uplink's gateway
	ND   = "nd"   // the same of IPv6
)

// Target is one thing to probe through every uplink.
type Target struct {
	Method string     // one of the above
	Addr   netip.Addr // invalid for ARP and ND, which ask for each uplink's gateway, and for HTTP where there is a Name
	Port   uint16     // of TCP, DNS and HTTP
	Name   string     // that DNS asks for, or host of HTTP
	Answer netip.Addr // that DNS must give; invalid for any of the Internet
	Path   string     // of HTTP
	Expect string     // of HTTP: the status, or what the page contains
}

// API configures the control socket.
type API struct {
	Socket  string         // absolute path
	Metrics netip.AddrPort // loopback address that also serves /metrics, invalid for none
}

// Dashboard configures the page that a browser shows.
type Dashboard struct {
	Listen    netip.AddrPort // invalid for none; other than loopback only with a TokenFile
	TokenFile string         // absolute path of the file with the secret that everything needs then, "" for none
}

// Default is the configuration without file and environment.
func Default() Config {
	return Config{
		TAP:      TAP{Name: "tapgw0", Address: netip.MustParsePrefix("198.18.73.1/30"), IPv6: true},
		Datapath: Datapath{Mode: DatapathAuto, LANShortcut: LANShortcutAuto},
		NAT: NAT{
			MaxSessions: 65536, MaxSessionsIPv6: 32768,
			ClampMSS: true,
			Timeouts: Timeouts{
				TCPEstablished: 2*time.Hour + 4*time.Minute,
				TCPTransitory:  4 * time.Minute,
				TCPClosed:      4 * time.Second,
				UDP:            5 * time.Minute,
				ICMP:           time.Minute,
				Other:          10 * time.Minute,
			},
			Limits:    Limits{SessionsPerHost: LimitAuto, NewPerSecond: 2000},
			Filtering: Filtering{UDP: FilterNone, TCP: FilterAddress},
		},
		Policy: Policy{Scheduler: schedulers[0], Stickiness: StickyAuto, OnUplinkDown: DownReset},
		Probe: Probe{
			Interval: 700 * time.Millisecond,
			Timeout:  time.Second,
			Targets: []Target{
				{Method: ICMP, Addr: netip.MustParseAddr("1.1.1.1")},
				{Method: ICMP, Addr: netip.MustParseAddr("8.8.8.8")},
				{Method: TCP, Addr: netip.MustParseAddr("9.9.9.9"), Port: 443},
				dnsTarget("1.1.1.1", "one.one.one.one"),
				dnsTarget("8.8.8.8", "dns.google"),
				{Method: ICMP, Addr: netip.MustParseAddr("2606:4700:4700::1111")},
				{Method: ICMP, Addr: netip.MustParseAddr("2001:4860:4860::8888")},
				{Method: TCP, Addr: netip.MustParseAddr("2620:fe::fe"), Port: 443},
				dnsTarget("2606:4700:4700::1111", "one.one.one.one"),
				dnsTarget("2001:4860:4860::8888", "dns.google"),
				{Method: HTTP, Name: "cp.cloudflare.com", Port: portHTTP, Path: "/generate_204", Expect: noContent},
			},
			Degraded: Degraded{Loss: 0.2, Latency: time.Second, Flapping: time.Minute},
			Quorum:   1, Fall: 4, Rise: 2,
		},
		API:       API{Socket: "/run/tapgw/tapgw.sock"},
		Dashboard: Dashboard{Listen: netip.MustParseAddrPort("127.0.0.1:7380")},

		Helpers: defaultHelpers(),
	}
}

// dnsTarget asks a public resolver for its own name, whose address never changes.
func dnsTarget(addr, name string) Target {
	a := netip.MustParseAddr(addr)
	return Target{Method: DNS, Addr: a, Port: portDNS, Name: name, Answer: a}
}

// lastAddr is the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}
