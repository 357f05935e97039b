package configs

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tapgw/internal/golden"
	"tapgw/policy"
)

var comparers = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty()}

func mustParse(t *testing.T, text string) *Loaded {
	t.Helper()
	loaded, err := Parse([]byte(text), "test.yaml")
	if err != nil {
		t.Fatalf("%v\nin:\n%s", err, text)
	}
	return loaded
}

func TestEmptyIsDefault(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}", "tap:\nnat:\n  timeouts:\nuplinks:\nprobe: {}\n", "\ufeff# marked\n"} {
		loaded := mustParse(t, text)
		if diff := cmp.Diff(Default(), loaded.Config, comparers); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
		if len(loaded.Warnings) > 0 {
			t.Errorf("%q: %v", text, loaded.Warnings)
		}
	}
}

func TestReferenceIsDefault(t *testing.T) {
	loaded := mustParse(t, string(Reference()))
	if diff := cmp.Diff(Default(), loaded.Config, comparers); diff != "" {
		t.Errorf("the reference does not show the defaults (-want +got):\n%s", diff)
	}
	for _, f := range configFields {
		if loaded.origins[f.key].line == 0 {
			t.Errorf("the reference does not mention %s", f.key)
		}
	}
}

// example is what the reference has in comments below a key.
func example(key string) string {
	_, text, _ := strings.Cut(reference, "\n"+key+":")
	text, _, _ = strings.Cut(text, "\n## ")
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#  ") {
			lines = append(lines, line[1:])
		}
	}
	return strings.Join(lines, "")
}

