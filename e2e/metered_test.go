package e2e

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// capped has sessions take turns on two uplinks, of which the second has a data cap in a period that does not end while a test runs.
func capped(bytes string) string {
	return fmt.Sprintf("policy: {scheduler: round-robin}\nuplinks: [{interface: wan1}, {interface: wan2, tier: 0, metered: {cap: %s, billing_day: %d, warn: 40%%}}]\n",
		bytes, min(time.Now().Day(), 28))
}

// usage is what an uplink has used.
func (g *gateway) usage(name string) api.Usage {
	g.t.Helper()
	return g.uplink(name).Usage
}

// carry has bytes go to the echo server and back.
func (c talker) carry(bytes int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, bytes))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, c, int64(bytes)); err != nil {
		return err
	}
	return <-sent
}

// expectOnly fails the test unless new sessions take one uplink alone.
func (w world) expectOnly(uplink *lab.Uplink) {
	w.t.Helper()
	for range 6 {
		for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
			if v := visitFor(ns, w.family.servers[0], visitPatience); v.err != nil || v.outside != uplink.Addr() {
				w.t.Errorf("a session by %s (%v), not %s", v.outside, v.err, uplink.Addr())
			}
		}
	}
}

// TestMeteredCapStopsNewSessions: real traffic reaches the cap; what is under way goes on, and neither a crash nor a reload forgets
// what was used.
func TestMeteredCapStopsNewSessions(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, capped("6MB"))
	first := w.Uplinks[0]
	begun := time.Now()
	established := w.connect(w.lan, "wan2")
	labtest.Must(t, established.carry(1_500_000))
	w.events.await("a warning", begun, func(e api.Event) bool { return e.Kind == api.EventUsage && e.Uplink == "wan2" })
	if u := w.usage("wan2"); u.State != api.UsageWarning || u.UsedBytes < 3_000_000 || u.UsedBytes > 4_000_000 || u.CapBytes != 6_000_000 {
		t.Errorf("after 3 MB: %+v", u)
	}
	labtest.Must(t, established.carry(1_500_000))
	if e := w.events.state("wan2", api.StateDisabled, begun); !strings.HasPrefix(e.Message, "data cap: 100 % of 6 MB used, until ") {
		t.Errorf("the reason is %q", e.Message)
	}
	labtest.Must(t, established.talk())
	w.expectOnly(first)
	used := w.usage("wan2").UsedBytes

	w.kill()
	w.restart()
	w.meetLAN()
	w.expectOnly(first)
	if u := w.usage("wan2"); u.State != api.UsageStopped || u.UsedBytes < used {
		t.Errorf("after a crash: %+v, before it was %d", u, used)
	}
	w.use(capped("1GB"))
	w.awaitState("wan2", api.StateUp)
	if u := w.usage("wan2"); u.State != api.UsageOK || u.UsedBytes < used {
		t.Errorf("with a higher cap: %+v, before it was %d", u, used)
	}
	w.connect(w.lan, "wan2")
}

// TestMeteredUsageIsCorrected: the user knows better what was used, and uses the uplink nevertheless; both outlive the daemon.
func TestMeteredUsageIsCorrected(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, capped("20GB"))
	run := func(args ...string) string {
		t.Helper()
		out, status := w.tapgw(args...)
		if status != 0 {
			t.Fatalf("%v: status %d, %s", args, status, out)
		}
		return out
	}
	if out := run("usage", "wan2", "--set", "20GB"); !strings.Contains(out, "stopped") || strings.Contains(out, "wan1") {
		t.Error(out)
	}
	w.expectOnly(w.Uplinks[0])
	run("uplink", "enable", "wan2")
	w.awaitState("wan2", api.StateUp)
	w.connect(w.lan, "wan2")
	w.stop()
	w.restart()
	w.awaitUp(w.Topology)
	if out := run("usage"); !strings.Contains(out, "allowed") || !strings.Contains(out, "not metered") {
		t.Error(out)
	}
	run("usage", "wan2", "--set", "0GB")
	if u := w.usage("wan2"); u.State != api.UsageOK || u.UsedBytes > 1e6 {
		t.Errorf("%+v", u)
	}
	if out, status := w.tapgw("usage", "wan9", "--set", "1GB"); status != 10 || !strings.Contains(out, "wan2") {
		t.Errorf("of no uplink: status %d, %s", status, out)
	}
}

