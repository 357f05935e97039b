package daemon

import (
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// backend is the daemon as the API sees it.
type backend struct{ *Daemon }

// Status answers GET /v1/status.
func (b backend) Status() api.Status {
	s := api.Status{
		Version: b.opts.Version, Datapath: b.datapath(), UptimeS: int64(time.Since(b.started).Seconds()),
		Sessions: b.tables.sessions(), Uplinks: []api.Uplink{}, DatapathReason: b.noFast.text,
		Pins: len(b.pinnedHosts()),
	}
	s.LANShortcut, s.LANShortcutReason = b.lan.status()
	if b.tables[uplinks.IPv6] != nil {
		s.LANShortcutIPv6, s.LANShortcutIPv6Reason = b.lan.statusOf(uplinks.IPv6)
	}
	s.DatapathBypasses = b.bypass.status()
	if until := b.paused.Load(); until != nil {
		s.PausedUntil = *until
	}
	for _, u := range b.snapshot.Load().Uplinks {
		s.Uplinks = append(s.Uplinks, b.uplink(u))
	}
	return s
}

func (b backend) datapath() string {
	if b.fast == nil {
		return api.DatapathUserspace
	}
	return api.DatapathKernel
}

func (b backend) uplink(u *uplinks.Uplink) api.Uplink {
	rx, tx := b.meters[u.ID].Rates()
	return api.Uplink{
		IPv6: b.ipv6(u), Suspect: b.isSuspect(u, uplinks.IPv4), Metered: u.Metered, Usage: b.usageOf(u),
		Preferred: u.Preferred, MeteredByCommand: u.MeteredByCommand,
		Name: u.Name, Interface: u.Interface, State: string(u.State), Addresses: u.Addresses, Gateway: u.Gateway,
		RxBps: rx, TxBps: tx, Load: min(1, b.meters[u.ID].Load()), Sessions: b.tables.on(u.ID), StandsIn: b.standsIn(u),
		Capacity: capacity(b.meters[u.ID].Estimate()),
		RTTMs:    milliseconds(u.Health.RTT), Loss: u.Health.Loss, Reason: u.Reason, Since: u.Since, PortalURL: u.Health.Portal,
	}
}

func capacity(e uplinks.Estimate) api.Capacity {
	return api.Capacity{DownBps: float64(e.Down), UpBps: float64(e.Up), Confidence: e.Confidence}
}

// isSuspect is false of a side that takes no new sessions anyway.
func (b backend) isSuspect(u *uplinks.Uplink, f uplinks.Family) bool {
	g := b.gateway.For(f)
	return g != nil && u.On(f).State.Usable() && g.IsSuspect(u.ID)
}

func (b backend) ipv6(u *uplinks.Uplink) api.IPv6 {
	s := &u.V6
	return api.IPv6{
		Suspect: b.isSuspect(u, uplinks.IPv6),
		State:   string(s.State), Addresses: s.Addresses, Gateway: s.Gateway, RTTMs: milliseconds(s.Health.RTT), Loss: s.Health.Loss,
		Reason: s.Reason, Since: s.Since, PortalURL: s.Health.Portal,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Sessions answers GET /v1/sessions.
func (b backend) Sessions(yield func(api.Session) bool) {
	b.eachSession(func(_ uplinks.Family, _ nat.Info, s api.Session) bool { return yield(s) })
}

// eachSession calls yield for all until it returns false.
func (b backend) eachSession(yield func(uplinks.Family, nat.Info, api.Session) bool) {
	names := make(map[uint8]string)
	for _, u := range b.snapshot.Load().Uplinks {
		names[u.ID] = u.Name
	}
	more := true
	b.tables.each(func(f uplinks.Family, table *nat.Table) {
		table.Sessions(func(i nat.Info) bool { more = more && yield(f, i, b.session(i, names[i.Uplink])); return more })
	})
}

// protocols are the names of IP protocols in the API; others go by their number.
var protocols = map[uint8]string{
	packet.ProtoTCP: "tcp", packet.ProtoUDP: "udp", packet.ProtoICMP: "icmp", packet.ProtoICMPv6: "icmpv6",
	packet.ProtoDCCP: "dccp", packet.ProtoUDPLite: "udplite",
	unix.IPPROTO_GRE: "gre", unix.IPPROTO_ESP: "esp", unix.IPPROTO_AH: "ah", unix.IPPROTO_SCTP: "sctp",
}

func protocolName(proto uint8) string {
	if name, ok := protocols[proto]; ok {
		return name
	}
	return strconv.Itoa(int(proto))
}

func (b backend) session(i nat.Info, uplink string) api.Session {
	return api.Session{
		Proto:   protocolName(i.Proto),
		Inside:  netip.AddrPortFrom(i.Inside.Netip(), i.InsidePort),
		Remote:  netip.AddrPortFrom(i.Remote.Netip(), i.RemotePort),
		Outside: netip.AddrPortFrom(i.Outside.Netip(), i.OutsidePort),
		Uplink:  uplink, State: i.State.String(),
		AgeS: seconds(b.pumps.clock.since(i.Created)), IdleS: seconds(b.pumps.clock.since(i.Seen)),
		BytesOut: i.BytesOut, BytesIn: i.BytesIn, Rule: b.numbers.name(i.Rule), Reason: policy.Reason(i.Reason).String(),
		Domain: b.domainOf(i), Host: b.lanNames.Name(i.Inside.Netip(), time.Now()),
	}
}

// seconds never is negative: a packet may be counted after the clock was read.
func seconds(d time.Duration) int64 { return max(0, int64(d.Seconds())) }

// Config answers GET /v1/config.
func (b backend) Config() ([]byte, error) { return configs.Marshal(*b.cfg()), nil }

// Subscribe answers GET /v1/events.
func (b backend) Subscribe() (<-chan api.Event, func()) { return b.journal.Subscribe() }

// Missed is for those who follow it again.
func (b backend) Missed(after uint64) ([]api.Event, uint64) { return b.journal.Missed(after) }

// SetUplink switches an uplink on or off until the daemon ends.
func (b backend) SetUplink(name string, enabled bool) error {
	return b.ask(func() error { return b.setUplink(name, enabled) })
}

// SetUsage corrects what an uplink has used in the present billing period.
func (b backend) SetUsage(name string, bytes uint64) error {
	return b.ask(func() error { return b.setUsage(name, bytes) })
}

// Reload reads the configuration anew.
func (b backend) Reload() error {
	return b.ask(b.reload)
}
