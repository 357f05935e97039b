package daemon

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	crand "crypto/rand"
	"net/netip"

	"tapgw/configs"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/probe"
	"tapgw/tapgw"
	"tapgw/uplinks"
)

// The hardware addresses of the TAP and of the imaginary router behind it: locally administered, and the same after a
// restart, so that nobody has to learn them anew.
var (
	tapMAC     = [6]byte{0x02, 'T', 'A', 'P', 'G', 0x01}
	gatewayMAC = [6]byte{0x02, 'T', 'A', 'P', 'G', 0xfe}
	upcallMAC  = [6]byte{0x02, 'T', 'A', 'P', 'G', 0x02}
)

// upcallName is the name of the give-back device beside the TAP.
func upcallName(tap string) string { return tap + "u" }

// trackerConfig is what the configuration says of the uplinks.
func (d *Daemon) trackerConfig(c *configs.Config) uplinks.TrackerConfig {
	t := uplinks.TrackerConfig{
		TapName: c.TAP.Name, AssumeHealthy: len(c.Probe.Targets) == 0, AssumeHealthyV6: len(probePlan(c).Of(true).Targets) == 0,
		Flapping: c.Probe.Degraded.Flapping,
		Busy:     func(id uint8) bool { return d.tables.on(id) > 0 },
	}
	for _, u := range c.Uplinks {
		var static []uplinks.Static
		for _, s := range u.Static {
			static = append(static, uplinks.Static(s))
		}
		var nptv6 []uplinks.NPTv6
		for _, n := range u.NPTv6 {
			nptv6 = append(nptv6, uplinks.NPTv6(n))
		}
		t.Specs = append(t.Specs, uplinks.Spec{
			Name: u.Name, Interface: u.Interface, Gateway: u.Gateway, Addresses: u.Addresses, Static: static, NPTv6: nptv6, Resolvers: u.DNS,
			CapacityUp: u.Capacity.Up, CapacityDown: u.Capacity.Down, Weight: u.Weight, Tier: u.Tier,
			Metered: u.Metered.Enabled, OnRecover: uplinks.OnRecover(u.OnRecover),
		})
	}
	return t
}

// probePlan is the configuration's probing in the words of package probe.
func probePlan(c *configs.Config) probe.Plan {
	p := probe.Plan{
		Interval: c.Probe.Interval, Timeout: c.Probe.Timeout, Checks: probe.DefaultChecks, Quorum: c.Probe.Quorum, Fall: c.Probe.Fall,
		Rise: c.Probe.Rise, Loss: c.Probe.Degraded.Loss, Latency: c.Probe.Degraded.Latency,
	}
	for _, t := range c.Probe.Targets {
		p.Targets = append(p.Targets, probe.Target{
			Kind: probe.Kind(t.Method), Addr: t.Addr, Port: t.Port, Name: t.Name, Answer: t.Answer, Path: t.Path, Expect: t.Expect,
		})
	}
	return p
}

func timeouts(c *configs.Config) nat.Timeouts {
	t := c.NAT.Timeouts
	return nat.Timeouts{
		TCPEstablished: t.TCPEstablished, TCPTransitory: t.TCPTransitory, TCPClosed: t.TCPClosed, UDP: t.UDP, ICMP: t.ICMP, Other: t.Other,
	}
}

// tcpOptions is what the configuration says of TCP.
func tcpOptions(c *configs.Config) tapgw.TCPOptions {
	return tapgw.TCPOptions{ClampMSS: c.NAT.ClampMSS, Adopt: c.NAT.AdoptTCP}
}

// filtering is the configuration's filters in the words of package nat.
func filtering(c *configs.Config) nat.Filtering {
	f := c.NAT.Filtering
	return nat.Filtering{UDP: filters[f.UDP], TCP: filters[f.TCP]}
}

var filters = map[configs.Filter]nat.Filter{
	configs.FilterNone: nat.EndpointIndependent, configs.FilterAddress: nat.AddressDependent, configs.FilterPort: nat.AddressAndPortDependent,
}

