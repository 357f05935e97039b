package configs

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var addrs = rapid.Custom(func(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(rapid.SampledFrom([]int{1, 10, 100, 192, 223}).Draw(t, "a")), rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), rapid.Byte().Draw(t, "d")})
})

var targets = rapid.Custom(func(t *rapid.T) Target {
	switch rapid.SampledFrom([]string{ICMP, TCP, ARP}).Draw(t, "method") {
	case TCP:
		return Target{Method: TCP, Addr: addrs.Draw(t, "addr"), Port: rapid.Uint16Min(1).Draw(t, "port")}
	case ARP:
		return Target{Method: ARP}
	}
	return Target{Method: ICMP, Addr: addrs.Draw(t, "addr")}
})

// validRules adds groups, sets and rules to a configuration.
func validRules(t *rapid.T, c *Config) {
	name := rapid.StringMatching(`[a-z][A-Za-z0-9._-]{0,20}`)
	sticky := rapid.SampledFrom(append(stickinesses, ""))
	scheduler := rapid.SampledFrom(append(schedulers, ""))
	c.Policy.Stickiness = rapid.SampledFrom(stickinesses).Draw(t, "stickiness")
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		return netip.PrefixFrom(addrs.Draw(t, "address"), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
	})
	for i := range rapid.IntRange(0, 3).Draw(t, "sets") {
		c.Sets = append(c.Sets, Set{Name: "s" + strconv.Itoa(i) + name.Draw(t, "set"), Prefixes: rapid.SliceOfN(prefix, 0, 3).Draw(t, "prefixes")})
	}
	groups := []string{GroupAll}
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		g := Group{Name: "g" + strconv.Itoa(i) + name.Draw(t, "group"), Scheduler: scheduler.Draw(t, "scheduler"), Stickiness: sticky.Draw(t, "sticky")}
		g.WhenDown = rapid.SampledFrom(append(groups, WhenDownAny, WhenDownRefuse)).Draw(t, "when down")
		for i := range rapid.IntRange(1, 3).Draw(t, "members") {
			m := Member{Uplink: "eth" + strconv.Itoa(i), Tier: rapid.IntRange(InheritTier, 100).Draw(t, "tier")}
			if len(c.Uplinks) > 0 {
				m.Uplink = c.Uplinks[i%len(c.Uplinks)].Name
			}
			if i == 0 || len(c.Uplinks) == 0 || i < len(c.Uplinks) {
				g.Uplinks = append(g.Uplinks, m)
			}
		}
		groups = append(groups, g.Name)
		c.Groups = append(c.Groups, g)
	}
	place := rapid.Custom(func(t *rapid.T) Place {
		if len(c.Sets) > 0 && rapid.Bool().Draw(t, "a set") {
			return Place{Set: rapid.SampledFrom(c.Sets).Draw(t, "which").Name}
		}
		return Place{Prefix: prefix.Draw(t, "prefix")}
	})
	for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
		r := Rule{Name: "r" + strconv.Itoa(i), Use: rapid.SampledFrom(groups).Draw(t, "use"), Direct: rapid.Bool().Draw(t, "direct")}
		r.From, r.To = rapid.SliceOfN(place, 0, 2).Draw(t, "from"), rapid.SliceOfN(place, 0, 2).Draw(t, "to")
		r.Ports = rapid.SliceOfN(rapid.Map(rapid.Uint16Range(1, 65000), func(n uint16) PortRange { return PortRange{n, n + n%3} }), 0, 2).Draw(t, "ports")
		r.DSCP = rapid.SliceOfN(rapid.Uint8Range(0, 63), 0, 2).Draw(t, "dscp")
		r.Domains = rapid.SliceOfN(rapid.StringMatching(`[a-z0-9_-]{1,9}(\.[a-z]{1,3})?`), 0, 2).Draw(t, "domains")
		r.Times = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Span {
			first := rapid.Uint16Range(0, minutesOfDay-1).Draw(t, "first")
			return Span{rapid.Uint8Range(1, everyDay-1).Draw(t, "days"), first, rapid.Uint16Range(1, minutesOfDay).Filter(func(n uint16) bool { return n != first }).Draw(t, "last")}
		}), 0, 2).Draw(t, "times")
		if r.Direct {
			if len(r.From)+len(r.To) == 0 {
				r.To = []Place{place.Draw(t, "somebody")}
			}
			c.Rules = append(c.Rules, r)
			continue
		}
		r.OnUplinkDown = rapid.SampledFrom(append(downWords, "")).Draw(t, "on uplink down")
		r.Scheduler, r.Stickiness = scheduler.Draw(t, "scheduler"), sticky.Draw(t, "sticky")
		r.Users = rapid.SliceOfN(rapid.StringMatching(`[a-z0-9_]{1,9}`), 0, 2).Draw(t, "users")
		if len(r.Users) == 0 {
			r.MAC = rapid.SliceOfN(rapid.Map(rapid.Byte(), func(b byte) MAC { return MAC{2, b} }), 0, 2).Draw(t, "mac")
		}
		c.Rules = append(c.Rules, r)
	}
}

