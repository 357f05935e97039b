package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tapgw/api"
	"tapgw/internal/apiserver"
	"tapgw/internal/apiserver/apitest"
	"tapgw/internal/capture"
	"tapgw/internal/daemon"
	"tapgw/internal/doctor"
	"tapgw/internal/portal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is now in all tests, in a zone that is not UTC.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("", 3600))

// fakeDaemon is a daemon in a fixed condition.
type fakeDaemon struct {
	*apiserver.Hub
	apitest.Daemon
}

// serve runs the real API server over d until the test ends and returns its socket.
func serve(t *testing.T, d *fakeDaemon) string {
	t.Helper()
	if d.Hub == nil {
		d.Hub = apiserver.NewHub()
	}
	return serveBackend(t, d)
}

func serveBackend(t *testing.T, d apiserver.Backend) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	apitest.Start(t, apiserver.New(d, apiserver.Options{Socket: socket, Logger: slog.New(slog.DiscardHandler)}))
	return socket
}

// world is an environment whose output can be read.
type world struct {
	*Env
	out, err bytes.Buffer
	vars     map[string]string
}

var errUnexpected = errors.New("this should not have been called")

func newWorld(socket string, args ...string) *world {
	w := &world{vars: map[string]string{api.SocketEnv: socket}}
	w.Env = &Env{
		Args: args, Stdout: &w.out, Stderr: &w.err, Version: "1.2.3",
		Getenv: func(k string) string { return w.vars[k] },
		Now:    func() time.Time { return noon },

		Run:         func(context.Context, RunOptions) error { return errUnexpected },
		Cleanup:     func(context.Context, RunOptions) ([]daemon.Cleaned, error) { return nil, errUnexpected },
		Demo:        func(context.Context, DemoOptions) error { return errUnexpected },
		CheckConfig: func(string) (bool, []string, error) { return false, nil, errUnexpected },
		ShowConfig:  func(string) ([]byte, error) { return nil, errUnexpected },
		Socket:      func(string) string { return "" },
		Resolve:     resolveForTests,
		Way:         func(context.Context, Outlet) (portal.Way, error) { return nil, errUnexpected },
		Browser:     func() string { return "" },
		Exec:        func([]string) error { return errUnexpected },
		InitConfig:  func(context.Context) ([]byte, error) { return nil, errUnexpected },
		Examine:     func(context.Context, doctor.Options, string) ([]doctor.Finding, error) { return nil, errUnexpected },
		KernelState: func() ([]byte, error) { return nil, errUnexpected },

		CapturePoints: func(string, string, api.Status) ([]capture.Point, error) { return nil, errUnexpected },
	}
	return w
}

// asking is a command line to a daemon, and what comes of it.
type asking struct {
	daemon *fakeDaemon
	args   string
	code   int
	says   string
}

func (w *world) run() int { return execute(context.Background(), w.Env) }

// suspected is a daemon with two uplinks that new sessions avoid, one of them those of IPv6 alone.
func suspected() *fakeDaemon {
	d := healthy()
	d.State.Uplinks[0].IPv6.Suspect, d.State.Uplinks[1].Suspect = true, true
	return d
}

