package e2e

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// settled is a daemon whose uplinks are all up, its topology, and what its gateway was like before.
func settled(t testing.TB, o lab.Options, config string) (g *gateway, topology *lab.Topology, before lab.State) {
	t.Helper()
	return settledOn(t, o, datapath(t), config)
}

func settledOn(t testing.TB, o lab.Options, on, config string) (g *gateway, topology *lab.Topology, before lab.State) {
	t.Helper()
	topology = labtest.Build(t, o)
	labtest.Servers(t, topology)
	before = labtest.Snapshot(t, topology.Gateway)
	g = startOn(t, topology.Gateway, on, config)
	g.awaitUp(topology)
	return g, topology, before
}

// expectCleanup runs `tapgw cleanup` and fails the test unless it succeeds and everything is as it was.
func (g *gateway) expectCleanup(before lab.State) (output string) {
	g.t.Helper()
	output, status := g.tapgw("cleanup")
	if status != 0 {
		g.t.Errorf("cleanup: status %d, %s", status, output)
	}
	labtest.Unchanged(g.t, g.ns, before)
	return output
}

// TestCleanStopLeavesNoTrace is fault 48: every object is as it was, with a LAN, a strict reverse path filter and a default
// route without a metric, which the daemon has to change.
func TestCleanStopLeavesNoTrace(t *testing.T) {
	g, topology, before := settled(t, lab.Options{RPFilter: 1}, "")
	online(t, topology.Hosts[0].Namespace)
	online(t, topology.Gateway)
	g.stop()
	if g.err != nil {
		t.Errorf("exit: %v", g.err)
	}
	labtest.Unchanged(t, topology.Gateway, before)
}

// online fails the test unless a new connection from ns reaches the Internet.
func online(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := ns.WhoAmI(ctx, lab.ServerAddrs[0]); err != nil {
		t.Errorf("%s is offline: %v", ns.Name(), err)
	}
}

// TestKillLeavesEveryoneOnline is fault 46: host and LAN use plain routing at once, and a new daemon or cleanup finds its way.
func TestKillLeavesEveryoneOnline(t *testing.T) {
	g, topology, before := settled(t, lab.Options{RPFilter: 1}, "")
	online(t, topology.Hosts[0].Namespace)
	g.kill()
	began := time.Now()
	online(t, topology.Gateway)
	online(t, topology.Hosts[0].Namespace)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("online again only after %s", took)
	}
	g.restart()
	g.awaitUp(topology)
	online(t, topology.Hosts[0].Namespace)
	g.kill()
	if out := g.expectCleanup(before); !strings.Contains(out, "removed") {
		t.Errorf("cleanup does not say what it removed: %s", out)
	}
	g.expectCleanup(before)
}

// TestKillResetsConnectionsOfTheLAN: what the daemon translated must not reach a provider untranslated once it is dead;
// applications learn of it and connect anew.
func TestKillResetsConnectionsOfTheLAN(t *testing.T) {
	w := begin(t, lab.Options{}, inTurn)
	for _, u := range w.Uplinks {
		watch(t, u.ISP, lab.DeviceCustomer, "from the LAN", func(p *lab.Packet) bool {
			return !p.Outgoing && p.Src.Addr() == w.Hosts[0].Addr
		})
	}
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	exchange, err := w.lan.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
	labtest.Must(t, err)
	defer flood(exchange, 1_000_000)()
	labtest.Must(t, exchange.SetDeadline(time.Now().Add(patience)))
	_, err = exchange.Read(make([]byte, 2000))
	labtest.Must(t, err)

	w.kill()
	begun := time.Now()
	for _, c := range []talker{onFirst, onSecond} {
		if err := c.talk(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection by %s: %v, want a reset", c.uplink, err)
		}
	}
	online(t, w.lan)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("told and online again only after %s", took)
	}
	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	_, err = lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "anew")
	labtest.Must(t, err)
}

// TestSecondDaemonRefuses is fault 61, with the same socket and with another.
func TestSecondDaemonRefuses(t *testing.T) {
	g, topology, _ := settled(t, lab.Options{}, "")
	for _, socket := range []string{g.socket(), filepath.Join(t.TempDir(), "other.sock")} {
		out, status := run(t, topology.Gateway, "run", "--socket", socket)
		if status != 1 || !strings.Contains(out, "running") && !strings.Contains(out, "tapgw0") || lines(out) > 1 {
			t.Errorf("second daemon: status %d\n%s", status, out)
		}
	}
	if out, status := g.tapgw("cleanup"); status != 1 || !strings.Contains(out, "stop it first") {
		t.Errorf("cleanup beside a running daemon: status %d, %s", status, out)
	}
	online(t, topology.Hosts[0].Namespace)
}