func durations(low, high time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(int64(low), int64(high)), func(n int64) time.Duration { return time.Duration(n) })
}

// valid draws configurations that obey every rule.
var valid = rapid.Custom(func(t *rapid.T) Config {
	c := Default()
	c.TAP.Name = rapid.StringMatching(`tap[A-Za-z0-9_.@#"'-]{0,11}`).Draw(t, "tap")
	if rapid.Bool().Draw(t, "own subnet") {
		c.TAP.Address = netip.MustParsePrefix("172.31.255.5/24")
	}
	c.Datapath.Mode = rapid.SampledFrom(DatapathModes()).Draw(t, "datapath")
	c.Datapath.LANShortcut = rapid.SampledFrom([]LANShortcut{LANShortcutAuto, LANShortcutOff}).Draw(t, "shortcut")
	c.NAT.MaxSessions = rapid.IntRange(64, 4_000_000).Draw(t, "sessions")
	for first := 1024; first < 60000 && rapid.Bool().Draw(t, "more ports"); {
		last := first + rapid.IntRange(0, 5000).Draw(t, "width")
		c.NAT.Ports = append(c.NAT.Ports, PortRange{uint16(first), uint16(last)})
		first = last + rapid.IntRange(1, 3000).Draw(t, "gap")
	}
	lifetime := durations(time.Second, month)
	c.NAT.Timeouts = Timeouts{lifetime.Draw(t, "e"), lifetime.Draw(t, "t"), lifetime.Draw(t, "c"), lifetime.Draw(t, "u"), lifetime.Draw(t, "i"), lifetime.Draw(t, "o")}
	limit := rapid.Map(rapid.IntRange(0, maxLimit), func(n int) Limit { return Limit(n) })
	c.NAT.Limits = Limits{rapid.OneOf(limit, rapid.Just(LimitAuto)).Draw(t, "per host"), limit.Draw(t, "per second"), limit.Draw(t, "ports")}
	filter := rapid.SampledFrom(filters)
	c.NAT.Filtering = Filtering{filter.Draw(t, "udp"), filter.Draw(t, "tcp")}
	port := uint16(0)
	for _, k := range helperKeys {
		h := k.at(&c.Helpers)
		*h = Helper{Enabled: rapid.Bool().Draw(t, "helps")}
		for range rapid.IntRange(0, maxHelperPorts).Draw(t, "its ports") {
			port += rapid.Uint16Range(1, 600).Draw(t, "further")
			h.Ports = append(h.Ports, port)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "exempt") {
		c.NAT.Exempt = append(c.NAT.Exempt, netip.PrefixFrom(addrs.Draw(t, "to"), rapid.IntRange(8, 32).Draw(t, "bits")).Masked())
	}
	c.Policy.Scheduler = rapid.SampledFrom(schedulers).Draw(t, "scheduler")
	c.Policy.OnUplinkDown = rapid.SampledFrom(downWords).Draw(t, "on uplink down")
	c.Probe.Interval = durations(50*time.Millisecond, time.Hour).Draw(t, "interval")
	c.Probe.Timeout = durations(10*time.Millisecond, min(4*c.Probe.Interval, time.Minute)).Draw(t, "timeout")
	c.Probe.Targets = rapid.SliceOfNDistinct(targets, 0, maxTargets, rapid.ID[Target]).Draw(t, "targets")
	c.Probe.Quorum = rapid.IntRange(1, max(1, len(c.Probe.Targets))).Draw(t, "quorum")
	c.Probe.Fall, c.Probe.Rise = rapid.IntRange(1, 100).Draw(t, "fall"), rapid.IntRange(1, 100).Draw(t, "rise")
	c.API.Socket = "/" + rapid.StringMatching(`[ -~]{0,40}[!-.0-~]`).Draw(t, "socket")
	if rapid.Bool().Draw(t, "metrics") {
		c.API.Metrics = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), rapid.Uint16Min(1).Draw(t, "port"))
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "uplinks") {
		c.Uplinks = append(c.Uplinks, validUplink(t, i))
	}
	validRules(t, &c)
	return c
})

