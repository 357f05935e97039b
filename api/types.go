// Package api is the local control interface of a running tapgw: the JSON types on the wire and a client for them. It
// speaks HTTP/1.1 over a unix socket, and needs only the standard library, so that any Go program may use it.
package api

import (
	"encoding/json"
	"math"
	"net/netip"
	"time"
)

// Status is the answer to "is everything all right": GET /v1/status and `tapgw status --json`.
type Status struct {
	Version               string   `json:"version"`
	Datapath              string   `json:"datapath"`                 // DatapathUserspace or DatapathKernel
	DatapathReason        string   `json:"datapath_reason"`          // one clause: why it is not DatapathKernel, "" when it is
	DatapathBypasses      []string `json:"datapath_bypasses"`        // what others have in the kernel that known sessions pass by; never null
	LANShortcut           bool     `json:"lan_shortcut"`             // known sessions of IPv4 bypass the host's own forwarding from and to the LAN
	LANShortcutReason     string   `json:"lan_shortcut_reason"`      // one clause: why they do not, "" when they do
	LANShortcutIPv6       bool     `json:"lan_shortcut_ipv6"`        // those of IPv6 do
	LANShortcutIPv6Reason string   `json:"lan_shortcut_ipv6_reason"` // one clause: why not, "" when they do, and where IPv6 is not captured
	UptimeS               int64    `json:"uptime_s"`                 // seconds since the daemon started
	Sessions              int      `json:"sessions"`                 // translated sessions now
	Uplinks               []Uplink `json:"uplinks"`                  // never null
	Pins                  int      `json:"pins,omitempty"`           // hosts and sites that are pinned to an uplink
	// PausedUntil is when traffic is captured again, which until then leaves by the host's own routes; absent unless paused.
	PausedUntil time.Time `json:"paused_until,omitzero"`
}

// The datapaths that Status.Datapath names.
const (
	DatapathUserspace = "userspace"
	DatapathKernel    = "kernel"
)

// Uplink is one way to the Internet, as people and scripts see it.
type Uplink struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	State     string       `json:"state"`     // one of the State constants
	Addresses []netip.Addr `json:"addresses"` // never null
	Gateway   netip.Addr   `json:"gateway"`   // "" on a point-to-point link
	RxBps     float64      `json:"rx_bps"`    // bits per second, received
	TxBps     float64      `json:"tx_bps"`    // bits per second, sent
	Load      float64      `json:"load"`      // 0–1 of capacity
	Capacity  Capacity     `json:"capacity"`
	Sessions  int          `json:"sessions"`
	StandsIn  string       `json:"stands_in,omitempty"` // the uplink of a lower tier that works again, while sessions are still here
	RTTMs     float64      `json:"rtt_ms"`              // milliseconds, 0 while not measured
	Loss      float64      `json:"loss"`                // 0–1 of the probes
	Suspect   bool         `json:"suspect,omitempty"`   // new sessions avoid it at the moment, as remotes do not answer by it
	Reason    string       `json:"reason"`              // why State is not StateUp, else ""
	Since     time.Time    `json:"since"`               // of State
	PortalURL string       `json:"portal_url"`          // where somebody must sign in, "" for nowhere
	IPv6      IPv6         `json:"ipv6"`                // what the uplink is to IPv6, as the above to IPv4
	Metered   bool         `json:"metered"`
	Usage     Usage        `json:"usage"`

	Preferred        bool `json:"preferred,omitempty"`          // by command: new sessions use it while it is up
	MeteredByCommand bool `json:"metered_by_command,omitempty"` // Metered is not what the configuration says
}

// Capacity is what an uplink can carry, as configured, assumed or learned.
type Capacity struct {
	DownBps    float64 `json:"down_bps"`
	UpBps      float64 `json:"up_bps"`
	Confidence float64 `json:"confidence"` // 1 when the uplink was full just now, falling with the hours; 0 while only assumed
}

// IPv6 is one way to the Internet of IPv6: fields as in Uplink.
type IPv6 struct {
	State     string       `json:"state"`     // "" for an uplink that has never had an IPv6 address
	Addresses []netip.Addr `json:"addresses"` // never null
	Gateway   netip.Addr   `json:"gateway"`
	RTTMs     float64      `json:"rtt_ms"`
	Loss      float64      `json:"loss"`
	Suspect   bool         `json:"suspect,omitempty"`
	Reason    string       `json:"reason"`
	Since     time.Time    `json:"since"`
	PortalURL string       `json:"portal_url"`
}

// Usable counts the uplinks that take new sessions.
func (s *Status) Usable() (n int) {
	for i := range s.Uplinks {
		if s.Uplinks[i].Usable() {
			n++
		}
	}
	return n
}

// Verdict is online, partial or offline.
func (s *Status) Verdict() string {
	switch n := s.Usable(); {
	case n == 0:
		return "offline"
	case n < len(s.Uplinks):
		return "partial"
	}
	return "online"
}

// OneUplink is what people are told who have one uplink.
const OneUplink = "There is one uplink: with a second (a phone, Wi-Fi, another provider) new sessions share both, and go on when one fails."

// The states of an uplink.
const (
	StateProbing  = "probing"
	StateUp       = "up"
	StateDegraded = "degraded"
	StatePortal   = "portal"
	StateDown     = "down"
	StateDisabled = "disabled"
)

