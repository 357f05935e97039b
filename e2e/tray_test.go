package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// onDesktop is a settled gateway with an applet in a session of a user.
func onDesktop(t testing.TB, user *syscall.Credential) (*gateway, *lab.Topology, *desktop, *applet) {
	t.Helper()
	g, topology, _ := settled(t, lab.Options{}, inTurn)
	d := newDesktop(t, g.ns, user)
	d.servePanel()
	return g, topology, d, d.startApplet(g)
}

const (
	allUp = "Internet: online (2 of 2 uplinks usable)"
	use   = "Use for new sessions"
)

// TestTraySwitchesUplinks: the menu shows the uplinks and switches them, and follows what others do.
func TestTraySwitchesUplinks(t *testing.T) {
	t.Parallel()
	g, _, _, a := onDesktop(t, nil)
	a.await(allUp)
	a.await("wan2", "up for")
	if tip := a.property("ToolTip").([]any); !strings.Contains(tip[2].(string), "\nwan1   ↓ ") {
		t.Errorf("the tooltip is %q", tip)
	}
	on := a.await("wan1", use)
	if !on.checked || !on.enabled {
		t.Errorf("wan1 is up, its switch is %+v", on)
	}
	a.choose(on)
	g.awaitState("wan1", api.StateDisabled)
	a.await("partial (1 of 2 uplinks usable)")
	off := a.await("wan1", use)
	if off.checked || !off.enabled {
		t.Errorf("wan1 is disabled, its switch is %+v", off)
	}
	a.choose(off)
	g.awaitState("wan1", api.StateUp)
	a.await(allUp)
	if out, status := g.tapgw("uplink", "disable", "wan2"); status != 0 {
		t.Fatalf("status %d, %s", status, out)
	}
	eventually(t, "the switch of wan2", func() bool { l, ok := a.find("wan2", use); return ok && !l.checked })
}

// TestTrayPrefersAndPauses: each switch is on when the daemon says so, and off again.
func TestTrayPrefersAndPauses(t *testing.T) {
	t.Parallel()
	g, _, _, a := onDesktop(t, nil)
	for _, c := range []struct {
		on, off []string
		is      func() bool
	}{
		{[]string{"wan2", "Prefer"}, []string{"wan2", "Prefer"}, func() bool { return g.uplink("wan2").Preferred }},
		{[]string{"wan1", "Metered"}, []string{"wan1", "Metered"}, func() bool { return g.uplink("wan1").Metered }},
		{[]string{"Pause for 5 minutes"}, []string{"Resume"}, func() bool { return !g.status().PausedUntil.IsZero() }},
	} {
		a.choose(a.await(c.on...))
		eventually(t, strings.Join(c.on, " "), c.is)
		eventually(t, "the way back", func() bool { l, ok := a.find(c.off...); return ok && l.checked == (len(c.off) == 2) })
		a.choose(a.await(c.off...))
		eventually(t, "the end of "+c.on[0], func() bool { return !c.is() })
	}
}

// TestTrayTellsOfFailover: the icon and a note say that an uplink is down, and that it is back.
func TestTrayTellsOfFailover(t *testing.T) {
	t.Parallel()
	_, topology, d, a := onDesktop(t, nil)
	a.await(allUp)
	before := a.icon()
	labtest.Must(t, topology.Uplinks[0].Link.Cut())
	down := d.told("wan1 is down")
	if !strings.HasPrefix(down.body, "New sessions go by wan2.\n") || down.urgency != 1 || down.replaces != 0 {
		t.Errorf("the note is %+v", down)
	}
	a.await("wan1   down")
	if bytes.Equal(before, a.icon()) {
		t.Error("the icon is the same")
	}
	labtest.Must(t, topology.Uplinks[0].Link.Mend())
	if up := d.told("wan1 is up"); up.replaces == 0 {
		t.Errorf("the note does not take the place of the one before: %+v", up)
	}
	a.await(allUp)
}

// icon is what the panel is to show.
func (a *applet) icon() []byte {
	a.d.t.Helper()
	list, ok := a.property("IconPixmap").([][]any)
	if !ok || len(list) != 1 || list[0][0] != int32(44) || list[0][1] != int32(44) {
		a.d.t.Fatalf("the icon is %v", list)
	}
	return list[0][2].([]byte)
}