func validUplink(t *rapid.T, i int) Uplink {
	rate := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(minRate, maxRate), rapid.Map(rapid.Uint64Range(1, 9999), func(n uint64) uint64 { return n * 1e8 }))
	u := Uplink{
		Name:      strconv.Itoa(i) + rapid.StringMatching(`[A-Za-z0-9._-]{0,31}`).Draw(t, "name"),
		Interface: "if" + strconv.Itoa(i) + rapid.StringMatching(`[!-.0-9;-~]{0,12}`).Draw(t, "interface"),
		Capacity:  Capacity{rate.Draw(t, "up"), rate.Draw(t, "down")},
		Weight:    rapid.IntRange(1, 1000).Draw(t, "weight"), Tier: rapid.IntRange(0, 100).Draw(t, "tier"),
	}
	outside := func(a netip.Addr) bool { return a.As4()[0] == 10 || a.As4()[0] == 1 } // off both TAP subnets
	if rapid.Bool().Draw(t, "gateway") {
		u.Gateway = netip.MustParseAddr("192.0.2.1")
	}
	u.Addresses = rapid.SliceOfNDistinct(addrs.Filter(outside), 0, 4, rapid.ID[netip.Addr]).Draw(t, "addresses")
	for i := 1; i < len(u.Addresses) && rapid.Bool().Draw(t, "static"); i++ {
		u.Static = append(u.Static, Static{netip.AddrFrom4([4]byte{192, 168, 9, byte(i)}), u.Addresses[i]})
	}
	if bits := rapid.IntRange(40, longestNPTv6).Draw(t, "prefix"); rapid.Bool().Draw(t, "nptv6") {
		inside, outside := netip.AddrFrom16([16]byte{0xfd, 1: 1}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, byte(i), byte(i)})
		u.NPTv6 = append(u.NPTv6, NPTv6{netip.PrefixFrom(inside, bits), netip.PrefixFrom(outside, bits)})
	}
	if rapid.Bool().Draw(t, "metered") {
		size := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(minSize, maxSize), rapid.Map(rapid.Uint64Range(1, 9999), func(n uint64) uint64 { return n * 1e8 }))
		share := rapid.Map(rapid.IntRange(0, maxShare), func(n int) Share { return Share(n) })
		u.Metered = Metered{true, size.Draw(t, "cap"), rapid.IntRange(1, 31).Draw(t, "day"), share.Draw(t, "warn"), share.Draw(t, "stop")}
		if rapid.Bool().Draw(t, "plainly") {
			u.Metered = defaultMetered
			u.Metered.Enabled = true
		}
	}
	return u
}

// TestMarshalRoundTrip: what is written is read back as the same values, with any allowed text in names and paths.
func TestMarshalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := valid.Draw(t, "config")
		text := Marshal(c)
		back, err := Parse(text, "marshalled")
		if err != nil {
			t.Fatalf("%v\nin:\n%s", err, text)
		}
		if diff := cmp.Diff(c, back.Config, comparers); diff != "" {
			t.Fatalf("(-want +got):\n%s\nin:\n%s", diff, text)
		}
		if len(NeedsRestart(c, back.Config)) > 0 {
			t.Fatalf("NeedsRestart differs: %v", NeedsRestart(c, back.Config))
		}
	})
}

// TestHostileForms bounds what the shape of a file can cost.
func TestHostileForms(t *testing.T) {
	forms := map[string]string{
		"deep flow":     "probe: " + strings.Repeat("[", maxFile-100),
		"deep flow map": "probe: " + strings.Repeat("{a: ", maxFile/4-100),
		"deep dashes":   strings.Repeat("- ", maxFile/2-100) + "x",
		"deep blocks":   deepBlocks(500),
		"long key":      strings.Repeat("k", maxFile-100) + ": 1",
		"long value":    "tap: {name: " + strings.Repeat("v", maxFile-100) + "}",
		"many uplinks":  "uplinks: [" + strings.Repeat("{},", maxFile/3-100) + "]",
		"many targets":  "probe: {targets: [" + strings.Repeat("x,", maxFile/2-100) + "]}",
		"long list":     "nat: {ports: '" + strings.Repeat("1 ", maxFile/2-100) + "'}",
		"many keys":     manyKeys(),
		"documents":     strings.Repeat("---\n", maxFile/4-100),
	}
	for name, text := range forms {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse([]byte(text), "hostile.yaml")
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("%T, want Problems", err)
			}
			if n := len(err.Error()); n > 20000 {
				t.Errorf("the message has %d bytes", n)
			}
			if took := time.Since(start); took > time.Minute { // the race detector takes ten seconds on a busy machine
				t.Errorf("took %s", took)
			}
		})
	}
}

func deepBlocks(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys() string {
	var b strings.Builder
	for i := 0; b.Len() < maxFile-100; i++ {
		b.WriteString("k" + strconv.Itoa(i) + ": 1\n")
	}
	return b.String()
}

// FuzzParse: no input panics or hangs; what is accepted survives writing and reading; what is refused is told on lines of
// printable text.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(files, "testdata/office.yaml", "testdata/rules.yaml", "reference.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		loaded, err := Parse(data, "fuzz.yaml")
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("%T without problems", err)
			}
			if i := strings.IndexFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }); i >= 0 {
				t.Fatalf("control character in %q", err.Error())
			}
			return
		}
		for _, text := range [][]byte{Marshal(loaded.Config), loaded.Show()} {
			back, err := Parse(text, "back.yaml")
			if err != nil {
				t.Fatalf("%v\nin:\n%s", err, text)
			}
			if !bytes.Equal(Marshal(back.Config), Marshal(loaded.Config)) {
				t.Fatalf("changed:\n%s\ninto:\n%s", Marshal(loaded.Config), Marshal(back.Config))
			}
		}
	})
}
