package doctor

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/uplinks"
)

// expect compares a finding, of whose message and advice it looks for a part.
func expect(t *testing.T, f Finding, level Level, says string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Message+" "+f.Advice, says) {
		t.Errorf("%+v, want %s: %s", f, level, says)
	}
	if (f.Level == Warn || f.Level == Fail) && f.Advice == "" {
		t.Errorf("no advice: %+v", f)
	}
}

// hostWith is a host with these files of other programs, and a TAP.
func hostWith(t *testing.T, files map[string]string) *host {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &host{Options: Options{Root: root, TAP: "tapgw0"}, tap: uplinks.Link{Index: 7, Name: "tapgw0"}, absent: api.ErrNoDaemon}
}

func TestNetworkManager(t *testing.T) {
	expect(t, networkManager(hostWith(t, nil)), OK, "does not run")
	for text, level := range map[string]Level{"[device]\nmanaged=true\n": Warn, "[device]\nmanaged=false\n": OK, "managed = true": Warn, "\x00": OK} {
		expect(t, networkManager(hostWith(t, map[string]string{"run/NetworkManager/devices/7": text})), level, "tapgw0")
	}
	h := hostWith(t, map[string]string{"run/NetworkManager/devices/2": ""})
	h.Facts.Links = []uplinks.Link{{Index: 2, Name: "wlan0"}}
	h.Facts.Routes = []uplinks.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Index: 2, Metric: 20600}}
	expect(t, connectivity(h), Warn, "wlan0 (metric 20600)")
	h.Facts.Routes[0].Metric = 600
	expect(t, connectivity(h), OK, "")
}

func TestNetworkd(t *testing.T) {
	const running, both = "run/systemd/netif/state", "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules = false\n"
	expect(t, networkd(hostWith(t, nil)), OK, "does not run")
	for name, c := range map[string]struct {
		files map[string]string
		level Level
	}{
		"default":     {map[string]string{}, Warn},
		"both":        {map[string]string{"etc/systemd/networkd.conf": both}, OK},
		"drop-in":     {map[string]string{"usr/lib/systemd/networkd.conf.d/50-tapgw.conf": both}, OK},
		"one":         {map[string]string{"etc/systemd/networkd.conf": "ManageForeignRoutes=no\n"}, Warn},
		"commented":   {map[string]string{"etc/systemd/networkd.conf": "#ManageForeignRoutes=no\n#ManageForeignRoutingPolicyRules=no\n"}, Warn},
		"overridden":  {map[string]string{"etc/systemd/networkd.conf": both, "etc/systemd/networkd.conf.d/60.conf": "ManageForeignRoutes=yes\n"}, Warn},
		"masked file": {map[string]string{"usr/lib/systemd/networkd.conf.d/5.conf": both, "etc/systemd/networkd.conf.d/5.conf": ""}, Warn},
	} {
		t.Run(name, func(t *testing.T) {
			c.files[running] = ""
			expect(t, networkd(hostWith(t, c.files)), c.level, "systemd-networkd")
		})
	}
}

func TestOtherSoftware(t *testing.T) {
	expect(t, mwan3(hostWith(t, map[string]string{"usr/sbin/mwan3": ""})), Fail, "mwan3")
	expect(t, mwan3(hostWith(t, nil)), OK, "")
	h := hostWith(t, nil)
	h.Desktop = "ubuntu:GNOME"
	expect(t, desktop(h), Warn, "appindicator")
	h = hostWith(t, map[string]string{"usr/share/gnome-shell/extensions/ubuntu-appindicators@ubuntu.com/metadata.json": ""})
	h.Desktop = "ubuntu:GNOME"
	expect(t, desktop(h), OK, "extension")
	expect(t, desktop(hostWith(t, nil)), OK, "")
}

func TestClock(t *testing.T) {
	now := oldest.AddDate(1, 0, 0)
	expect(t, judgeClock(now, true), OK, "")
	expect(t, judgeClock(now, false), Warn, "timedatectl")
	expect(t, judgeClock(time.Unix(0, 0), true), Fail, "1970-01-01")
}

func TestDefaultRouteOfARunningGateway(t *testing.T) {
	expect(t, judgeDefaults(true, []string{"wan1 (metric 0)"}, nil), Fail, "wan1 (metric 0)")
	expect(t, judgeDefaults(true, nil, []string{"wg0 (metric 50)"}), OK, "wg0 (metric 50)")
}

func TestHealth(t *testing.T) {
	h := &host{status: api.Status{Uplinks: []api.Uplink{
		{Name: "fibre", State: api.StateUp}, {Name: "cable", State: api.StateDisabled}, {Name: "hotel", State: api.StatePortal},
	}}}
	expect(t, health(h), OK, "")
	expect(t, portal(h), Warn, "tapgw portal hotel")
	h.status.Uplinks[0].State = api.StateDown
	expect(t, health(h), Warn, "fibre down")
	h.status.Uplinks = h.status.Uplinks[:1]
	expect(t, health(h), Fail, "fibre down")
	expect(t, portal(h), OK, "")
}

func TestDaemonThatDoesNotAnswer(t *testing.T) {
	expect(t, daemon(&host{absent: api.ErrNoDaemon}), Warn, "sudo tapgw run")
	expect(t, daemon(&host{absent: api.ErrDenied}), Fail, "permission denied")
	expect(t, daemon(&host{status: api.Status{Version: "1.2.3"}}), OK, "1.2.3")
}

func TestWorst(t *testing.T) {
	for want, list := range map[Level][]Finding{
		OK:   {{Level: OK}, {Level: Unknown}},
		Warn: {{Level: OK}, {Level: Warn}, {Level: Unknown}},
		Fail: {{Level: Warn}, {Level: Fail}, {Level: Warn}},
	} {
		if got := Worst(list); got != want {
			t.Errorf("%+v is %s", list, got)
		}
	}
}