// TestTraySurvivesRestarts: of the daemon, and of the panel.
func TestTraySurvivesRestarts(t *testing.T) {
	t.Parallel()
	g, _, d, a := onDesktop(t, nil)
	a.await(allUp)
	g.stop()
	a.await("tapgw does not run")
	g.restart()
	a.await(allUp)
	const panel = "org.kde.StatusNotifierWatcher"
	_, err := d.bus.ReleaseName(panel)
	labtest.Must(t, err)
	_, err = d.bus.RequestName(panel, 0)
	labtest.Must(t, err)
	if again := await(t, "the applet", d.panels); again != a.item.Destination() {
		t.Errorf("%s came back, not %s", again, a.item.Destination())
	}
	for len(d.notes) > 0 {
		t.Errorf("told %+v", <-d.notes)
	}
	a.choose(a.await("Quit"))
	eventually(t, "the end", func() bool {
		return a.menu.Call("com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{}).Err != nil
	})
}

// TestTrayOfAStranger: who may only look sees all, can change nothing, and is told how to be allowed to.
func TestTrayOfAStranger(t *testing.T) {
	t.Parallel()
	g, topology, _, a := onDesktop(t, &syscall.Credential{Uid: 65534, Gid: 65534})
	a.await(allUp)
	a.await("sudo usermod -aG tapgw $USER")
	on := a.await("wan1", use)
	if on.enabled || !on.checked {
		t.Errorf("the switch is %+v", on)
	}
	a.choose(on) // as a hostile panel may
	labtest.Must(t, topology.Uplinks[1].Link.Cut())
	a.await("wan2   down")
	if u := g.uplink("wan1"); u.State != api.StateUp {
		t.Errorf("wan1 is %s", u.State)
	}
}

// signsIn is a browser whose user signs in at the page.
const signsIn = `#!/bin/sh
for a; do
	case $a in --proxy-server=*) proxy=${a#*=} ;; esac
	page=$a
done
exec curl -sf --proxy "$proxy" -d 'room=101' "$page"
`

// desktopWith is a desktop with a program of the user's, and tapgw.
func desktopWith(t testing.TB, g *gateway, name, script string) (*desktop, *applet) {
	t.Helper()
	programs := t.TempDir()
	labtest.Must(t, os.WriteFile(filepath.Join(programs, name), []byte(script), 0o755))
	labtest.Must(t, os.Symlink(binary(t), filepath.Join(programs, "tapgw")))
	d := newDesktop(t, g.ns, nil, "PATH="+programs+":"+os.Getenv("PATH"))
	d.servePanel()
	return d, d.startApplet(g)
}

// TestTrayOpensTheDashboard: it opens signed in, as the user may change things.
func TestTrayOpensTheDashboard(t *testing.T) {
	t.Parallel()
	g, _, _ := settled(t, lab.Options{}, inTurn)
	d, a := desktopWith(t, g, "xdg-open", `#!/bin/sh
curl -sfL --cookie-jar "$HOME/cookies" --output "$HOME/page" "$1" && mv "$HOME/page" "$HOME/opened"
`)
	a.choose(a.await("Open dashboard"))
	var page []byte
	eventually(t, "the page", func() (ok bool) {
		var err error
		page, err = os.ReadFile(filepath.Join(d.dir, "opened"))
		return err == nil
	})
	cookies, err := os.ReadFile(filepath.Join(d.dir, "cookies"))
	labtest.Must(t, err)
	if !strings.Contains(string(page), "<title>") || !strings.Contains(string(cookies), "127.0.0.1") {
		t.Errorf("the page is %.200q, its cookies %q", page, cookies)
	}
	for len(d.notes) > 0 {
		t.Errorf("told %+v", <-d.notes)
	}
}

// TestTraySignsIn: the page of a portal opens in a browser that reaches it by that uplink.
func TestTraySignsIn(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	captive(t, topology.Uplinks[0])
	g := start(t, topology.Gateway, inTurn)
	g.awaitState("wan1", api.StatePortal)
	_, a := desktopWith(t, g, "chromium", signsIn)
	a.choose(a.await("wan1", "Sign in…"))
	g.awaitState("wan1", api.StateUp)
	a.await(allUp)
}