// Usable reports whether the uplink takes new sessions of either family.
func (u *Uplink) Usable() bool { return usable(u.State) || u.IPv6Only() }

// IPv6Only reports whether it takes no others than those of IPv6.
func (u *Uplink) IPv6Only() bool { return !usable(u.State) && usable(u.IPv6.State) }

func usable(state string) bool { return state == StateUp || state == StateDegraded }

// Session is one translated session: GET /v1/sessions returns a list of them.
type Session struct {
	Proto    string         `json:"proto"`   // tcp, udp, icmp, icmpv6, gre, esp, ah, sctp, dccp, udplite or a number
	Inside   netip.AddrPort `json:"inside"`  // who started it; for icmp and icmpv6 the port is the echo identifier, for protocols without ports 0
	Remote   netip.AddrPort `json:"remote"`  // whom it talks to
	Outside  netip.AddrPort `json:"outside"` // what the remote sees
	Uplink   string         `json:"uplink"`  // name
	State    string         `json:"state"`
	AgeS     int64          `json:"age_s"`  // seconds since the first packet
	IdleS    int64          `json:"idle_s"` // seconds since the last packet
	BytesOut uint64         `json:"bytes_out"`
	BytesIn  uint64         `json:"bytes_in"`
	Rule     string         `json:"rule"`   // name of the one that chose its group of uplinks, "" for none
	Reason   string         `json:"reason"` // why it uses Uplink, a clause

	Host   string `json:"host,omitempty"`   // name of Inside, where /etc/hosts or the leases of this host have one
	Domain string `json:"domain,omitempty"` // name that Remote was asked for by, where names are learned

	// Only in sorted lists.
	OutBps  float64 `json:"out_bps,omitempty"` // bits per second
	InBps   float64 `json:"in_bps,omitempty"`
	Program string  `json:"program,omitempty"` // path of the one on this host that has it
}

// Event is one thing that happened, a line of GET /v1/events.
type Event struct {
	ID      uint64    `json:"id"` // grows from event to event, also over restarts; 0 in a snapshot
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`    // one of the Event constants; readers must accept others
	Uplink  string    `json:"uplink"`  // name, or "" when it concerns no single uplink
	Family  string    `json:"family"`  // FamilyIPv4 or FamilyIPv6, or "" when it concerns neither alone
	From    string    `json:"from"`    // state before, or ""
	To      string    `json:"to"`      // state now, or ""
	Message string    `json:"message"` // one clause for people
}

// The families that Event.Family names.
const (
	FamilyIPv4 = "ipv4"
	FamilyIPv6 = "ipv6"
)

// The kinds of events.
const (
	EventSnapshot  = "snapshot"          // the present state of one uplink; a stream begins with these
	EventState     = "state"             // an uplink changed its state
	EventAppeared  = "appeared"          // an uplink became known
	EventVanished  = "vanished"          // its interface is gone, or it left the configuration
	EventAddresses = "addresses-changed" // Message lists the new ones
	EventGateway   = "gateway-changed"   // Message names the new one
	EventSuspicion = "suspicion"         // remotes do not answer by an uplink; Message says what was seen
	EventReload    = "reload"            // a new configuration is in force
	EventUsage     = "data-cap"          // an uplink has used the share of its data cap that is to be warned of
	EventPrefer    = "preferred"         // new sessions prefer an uplink; none without Uplink
	EventMetered   = "metered"           // a command says whether an uplink is metered; Message says how
	EventPause     = "paused"            // traffic leaves by the host's own routes for a while
	EventResume    = "resumed"           // it is captured again
	EventPin       = "pinned"            // a program, or an inside host, uses one uplink; Message names it
	EventUnpin     = "unpinned"          // a host does no longer
	EventRepair    = "repair"            // something of ours in the kernel was changed by others and put back
)

// Version is the answer to GET /v1/version.
type Version struct {
	Version string `json:"version"` // of the running daemon
}

// Access is what the caller may do: GET /v1/access.
type Access struct {
	Change bool   `json:"change"` // everything; else only look
	Hint   string `json:"hint"`   // how to be allowed to, "" for who is
}

// MarshalJSON keeps lists from becoming null.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	if s.Uplinks == nil {
		s.Uplinks = []Uplink{}
	}
	if s.DatapathBypasses == nil {
		s.DatapathBypasses = []string{}
	}
	return json.Marshal(plain(s))
}

// MarshalJSON keeps lists from becoming null, and numbers that JSON cannot express from spoiling the whole answer.
func (u Uplink) MarshalJSON() ([]byte, error) {
	type plain Uplink
	if u.Addresses == nil {
		u.Addresses = []netip.Addr{}
	}
	finite(&u.RxBps, &u.TxBps, &u.Load, &u.Capacity.DownBps, &u.Capacity.UpBps, &u.Capacity.Confidence, &u.RTTMs, &u.Loss)
	return json.Marshal(plain(u))
}

// MarshalJSON does the same as that of Uplink.
func (v IPv6) MarshalJSON() ([]byte, error) {
	type plain IPv6
	if v.Addresses == nil {
		v.Addresses = []netip.Addr{}
	}
	finite(&v.RTTMs, &v.Loss)
	return json.Marshal(plain(v))
}

// finite makes 0 of numbers that JSON cannot express.
func finite(list ...*float64) {
	for _, f := range list {
		if math.IsNaN(*f) || math.IsInf(*f, 0) {
			*f = 0
		}
	}
}