// TestReferenceUplink parses the example that the reference has in comments.
func TestReferenceUplink(t *testing.T) {
	got := mustParse(t, "uplinks:\n"+example("uplinks")).Config.Uplinks
	want := []Uplink{{
		Name: "fiber", Interface: "eth0", Gateway: netip.MustParseAddr("192.0.2.1"),
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		Static:    []Static{{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("192.0.2.8")}},
		DNS:       []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		NPTv6:     []NPTv6{{netip.MustParsePrefix("fd00:1::/48"), netip.MustParsePrefix("2001:db8:100::/48")}},
		Capacity:  Capacity{Up: 20e6, Down: 100e6}, Weight: 1,
		Metered: Metered{Enabled: true, Cap: 20e9, BillingDay: 15, Warn: 80, Stop: 100}, OnRecover: RecoverKeep,
	}}
	if diff := cmp.Diff(want, got, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSchedulersAreThePolicies(t *testing.T) {
	if !slices.Equal(schedulers, policy.Names()) {
		t.Errorf("configs accepts %v, policy has %v", schedulers, policy.Names())
	}
}

func TestFullFile(t *testing.T) {
	loaded, err := Load(Options{Path: "testdata/office.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.TAP.Address = netip.MustParsePrefix("203.0.113.9/24")
	want.Uplinks = []Uplink{
		{
			Name: "fiber", Interface: "enp3s0", Gateway: netip.MustParseAddr("192.0.2.1"),
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")},
			Static: []Static{
				{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("192.0.2.8")},
				{netip.MustParseAddr("192.168.1.11"), netip.MustParseAddr("192.0.2.9")},
			},
			Capacity: Capacity{Up: 500e6, Down: 1500e6}, Weight: 5,
		},
		{Name: "eth0.100", Interface: "eth0.100", Capacity: Capacity{Down: 800e3}, Weight: 1},
		{
			Name: "null", Interface: "wwan0", Weight: 1, Tier: 1,
			Metered: Metered{Enabled: true, BillingDay: 1, Warn: 80, Stop: 100},
		},
	}
	want.NAT.Ports = []PortRange{{20000, 20099}, {40000, 40000}}
	want.NAT.Timeouts.UDP, want.NAT.Timeouts.ICMP = 90*time.Second, 30*time.Second
	want.Policy.Scheduler = "failover"
	want.Probe.Interval, want.Probe.Timeout, want.Probe.Fall = time.Second, 1500*time.Millisecond, 6
	want.API.Metrics = netip.MustParseAddrPort("127.0.0.1:9417")
	if diff := cmp.Diff(want, loaded.Config, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if loaded.Path != "testdata/office.yaml" {
		t.Errorf("Path = %q", loaded.Path)
	}
}

func TestAccepted(t *testing.T) {
	tests := []struct {
		text string
		got  func(c Config) any
		want any
	}{
		{"probe: {targets: []}", func(c Config) any { return len(c.Probe.Targets) }, 0},
		{"probe: {targets: 'tcp://1.1.1.1:53 8.8.8.8'}", func(c Config) any { return c.Probe.Targets[1].String() }, "icmp://8.8.8.8"},
		{"probe: {targets: '[2620:fe::fe] 2620:fe::9'}", func(c Config) any { return c.Probe.Targets[0].String() }, "icmp://2620:fe::fe"},
		{"nat: {ports: 20000-29999}", func(c Config) any { return c.NAT.Ports[0] }, PortRange{20000, 29999}},
		{"nat: {ports: [auto]}", func(c Config) any { return len(c.NAT.Ports) }, 0},
		{"nat: {ports: 1024-65535}", func(c Config) any { return c.NAT.Ports[0] }, PortRange{1024, 65535}},
		{"nat:\r\n  max_sessions: 64\r\n", func(c Config) any { return c.NAT.MaxSessions }, 64},
		{"uplinks: [{name: eth7}]", func(c Config) any { return c.Uplinks[0].Interface }, "eth7"},
		{"uplinks: [{interface: eth7, capacity: {up: 0.5mbit}}]", func(c Config) any { return c.Uplinks[0].Capacity.Up }, uint64(500e3)},
		{"api: {metrics: '[::1]:9417'}", func(c Config) any { return c.API.Metrics.String() }, "[::1]:9417"},
		{"dashboard: {listen: ''}", func(c Config) any { return c.Dashboard.Listen.IsValid() }, false},
		{"dashboard: {listen: '0.0.0.0:80', token_file: /etc/token}", func(c Config) any { return c.Dashboard.Listen.String() }, "0.0.0.0:80"},
		{"tap: {address: 10.0.0.2/30}", func(c Config) any { return c.TAP.Gateway().String() }, "10.0.0.1"},
		{"tap: {address: 10.0.0.5/24}", func(c Config) any { return c.TAP.Gateway().String() }, "10.0.0.6"},
		{"datapath: {mode: kernel}", func(c Config) any { return c.Datapath }, Datapath{DatapathKernel, LANShortcutAuto}},
		{"datapath: {lan_shortcut: off}", func(c Config) any { return c.Datapath }, Datapath{DatapathAuto, LANShortcutOff}},
		{"tap: {name: abcdefghijklmn}", func(c Config) any { return c.TAP.Name }, "abcdefghijklmn"},
	}
	for _, tt := range tests {
		if got := tt.got(mustParse(t, tt.text).Config); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.text, got, tt.want)
		}
	}
}

func TestEnvironmentReachesEveryKey(t *testing.T) {
	values := map[string]string{
		"tap.name": "tap9", "tap.address": "10.9.9.1/24", "tap.ipv6": "false",
		"nat.max_sessions": "100", "nat.max_sessions_ipv6": "4096", "nat.ports": "20000-29999,31000",
		"policy.scheduler": "weighted", "policy.stickiness": "site", "policy.on_uplink_down": "keep", "probe.targets": "8.8.4.4", "probe.degraded.loss": "30%", "probe.quorum": "1", "probe.fall": "1", "probe.rise": "7",
		"nat.filtering.udp": "address_dependent", "nat.filtering.tcp": "endpoint_independent",
		"datapath.mode": "userspace", "datapath.lan_shortcut": "off",
		"api.socket": "/tmp/s", "api.metrics": "127.0.0.1:1", "dashboard.listen": "127.0.0.1:2", "dashboard.token_file": "/etc/token", "nat.clamp_mss": "false", "nat.adopt_tcp": "true",
		"nat.limits.sessions_per_host": "auto", "nat.limits.new_per_second": "off", "nat.limits.ports_per_host": "77", "nat.exempt": "10.8.0.0/16,fd00:8::/32",
	}
	for _, f := range configFields {
		value, ok := values[f.key]
		if !ok {
			value = "901ms"
			switch {
			case strings.HasPrefix(f.key, "nat.timeouts."):
				value = "3h1m7s"
			case strings.HasPrefix(f.key, "helpers.") && strings.HasSuffix(f.key, ".ports"):
				value = "9,99"
			case strings.HasPrefix(f.key, "helpers."):
				value = "true"
			}
		}
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, Reference(), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(Options{Path: path, Env: []string{envName(f.key) + "=" + value}})
		if err != nil {
			t.Errorf("%s: %v", f.key, err)
			continue
		}
		if got := strings.Join(f.get(&loaded.Config), ","); got != value && got != "icmp://"+value {
			t.Errorf("%s=%s gives %s", envName(f.key), value, got)
		}
	}
	if got := envName("nat.max_sessions"); got != "TAPGW_NAT_MAX_SESSIONS" {
		t.Errorf("envName = %s", got)
	}
}

func TestLoadFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(Options{Path: filepath.Join(dir, "none.yaml")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "config init") {
		t.Errorf("absent: %v, want fs.ErrNotExist and what to do", err)
	}
	if _, err := Load(Options{Path: dir}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("folder: %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#\n"), maxFile), 0o600); err != nil {
		t.Fatal(err)
	}
	var problems Problems
	if _, err := Load(Options{Path: big}); !errors.As(err, &problems) || !strings.Contains(err.Error(), "larger than 256 KiB") {
		t.Errorf("too large: %v", err)
	}
}

func TestWithoutFile(t *testing.T) {
	if _, err := os.Stat(DefaultPath); err == nil {
		t.Skip(DefaultPath + " exists on this machine")
	}
	loaded, err := Load(Options{Env: []string{"TAPGW_PROBE_RISE=3"}})
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Path != "" || loaded.Config.Probe.Rise != 3 || !bytes.Contains(loaded.Show(), []byte("There is no file")) {
		t.Errorf("path %q, rise %d:\n%s", loaded.Path, loaded.Config.Probe.Rise, loaded.Show())
	}
}

func TestNeedsRestart(t *testing.T) {
	old := Default()
	if keys := NeedsRestart(old, Default()); len(keys) > 0 {
		t.Errorf("nothing changed, yet %v", keys)
	}
	soft := mustParse(t, "uplinks: [{name: a}]\nprobe: {rise: 9}\npolicy: {scheduler: weighted}\nnat: {timeouts: {udp: 9m}, filtering: {tcp: address_and_port_dependent}}").Config
	if keys := NeedsRestart(old, soft); len(keys) > 0 {
		t.Errorf("reload can do all this, yet %v", keys)
	}
	hard := mustParse(t, `
tap: {name: t, address: 10.1.1.1/30, ipv6: false}
datapath: {mode: userspace, lan_shortcut: off}
nat: {max_sessions: 99, max_sessions_ipv6: 98, ports: 20000-29999}
api: {socket: /tmp/s, metrics: 127.0.0.1:1}`).Config
	want := []string{
		"tap.name", "tap.address", "tap.ipv6", "datapath.mode", "datapath.lan_shortcut",
		"nat.max_sessions", "nat.max_sessions_ipv6", "nat.ports", "api.socket", "api.metrics",
	}
	if keys := NeedsRestart(old, hard); !slices.Equal(keys, want) {
		t.Errorf("NeedsRestart = %v, want %v", keys, want)
	}
}

func TestInit(t *testing.T) {
	addr := netip.MustParseAddr
	found := []FoundUplink{
		{Interface: "enp3s0", Gateway: addr("192.0.2.1"), Addresses: []netip.Addr{addr("192.0.2.7")}, Speed: 2.5e9},
		{Interface: "odd#\"name", Addresses: []netip.Addr{addr("198.51.100.1"), addr("198.51.100.2")}},
		{Interface: "enp3s0"}, {Interface: "two words"}, {Interface: ""}, {Interface: "wwan0"},
	}
	text := Init(found)
	golden.Text(t, "testdata/init.txt", string(text))
	loaded := mustParse(t, string(text))
	want := Default()
	want.Uplinks = []Uplink{
		{Name: "enp3s0", Interface: "enp3s0", Weight: 1},
		{Name: "uplink2", Interface: "odd#\"name", Weight: 1},
		{Name: "wwan0", Interface: "wwan0", Weight: 1},
	}
	if diff := cmp.Diff(want, loaded.Config, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Default(), mustParse(t, string(Init(nil))).Config, comparers); diff != "" {
		t.Errorf("with nothing found (-want +got):\n%s", diff)
	}
}

// TestInitSuggestions removes the "#" of every suggestion, which must give the defaults.
func TestInitSuggestions(t *testing.T) {
	_, text, _ := strings.Cut(string(Init(nil)), "\n## tap")
	text = strings.ReplaceAll("#"+text, "\n# ", "\n")
	loaded := mustParse(t, text)
	if diff := cmp.Diff(Default(), loaded.Config, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(loaded.origins) < len(configFields) {
		t.Errorf("only %d keys are suggested", len(loaded.origins))
	}
}

func TestInitIsBounded(t *testing.T) {
	var found []FoundUplink
	for i := range 100 {
		found = append(found, FoundUplink{Interface: "eth" + string(rune('!'+i%90)) + "x"})
	}
	if n := len(mustParse(t, string(Init(found))).Config.Uplinks); n != MaxUplinks {
		t.Errorf("%d uplinks, want %d", n, MaxUplinks)
	}
}

func TestBracketsOfTargets(t *testing.T) {
	for _, target := range []string{"[2620:fe::fe", "2620:fe::fe]", "[9.9.9.9]", "tcp://[9.9.9.9]:443", "tcp://[2620:fe::fe:443"} {
		if _, err := Parse([]byte("probe: {targets: '"+target+"'}"), "f"); err == nil {
			t.Errorf("%s was taken", target)
		}
	}
}

// TestGroupsFit: each group of a file may lead to any other, and to that of all uplinks.
func TestGroupsFit(t *testing.T) {
	if maxGroups+1 > policy.MaxGroups {
		t.Errorf("%d groups and that of all uplinks, where %d are remembered", maxGroups, policy.MaxGroups)
	}
}
