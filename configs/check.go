package configs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// check compares values with each other; each alone was checked when it was parsed.
func (l *loader) check() {
	l.checkTAP()
	l.checkUplinks()
	l.checkPorts()
	l.checkTimeouts()
	l.checkTargets()
	l.checkProbe()
	l.checkDashboard()
	l.checkHelpers()
	l.checkSets()
	l.checkGroups()
	l.checkRules()
}

// privateNets are the prefixes a TAP subnet may hide without cutting off a part of the Internet (RFC 1918, 2544, 3927, 6598).
var privateNets = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"),
}

func (l *loader) checkTAP() {
	const key = "tap.address"
	inside := func(p netip.Prefix) bool {
		return p.Bits() <= l.config.TAP.Address.Bits() && p.Contains(l.config.TAP.Address.Addr())
	}
	if l.sound(key) && !slices.ContainsFunc(privateNets, inside) {
		l.warn(key, "use a private subnet", "%s is public, and its hosts become unreachable", l.config.TAP.Address.Masked())
	}
}

// checkUplinks makes names and interfaces unique across both, as commands accept either.
func (l *loader) checkUplinks() {
	owners := map[string]int{}
	tap := l.config.TAP.Name
	for i, u := range l.config.Uplinks {
		path := index(uplinksKey, i)
		l.checkUplink(u, path)
		if u.Interface != "" && l.sound("tap.name") && (u.Interface == tap || u.Interface == tap+"u") {
			l.refuse(path+".interface", "name the device that leads to the ISP", "%s is the gateway's own device", u.Interface)
		}
		l.claim(owners, u.Name, path+".name", i)
		if u.Interface != u.Name {
			l.claim(owners, u.Interface, path+".interface", i)
		}
	}
	l.checkOutsides()
}

// claim notes that the name belongs to uplink i, once.
func (l *loader) claim(owners map[string]int, name, path string, i int) {
	if name == "" {
		return
	}
	if first, taken := owners[name]; taken {
		l.refuse(path, "give each uplink a name and an interface of its own", "%q already belongs to uplinks[%d]", name, first)
		return
	}
	owners[name] = i
}

func (l *loader) checkUplink(u Uplink, path string) {
	if u.Interface == "" && l.sound(path, path+".interface", path+".name") {
		l.refuse(path, "add for example interface: eth0", "has no interface")
	}
	if u.Interface != "" && l.sound(path+".interface") {
		if _, err := parseInterface(u.Interface); err != nil { // it may stand in for the name
			l.refuse(path, "add interface: with a name that `ip link` shows", "%q is no interface", u.Interface)
		}
	}
	if u.Name != "" && l.sound(path+".name") {
		if _, err := parseName(u.Name); err != nil { // it may stand in for the interface
			l.refuse(path, "add name: with up to 32 letters, digits, dots, dashes and underscores", "%q is no name to type", u.Name)
		}
	}
	l.checkStatic(u, path)
	l.checkNPTv6(u, path)
	l.checkMetered(u, path)
	l.checkDNS(u, path)
	if !l.sound(path + ".addresses") {
		return
	}
	for i, a := range u.Addresses {
		where := index(path+".addresses", i)
		if l.sound("tap.address") && l.config.TAP.Address.Contains(a) {
			l.refuse(where, "choose another tap.address", "%s lies in the gateway's own subnet", a)
		}
		if slices.Contains(u.Addresses[:i], a) {
			l.refuse(where, "keep one", "%s is listed twice", a)
		}
		if a == u.Gateway {
			l.refuse(where, "write the addresses of this host", "%s is also the gateway", a)
		}
	}
}

// fewPorts is about what one busy client needs.
const fewPorts = 1024