// TestFault50_51_UsageFile and fault 51: a file that is damaged, one that cannot be written, and one of a period that is over, never keep
// the gateway from working.
func TestFault50_51_UsageFile(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, capped("20GB"))
	file := filepath.Join(w.dir, "usage.json")
	entry := func(start string, bytes int) string {
		return fmt.Sprintf(`{"version": 1, "uplinks": {"wan2": {"billing_day": %d, "boot": "", "index": 0, "rx_bytes": 0, "tx_bytes": 0, "seen": 0,
			"periods": [{"start": "%s", "bytes": %d}], "warned": "", "allowed": ""}}}`, min(time.Now().Day(), 28), start, bytes)
	}
	for name, test := range map[string]struct {
		content string
		told    string
	}{
		"truncated":          {entry("2026-01-01", 5)[:100], "is not known"},
		"not ours":           {"\x00\xff", "is not known"},
		"older version":      {`{"version": 0}`, "is not known"},
		"of an older period": {entry("2026-01-01", 30e9), ""},
	} {
		w.stop()
		before := w.said("is not known")
		labtest.Must(t, os.WriteFile(file, []byte(test.content), 0o600))
		w.restart()
		w.awaitUp(w.Topology)
		if (w.said("is not known") > before) != (test.told != "") {
			t.Errorf("%s: the log does not say what it should", name)
		}
		if u := w.usage("wan2"); u.State != api.UsageOK || u.UsedBytes > 1e6 {
			t.Errorf("%s: %+v", name, u)
		}
	}
	w.stop()
	labtest.Must(t, os.Remove(file))
	labtest.Must(t, os.Mkdir(file, 0o700)) // which root cannot write either
	w.restart()
	w.awaitUp(w.Topology)
	if out, status := w.tapgw("usage", "wan2", "--set", "1GB"); status != 0 {
		t.Errorf("status %d, %s", status, out)
	}
	eventually(t, "a word on the file", func() bool { return w.said("is not written down") == 1 })
	if u := w.usage("wan2"); u.UsedBytes < 1e9 {
		t.Errorf("%+v", u)
	}
	w.meetLAN()
	w.connect(w.lan, "wan2")
}

// TestFault67_MeteredCarriesNoBackground: a metered uplink is used only while no other works, and nothing new after that.
func TestFault67_MeteredCarriesNoBackground(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "uplinks: [{interface: wan1}, {interface: wan2, metered: true}]\n")
	first, second := w.Uplinks[0], w.Uplinks[1]
	w.expectOnly(first)
	labtest.Must(t, first.Link.Cut())
	w.events.state("wan1", api.StateDown, time.Time{})
	w.expectOnly(second)
	begun := time.Now()
	labtest.Must(t, first.Link.Mend())
	w.events.state("wan1", api.StateUp, begun)
	w.expectOnly(first)
	used := w.usage("wan2").UsedBytes
	conn, err := w.lan.Dial(labtest.Context(t), "tcp", netip.AddrPortFrom(w.family.servers[0], lab.PortTCPEcho).String())
	labtest.Must(t, err)
	defer conn.Close()
	labtest.Must(t, talker{conn, "wan1"}.carry(3_000_000))
	if more := w.usage("wan2").UsedBytes - used; more > 300_000 {
		t.Errorf("%d bytes by the metered uplink while the other works", more)
	}
	if !w.uplink("wan2").Metered || w.uplink("wan1").Metered {
		t.Error("the status does not say which uplink is metered")
	}
}
