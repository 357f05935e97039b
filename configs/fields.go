package configs

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one key of the file inside a T. Everything else (known keys, defaults, environment names, printing, what a
// reload may change) follows from the two tables below.
type field[T any] struct {
	key     string
	list    bool
	phrases bool // … of values with blanks in them
	restart bool // a change needs a restart
	short   bool // the block that holds the key may be a plain value instead, which is this key's
	get     func(*T) []string
	set     func(dst *T, texts []string, report func(index int, err error))
}

// scalar is a key with one value, which must be given when it is named.
func scalar[T, V any](key string, at func(*T) *V, parse func(string) (V, error), format func(V) string) field[T] {
	return field[T]{
		key: key,
		get: func(c *T) []string { return []string{format(*at(c))} },
		set: func(c *T, texts []string, report func(int, error)) {
			if texts[0] == "" {
				report(-1, faultf("write one or remove the line", "has no value"))
			} else if v, err := parse(texts[0]); err != nil {
				report(-1, err)
			} else {
				*at(c) = v
			}
		},
	}
}

// optional is a scalar whose empty text means the zero value.
func optional[T any, V comparable](key string, at func(*T) *V, parse func(string) (V, error), format func(V) string) field[T] {
	f := scalar(key, at, parse, format)
	var zero V
	f.get = func(c *T) []string {
		if *at(c) == zero {
			return []string{""}
		}
		return []string{format(*at(c))}
	}
	set := f.set
	f.set = func(c *T, texts []string, report func(int, error)) {
		if texts[0] != "" {
			set(c, texts, report)
		}
	}
	return f
}

// list is a key with several values; the text empty stands for none of them.
func list[T, V any](key, empty string, at func(*T) *[]V, parse func(string) (V, error), format func(V) string) field[T] {
	return field[T]{
		key: key, list: true,
		get: func(c *T) (texts []string) {
			for _, v := range *at(c) {
				texts = append(texts, format(v))
			}
			if len(texts) == 0 && empty != "" {
				return []string{empty}
			}
			return texts
		},
		set: func(c *T, texts []string, report func(int, error)) {
			if len(texts) == 1 && texts[0] == empty {
				return
			}
			for i, text := range texts {
				v, err := parse(text)
				if err != nil {
					report(i, err)
					continue
				}
				*at(c) = append(*at(c), v)
			}
		},
	}
}

func restart[T any](f field[T]) field[T] {
	f.restart = true
	return f
}

// short is for a key of an uplink that says all there is to say of its block.
func short[T any](f field[T]) field[T] {
	f.short = true
	return f
}

const month = 30 * 24 * time.Hour

// configFields are the keys of the file but the uplinks, in the order they are shown.
var configFields = slices.Concat([]field[Config]{
	restart(scalar("tap.name", func(c *Config) *string { return &c.TAP.Name }, parseTAPName, formatText)),
	restart(scalar("tap.address", func(c *Config) *netip.Prefix { return &c.TAP.Address }, parseTAPAddress, netip.Prefix.String)),
	restart(scalar("tap.ipv6", func(c *Config) *bool { return &c.TAP.IPv6 }, parseBool, strconv.FormatBool)),
	restart(scalar("datapath.mode", func(c *Config) *DatapathMode { return &c.Datapath.Mode }, parseDatapathMode, formatText)),
	restart(scalar("datapath.lan_shortcut", func(c *Config) *LANShortcut { return &c.Datapath.LANShortcut }, parseLANShortcut, formatText)),
	restart(scalar("nat.max_sessions", func(c *Config) *int { return &c.NAT.MaxSessions }, within(64, 4_000_000), strconv.Itoa)),
	restart(scalar("nat.max_sessions_ipv6", func(c *Config) *int { return &c.NAT.MaxSessionsIPv6 }, within(64, 4_000_000), strconv.Itoa)),
	restart(list("nat.ports", "auto", func(c *Config) *[]PortRange { return &c.NAT.Ports }, parsePorts, formatPorts)),
	scalar("nat.clamp_mss", func(c *Config) *bool { return &c.NAT.ClampMSS }, parseBool, strconv.FormatBool),
	scalar("nat.adopt_tcp", func(c *Config) *bool { return &c.NAT.AdoptTCP }, parseBool, strconv.FormatBool),
	duration("nat.timeouts.tcp_established", func(c *Config) *time.Duration { return &c.NAT.Timeouts.TCPEstablished }, time.Second, month),
	duration("nat.timeouts.tcp_transitory", func(c *Config) *time.Duration { return &c.NAT.Timeouts.TCPTransitory }, time.Second, month),
	duration("nat.timeouts.tcp_closed", func(c *Config) *time.Duration { return &c.NAT.Timeouts.TCPClosed }, time.Second, month),
	duration("nat.timeouts.udp", func(c *Config) *time.Duration { return &c.NAT.Timeouts.UDP }, time.Second, month),
	duration("nat.timeouts.icmp", func(c *Config) *time.Duration { return &c.NAT.Timeouts.ICMP }, time.Second, month),
	duration("nat.timeouts.other", func(c *Config) *time.Duration { return &c.NAT.Timeouts.Other }, time.Second, month),
	scalar("nat.limits.sessions_per_host", func(c *Config) *Limit { return &c.NAT.Limits.SessionsPerHost }, parseLimitOrAuto, formatLimit),
	scalar("nat.limits.new_per_second", func(c *Config) *Limit { return &c.NAT.Limits.NewPerSecond }, parseLimit, formatLimit),
	scalar("nat.limits.ports_per_host", func(c *Config) *Limit { return &c.NAT.Limits.PortsPerHost }, parseLimit, formatLimit),
	scalar("nat.filtering.udp", func(c *Config) *Filter { return &c.NAT.Filtering.UDP }, parseFilter, formatText),
	scalar("nat.filtering.tcp", func(c *Config) *Filter { return &c.NAT.Filtering.TCP }, parseFilter, formatText),
	list("nat.exempt", "", func(c *Config) *[]netip.Prefix { return &c.NAT.Exempt }, parseExempt, netip.Prefix.String),
	scalar("policy.scheduler", func(c *Config) *string { return &c.Policy.Scheduler }, parseScheduler, formatText),
	scalar("policy.on_uplink_down", func(c *Config) *OnUplinkDown { return &c.Policy.OnUplinkDown }, parseOnUplinkDown, formatText),
	scalar("policy.stickiness", func(c *Config) *Stickiness { return &c.Policy.Stickiness }, parseStickiness, formatText),
	duration("probe.interval", func(c *Config) *time.Duration { return &c.Probe.Interval }, 50*time.Millisecond, time.Hour),
	duration("probe.timeout", func(c *Config) *time.Duration { return &c.Probe.Timeout }, 10*time.Millisecond, time.Minute),
	list("probe.targets", "", func(c *Config) *[]Target { return &c.Probe.Targets }, parseTarget, Target.String),
	scalar("probe.degraded.loss", func(c *Config) *float64 { return &c.Probe.Degraded.Loss }, parsePercent, formatPercent),
	scalar("probe.degraded.latency", func(c *Config) *time.Duration { return &c.Probe.Degraded.Latency },
		lastingOrOff(10*time.Millisecond, time.Minute), formatOrOff),
	scalar("probe.degraded.flapping", func(c *Config) *time.Duration { return &c.Probe.Degraded.Flapping },
		lastingOrOff(100*time.Millisecond, time.Hour), formatOrOff),
	scalar("probe.quorum", func(c *Config) *int { return &c.Probe.Quorum }, within(1, maxTargets), strconv.Itoa),
	scalar("probe.fall", func(c *Config) *int { return &c.Probe.Fall }, within(1, 100), strconv.Itoa),
	scalar("probe.rise", func(c *Config) *int { return &c.Probe.Rise }, within(1, 100), strconv.Itoa),
	restart(scalar("api.socket", func(c *Config) *string { return &c.API.Socket }, parseSocket, formatText)),
	restart(optional("api.metrics", func(c *Config) *netip.AddrPort { return &c.API.Metrics }, parseMetrics, formatAddrPort)),
}, dashboardFields, helperFields)

func duration(key string, at func(*Config) *time.Duration, low, high time.Duration) field[Config] {
	return scalar(key, at, lasting(low, high), formatDuration)
}

// uplinksKey is the one key that holds a list of blocks.
const uplinksKey = "uplinks"

// uplinkFields are the keys of one element of uplinks.
var uplinkFields = slices.Concat([]field[Uplink]{
	optional("name", func(u *Uplink) *string { return &u.Name }, parseName, formatText),
	optional("interface", func(u *Uplink) *string { return &u.Interface }, parseInterface, formatText),
	optional("gateway", func(u *Uplink) *netip.Addr { return &u.Gateway }, parseAddr, formatAddr),
	list("addresses", "", func(u *Uplink) *[]netip.Addr { return &u.Addresses }, parseAddr, formatAddr),
	list("static", "", func(u *Uplink) *[]Static { return &u.Static }, parseStatic, Static.String),
	list("nptv6", "", func(u *Uplink) *[]NPTv6 { return &u.NPTv6 }, parseNPTv6, NPTv6.String),
	list("dns", "", func(u *Uplink) *[]netip.Addr { return &u.DNS }, parseResolver, formatAddr),
	optional("capacity.up", func(u *Uplink) *uint64 { return &u.Capacity.Up }, parseRate, formatRate),
	optional("capacity.down", func(u *Uplink) *uint64 { return &u.Capacity.Down }, parseRate, formatRate),
	scalar("weight", func(u *Uplink) *int { return &u.Weight }, within(1, 1000), strconv.Itoa),
	scalar("tier", func(u *Uplink) *int { return &u.Tier }, within(0, 100), strconv.Itoa),
	optional("on_recover", func(u *Uplink) *OnRecover { return &u.OnRecover }, parseOnRecover, formatText),
}, meteredFields)

// defaultUplink is what an element of uplinks starts from.
var defaultUplink = Uplink{Weight: 1}

// envPrefix begins the environment variables that override keys.
const envPrefix = "TAPGW_"

// envName is the variable that overrides a key, as TAPGW_NAT_MAX_SESSIONS.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// NeedsRestart lists the keys that differ and cannot be changed by a reload.
func NeedsRestart(old, next Config) (keys []string) {
	for _, f := range configFields {
		if f.restart && strings.Join(f.get(&old), ",") != strings.Join(f.get(&next), ",") {
			keys = append(keys, f.key)
		}
	}
	return keys
}