// checkPorts sorts the ranges and refuses overlaps, which are a mistake in one of the two.
func (l *loader) checkPorts() {
	const key = "nat.ports"
	if !l.sound(key) || len(l.config.NAT.Ports) == 0 {
		return
	}
	ports := l.config.NAT.Ports
	slices.SortStableFunc(ports, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	total := 0
	for i, r := range ports {
		total += int(r.Last) - int(r.First) + 1
		if i > 0 && r.First <= ports[i-1].Last {
			l.refuse(key, "join them", "%s and %s overlap", formatPorts(ports[i-1]), formatPorts(r))
			return
		}
	}
	if total < fewPorts {
		l.warn(key, "use at least 1024, or auto", "%d ports last for that many UDP endpoints only", total)
	}
}

// checkTimeouts warns of lifetimes that the RFCs call too short: silent connections break.
func (l *loader) checkTimeouts() {
	t := l.config.NAT.Timeouts
	for _, c := range []struct {
		key    string
		value  time.Duration
		least  time.Duration
		source string
	}{
		{"tcp_established", t.TCPEstablished, 2*time.Hour + 4*time.Minute, "RFC 5382 REQ-5"},
		{"tcp_transitory", t.TCPTransitory, 4 * time.Minute, "RFC 5382 REQ-5"},
		{"udp", t.UDP, 2 * time.Minute, "RFC 4787 REQ-5"},
		{"icmp", t.ICMP, time.Minute, "RFC 5508 REQ-2"},
	} {
		if key := "nat.timeouts." + c.key; l.sound(key) && c.value < c.least {
			l.warn(key, "use "+formatDuration(c.least)+" or more", "%s is shorter than %s allows", formatDuration(c.value), c.source)
		}
	}
}

func (l *loader) checkTargets() {
	const key = "probe.targets"
	if !l.sound(key) {
		return
	}
	targets := l.config.Probe.Targets
	if len(targets) == 0 {
		l.warn(key, "name at least one target", "without targets only link, address and route tell a dead uplink")
	}
	if len(targets) > maxTargets {
		l.refuse(key, fmt.Sprintf("use at most %d", maxTargets), "%d targets are too many", len(targets))
	}
	for i, t := range targets {
		if slices.Contains(targets[:i], t) {
			l.refuse(index(key, i), "keep one", "%s is listed twice, and the quorum would count it twice", t)
		}
	}
}

// Slowest detection of a dead uplink that is not warned about, how many rounds may be open at once, and how fast they follow
// each other when an answer is late.
const (
	slowDetection = 3 * time.Second
	maxOverlap    = 4
	haste         = 100 * time.Millisecond // between rounds when an answer is late
)

// of are the targets that are asked over a family.
func (p *Probe) of(ipv6 bool) (list []Target) {
	for _, t := range p.Targets {
		if t.serves(ipv6) {
			list = append(list, t)
		}
	}
	return list
}

// most is how many targets the family has that has more.
func (p *Probe) most() int { return max(len(p.of(false)), len(p.of(true))) }

// checkGateways warns of a family that is judged by its gateways alone.
func (l *loader) checkGateways() {
	for _, ipv6 := range []bool{false, true} {
		list := l.config.Probe.of(ipv6)
		far := func(t Target) bool { return t.Method != ARP && t.Method != ND }
		if len(list) > 0 && !slices.ContainsFunc(list, far) {
			l.warn("probe.targets", "add one as icmp://1.1.1.1 or icmp://2620:fe::fe", "%s alone may answer while nothing behind the gateway does", list[0])
		}
	}
}

func (l *loader) checkProbe() {
	p := l.config.Probe
	if l.sound("probe.targets") {
		l.checkGateways()
	}
	if n := p.most(); l.sound("probe.quorum", "probe.targets") && n > 0 && p.Quorum > n {
		l.refuse("probe.quorum", fmt.Sprintf("use 1 to %d", n), "%d of %d targets can never answer", p.Quorum, n)
	}
	if !l.sound("probe.interval", "probe.timeout", "probe.fall") {
		return
	}
	if p.Timeout > maxOverlap*p.Interval {
		l.refuse("probe.timeout", "shorten it or lengthen probe.interval", "%s is more than %d times the interval %s",
			formatDuration(p.Timeout), maxOverlap, formatDuration(p.Interval))
		return
	}
	if slowest := p.Interval + p.Timeout + time.Duration(p.Fall)*haste; slowest > slowDetection {
		l.warn("probe.interval", "interval + timeout + fall × 100ms should be 3s or less", "a dead uplink is noticed only after %s", formatDuration(slowest))
	}
}