func lines(s string) int { return strings.Count(strings.TrimSpace(s), "\n") + 1 }

// TestRefusalsAreOneLine: whatever is missing, one clear line and status 1, and nothing is changed.
func TestRefusalsAreOneLine(t *testing.T) {
	topology := labtest.Build(t, lab.Options{})
	bare := labtest.Namespace(t, "bare")
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	labtest.Must(t, os.WriteFile(bad, []byte("nat:\n  max_sesions: 5\n"), 0o644))
	socket := filepath.Join(dir, "tapgw.sock")
	before := labtest.Snapshot(t, topology.Gateway)
	for _, c := range []struct {
		name string
		ns   *lab.Namespace
		args []string
		want []string
	}{
		{"no uplink", bare, []string{"run", "--socket", socket}, []string{"no uplink", "default route", "--wait"}},
		{"bad file", topology.Gateway, []string{"run", "--socket", socket, "--config", bad}, []string{"bad.yaml:2", "max_sesions", "max_sessions"}},
		{"no file", topology.Gateway, []string{"run", "--socket", socket, "--config", dir + "/none.yaml"}, []string{"none.yaml", "config init"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := run(t, c.ns, c.args...)
			if status != 1 || lines(out) != 1 {
				t.Errorf("status %d, %d lines", status, lines(out))
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q does not mention %q", out, w)
				}
			}
		})
	}
	labtest.Unchanged(t, topology.Gateway, before)
}

// TestWithoutPrivilege runs the daemon as nobody.
func TestWithoutPrivilege(t *testing.T) {
	topology := labtest.Build(t, lab.Options{})
	cmd := topology.Gateway.Command(t.Context(), binary(t), "run", "--socket", "/tmp/tapgw-nobody/tapgw.sock")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	defer os.RemoveAll("/tmp/tapgw-nobody")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || lines(string(out)) != 1 || !strings.Contains(string(out), "root") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReload is fault 49 and its counterpart: a bad file changes nothing and says why, a good one applies without dropping
// a session.
func TestReload(t *testing.T) {
	g, topology, _ := settled(t, lab.Options{}, inTurn)
	ctx := labtest.Context(t)
	established := g.connect(topology.Hosts[0].Namespace, "wan1")
	g.write("policy: {scheduler: worst-load}\n")
	out, status := g.tapgw("reload")
	if status != 1 || !strings.Contains(out, "tapgw.yaml:1") || !strings.Contains(out, "worst-load") {
		t.Errorf("reload of a bad file: status %d, %s", status, out)
	}
	config, err := g.client.Config(ctx)
	labtest.Must(t, err)
	if !strings.Contains(string(config), "round-robin") {
		t.Errorf("the old configuration is not in force:\n%s", config)
	}
	g.write("policy: {scheduler: weighted}\nuplinks: [{interface: wan1, weight: 2}, {interface: wan2}]\n")
	g.signal(syscall.SIGHUP)
	eventually(t, "reload by SIGHUP", func() bool {
		config, err = g.client.Config(ctx)
		return err == nil && strings.Contains(string(config), "weighted")
	})
	labtest.Must(t, established.talk())
	g.write("tap: {name: other0}\n")
	if out, status := g.tapgw("reload"); status != 1 || !strings.Contains(out, "tap.name") {
		t.Errorf("reload of what needs a restart: status %d, %s", status, out)
	}
	g.write("policy: {scheduler: weighted}\nuplinks: [{interface: wan2}]\n")
	if out, status := g.tapgw("reload"); status != 0 {
		t.Errorf("reload without the first uplink: status %d, %s", status, out)
	}
	g.awaitState("wan1", api.StateDisabled)
	labtest.Must(t, established.talk())
}

// TestStatusSpeaks: exit statuses that scripts rely on.
func TestStatusSpeaks(t *testing.T) {
	g, topology, _ := settled(t, lab.Options{}, "")
	expect := func(want int, args ...string) {
		t.Helper()
		if out, status := g.tapgw(args...); status != want {
			t.Errorf("tapgw %v: status %d, want %d\n%s", args, status, want, out)
		}
	}
	expect(0, "status")
	expect(0, "uplink", "disable", "wan1")
	g.awaitState("wan1", api.StateDisabled)
	expect(4, "status")
	expect(0, "uplink", "disable", "wan2")
	g.awaitState("wan2", api.StateDisabled)
	expect(5, "status")
	expect(0, "uplink", "enable", "wan1")
	expect(0, "uplink", "enable", "wan2")
	g.awaitUp(topology)
	expect(0, "status", "--json")
	expect(0, "uplinks")
	expect(0, "sessions", "--json")
	expect(10, "uplink", "disable", "wan9")
	expect(2, "status", "--nonsense")
	expect(2, "nonsense")
	g.stop()
	expect(8, "status")
}