// checkTAPAddress refuses a subnet on the TAP that the host is in already: whoever has our address counts as an uplink, and
// what is captured would leave untranslated.
func checkTAPAddress(c *configs.Config, before uplinks.Facts) error {
	for _, a := range before.Addresses {
		if c.TAP.Address.Contains(a.Prefix.Addr()) {
			return fmt.Errorf("this host has %s already: set tap.address to a private subnet that it is not in, as 198.18.74.1/30", a.Prefix)
		}
	}
	return nil
}

// limits are those of inside hosts of a family; the host itself has none.
func limits(c *configs.Config, f uplinks.Family, host netip.Addr) nat.Limits {
	l := c.NAT.Limits
	return nat.Limits{
		Sessions: l.Sessions(room(c, f)), Ports: int(l.PortsPerHost), PerSecond: int(l.NewPerSecond), Exempt: packet.AddrOf(host),
	}
}

// room is how many sessions of a family there can be.
func room(c *configs.Config, f uplinks.Family) int {
	if f == uplinks.IPv6 {
		return c.NAT.MaxSessionsIPv6
	}
	return c.NAT.MaxSessions
}

// natConfig is what the session table of a family is made of. The hash key and the port numbers are unpredictable (RFC 6056).
func natConfig(c *configs.Config, f uplinks.Family, ports []nat.PortRange, held func(uint8, packet.Addr, uint16) bool) nat.Config {
	var seed [48]byte
	_, _ = crand.Read(seed[:]) // never fails (crypto/rand)
	source := rand.NewChaCha8([32]byte(seed[16:]))
	return nat.Config{
		IPv6: f == uplinks.IPv6, MaxSessions: room(c, f), Ports: ports, ShareTCP: true, Timeouts: timeouts(c), Filtering: filtering(c),
		Seed:   [2]uint64{binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])},
		Random: source.Uint64, Held: held,
	}
}

// Where the kernel says which ports it hands out or keeps.
const (
	ephemeralPath = "/proc/sys/net/ipv4/ip_local_port_range"
	reservedPath  = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// portPool is the outside ports to use: what is configured, else everything above the well-known ports that the host
// neither hands out to its own sockets nor reserves.
func portPool(c *configs.Config) ([]nat.PortRange, error) {
	if len(c.NAT.Ports) > 0 {
		var pool []nat.PortRange
		for _, r := range c.NAT.Ports {
			pool = append(pool, nat.PortRange(r))
		}
		return pool, nil
	}
	ephemeral, err := os.ReadFile(ephemeralPath)
	if err != nil {
		return nil, fmt.Errorf("read the range of local ports: %w", err)
	}
	reserved, err := os.ReadFile(reservedPath)
	if err != nil {
		return nil, fmt.Errorf("read the reserved ports: %w", err)
	}
	taken := parsePorts(strings.Join(strings.Fields(string(ephemeral)), "-") + "," + strings.TrimSpace(string(reserved)))
	return without(nat.PortRange{First: 1024, Last: 65535}, taken), nil
}

// parsePorts reads "8080,9000-9010"; what it cannot read is skipped, the kernel wrote it.
func parsePorts(list string) (ports [1 << 16]bool) {
	for item := range strings.SplitSeq(list, ",") {
		var first, last uint16
		n, _ := fmt.Sscanf(item, "%d-%d", &first, &last)
		if n == 0 {
			continue
		}
		for p := int(first); p <= int(max(first, last)); p++ {
			ports[p] = true
		}
	}
	return ports
}

// without is the range less the taken ports, as ranges.
func without(r nat.PortRange, taken [1 << 16]bool) (pool []nat.PortRange) {
	open := false
	for p := int(r.First); p <= int(r.Last); p++ {
		switch {
		case taken[p]:
			open = false
		case open:
			pool[len(pool)-1].Last = uint16(p)
		default:
			pool = append(pool, nat.PortRange{First: uint16(p), Last: uint16(p)})
			open = true
		}
	}
	return pool
}