func healthy() *fakeDaemon {
	addr := netip.MustParseAddr
	d := &fakeDaemon{Daemon: apitest.Daemon{
		YAML: "nat:\n  max_sessions: 7\n",
		State: api.Status{
			Version: "1.2.3", Datapath: api.DatapathKernel, LANShortcut: true, UptimeS: 187_200, Sessions: 192,
			Uplinks: []api.Uplink{
				{
					Name: "fiber", Interface: "enp3s0", State: api.StateUp, Addresses: []netip.Addr{addr("203.0.113.7")},
					Gateway: addr("203.0.113.1"), RxBps: 61e6, TxBps: 6.1e6, Load: 0.61, Sessions: 128, RTTMs: 9.2,
					Capacity: api.Capacity{DownBps: 100e6, UpBps: 40e6, Confidence: 0.9},
					Since:    noon.Add(-76 * time.Hour),
					IPv6: api.IPv6{
						State: api.StateUp, Addresses: []netip.Addr{addr("2001:db8:77::2")}, Gateway: addr("fe80::1"), RTTMs: 10.1,
						Since: noon.Add(-76 * time.Hour),
					},
				},
				{
					Name: "wifi", Interface: "wlp2s0", State: api.StateUp,
					Addresses: []netip.Addr{addr("192.168.8.20"), addr("192.168.8.21")}, Gateway: addr("192.168.8.1"),
					RxBps: 22.1e6, TxBps: 3.3e6, Load: 0.35, Sessions: 64, RTTMs: 31, Loss: 0.005, Since: noon.Add(-11 * time.Minute),
					Capacity: api.Capacity{DownBps: 63e6, UpBps: 63e6},
					IPv6:     api.IPv6{State: api.StateDown, Reason: "no IPv6 address", Since: noon.Add(-90 * time.Second)},
				},
			},
		},
		Table: []api.Session{
			session("udp", "192.168.1.20:40000", "198.51.100.53:53", "wifi", "open", 60, 120),
			session("tcp", "192.168.1.20:51812", "198.51.100.80:443", "fiber", "established", 1200, 4.2e6),
			session("icmp", "192.168.1.33:77", "198.51.100.1:77", "fiber", "open", 84, 84),
		},
	}}
	d.Table[0].Rule = "names"
	return d
}

func session(proto, inside, remote, uplink, state string, out, in uint64) api.Session {
	return api.Session{
		Proto: proto, Inside: netip.MustParseAddrPort(inside), Remote: netip.MustParseAddrPort(remote),
		Outside: netip.MustParseAddrPort("203.0.113.7:20000"), Uplink: uplink, State: state, AgeS: 75, IdleS: 3,
		BytesOut: out, BytesIn: in, Reason: "chosen by the scheduler",
	}
}

// ipv6Only has an uplink without IPv4.
func ipv6Only() *fakeDaemon {
	d := healthy()
	u := &d.State.Uplinks[0]
	u.State, u.Reason, u.Addresses, u.Gateway, u.RTTMs = api.StateDown, "no address", nil, netip.Addr{}, 0
	return d
}

// guarded has a firewall that the LAN shortcut would bypass.
func guarded() *fakeDaemon {
	d := healthy()
	d.State.LANShortcut, d.State.LANShortcutReason = false, "nftables: chain inet filter/forward has rules"
	return d
}

// guardedV6 has one for IPv6 alone.
func guardedV6() *fakeDaemon {
	d := healthy()
	d.State.LANShortcutIPv6Reason = "nftables: chain ip6 filter/forward has rules"
	return d
}

// bypassed has filters and queues that the kernel's datapath passes by.
func bypassed() *fakeDaemon {
	d := healthy()
	d.State.DatapathBypasses = []string{"nftables: chain netdev filter wan at the ingress of enp3s0", "tc: queue cake at the egress of tapgw0"}
	return d
}

// bypassedInUserspace has a policer that neither datapath meets in time.
func bypassedInUserspace() *fakeDaemon {
	d := slow()
	d.State.DatapathBypasses = []string{"tc: filters at the ingress of enp3s0"}
	return d
}

// slow has no kernel datapath, for a reason that takes two lines.
func slow() *fakeDaemon {
	d := healthy()
	d.State.Datapath, d.State.LANShortcut, d.State.LANShortcutReason = api.DatapathUserspace, false, "needs the kernel datapath"
	d.State.DatapathReason = "not allowed to use BPF, grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
	return d
}

// partial has one uplink in each state that is not up.
func partial() *fakeDaemon {
	d := healthy()
	for i, u := range []api.Uplink{
		{Name: "lte", Interface: "wwan0", State: api.StateDown, Reason: "no reply from 1.1.1.1, 8.8.8.8, 9.9.9.9", Loss: 1},
		{Name: "dsl", Interface: "ppp0", State: api.StateDegraded, Reason: "loss 12 %", Loss: 0.12, RTTMs: 340},
		{Name: "hotel", Interface: "wlan1", State: api.StatePortal, Reason: "answers are redirected"},
		{Name: "usb", Interface: "usb0", State: api.StateProbing},
		{Name: "backup", Interface: "eth9", State: api.StateDisabled, Reason: "by the administrator"},
	} {
		u.Since = noon.Add(-time.Duration(i*i*134) * time.Second)
		d.State.Uplinks = append(d.State.Uplinks, u)
	}
	return d
}

// metered has uplinks whose data cost money, in each state of their caps.
func metered() *fakeDaemon {
	d := healthy()
	ends := time.Date(2026, 12, 15, 0, 0, 0, 0, noon.Location())
	d.State.Uplinks[0].Usage = api.Usage{UsedBytes: 1_234_567_890_123, ResetsAt: ends, State: api.UsageOK}
	for _, u := range []struct {
		name, state, usage, reason string
		used, limit                uint64
	}{
		{"lte", api.StateUp, api.UsageWarning, "", 16_300_000_000, 20e9},
		{"stick", api.StateUp, api.UsageOK, "", 12e6, 500e6},
		{"train", api.StateDisabled, api.UsageStopped, "data cap: 100 % of 1.5 TB used, until 15 Dec", 1_501_000_000_000, 1.5e12},
		{"satellite", api.StateUp, api.UsageAllowed, "", 60e9, 50e9},
		{"phone", api.StateUp, api.UsageOK, "", 0, 0},
	} {
		d.State.Uplinks = append(d.State.Uplinks, api.Uplink{
			Name: u.name, Interface: "wwan0", State: u.state, Reason: u.reason, Since: noon.Add(-time.Hour), Metered: true, Sessions: 3,
			Usage: api.Usage{UsedBytes: u.used, CapBytes: u.limit, ResetsAt: ends, State: u.usage},
		})
	}
	d.State.Uplinks[2].StandsIn = "fiber"
	return d
}

// hostile has everything too long, too large and full of control characters.
func hostile() *fakeDaemon {
	evil := "\x1b[2Jev\u009b31mil\r\n\t\u202egnol\u200b漢字\u0301\x7f" + strings.Repeat("x", 100)
	long := netip.MustParseAddr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")
	d := &fakeDaemon{Daemon: apitest.Daemon{State: api.Status{
		Version: evil, Datapath: evil, DatapathReason: strings.Repeat(evil+" ", 9), LANShortcutReason: evil, DatapathBypasses: slices.Repeat([]string{evil}, 9), UptimeS: 1 << 62, Sessions: 1 << 62,
	}}}
	for _, state := range []string{api.StateUp, api.StateDown, api.StateDisabled, evil} {
		d.State.Uplinks = append(d.State.Uplinks, api.Uplink{
			Name: evil, Interface: evil, State: state, Addresses: []netip.Addr{long, long}, Gateway: long, Reason: evil,
			RxBps: 1e300, TxBps: 1e300, Load: 1e300, Sessions: 1 << 62, RTTMs: 1e300, Loss: 1e300, Since: time.Unix(1, 0),
			Metered: true, Usage: api.Usage{UsedBytes: 1<<64 - 1, CapBytes: 1, ResetsAt: time.Unix(1<<36, 0), State: evil},
		}, api.Uplink{
			Name: evil, State: state, RxBps: -1, TxBps: -1, Load: -1, Sessions: -1, RTTMs: -1, Loss: -1, Since: noon.Add(time.Hour),
		})
	}
	end := netip.AddrPortFrom(long, 65535)
	d.Pinned = []api.Pin{{Inside: long, Site: evil, Uplink: evil, Until: time.Unix(1<<36, 0)}, {Until: time.Unix(1, 0)}}
	d.Table = []api.Session{{
		Proto: evil, Inside: end, Remote: end, Outside: end, Uplink: evil, State: evil, AgeS: 1 << 62, IdleS: 1 << 62,
		BytesOut: 1 << 63, BytesIn: 1<<63 - 1,
	}, {}}
	return d
}
