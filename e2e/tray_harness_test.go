package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// desktop is a session of a user: a bus of its own, and the applet on it.
type desktop struct {
	t    testing.TB
	ns   *lab.Namespace
	dir  string // the user's home
	env  []string
	user *syscall.Credential // nil for the test's own
	bus  *dbus.Conn

	panels chan string // the items that the panel was told of
	notes  chan shownNote
}

// shownNote is what the user was told.
type shownNote struct {
	summary, body string
	replaces      uint32
	urgency       byte
}

// busConf is that of a session bus which lets us in whoever's it is.
const busConf = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
	<type>session</type>
	<listen>%s</listen>
	<auth>EXTERNAL</auth>
	<standard_session_servicedirs/>
	<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy>
</busconfig>
`

// newDesktop begins a session in a namespace, by its variables on top of ours.
func newDesktop(t testing.TB, ns *lab.Namespace, user *syscall.Credential, env ...string) *desktop {
	t.Helper()
	d := &desktop{t: t, ns: ns, dir: t.TempDir(), user: user, panels: make(chan string, 16), notes: make(chan shownNote, 64)}
	address := "unix:path=" + filepath.Join(d.dir, "bus")
	d.env = append(os.Environ(), append([]string{"HOME=" + d.dir, "XDG_RUNTIME_DIR=" + d.dir, "XDG_CONFIG_HOME=" + d.dir,
		"XDG_CACHE_HOME=" + d.dir, "DBUS_SESSION_BUS_ADDRESS=" + address}, env...)...)
	if user != nil {
		labtest.Must(t, os.Chmod(filepath.Dir(d.dir), 0o755))
		labtest.Must(t, os.Chown(d.dir, int(user.Uid), int(user.Gid)))
	}
	config := filepath.Join(d.dir, "bus.conf")
	labtest.Must(t, os.WriteFile(config, fmt.Appendf(nil, busConf, address), 0o644))
	await(t, "the bus", d.start("dbus-daemon", "--config-file="+config, "--nofork", "--print-address=1"))
	var err error
	d.bus, err = dbus.Connect(address)
	labtest.Must(t, err)
	t.Cleanup(func() { d.bus.Close() })
	return d
}

// start runs a program of the session until the test ends; its first line on stdout comes by the channel, which is closed then.
func (d *desktop) start(program string, args ...string) (firstLine <-chan string) {
	d.t.Helper()
	return d.startWith(nil, program, args...)
}

// startWith is start for a program that gets an open file as its descriptor 3.
func (d *desktop) startWith(file []*os.File, program string, args ...string) (firstLine <-chan string) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := d.ns.Command(ctx, program, args...)
	c.ExtraFiles = file
	c.Env, c.Dir, c.WaitDelay = d.env, "/", patience
	c.SysProcAttr = &syscall.SysProcAttr{Credential: d.user}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	log := &testLog{t: d.t, name: filepath.Base(program)}
	c.Stderr = log
	out, err := c.StdoutPipe()
	labtest.Must(d.t, err)
	labtest.Must(d.t, c.Start())
	first, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			first <- lines.Text()
		}
		close(first)
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
		}
		_ = c.Wait()
	}()
	d.t.Cleanup(func() {
		cancel()
		<-ended
		log.close()
	})
	return first
}

// await is what comes by a channel.
func await[T any](t testing.TB, what string, from <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
	}
	return got
}

// servePanel takes the places of a panel and of what shows notes.
func (d *desktop) servePanel() {
	d.t.Helper()
	for name, object := range map[string]any{"org.kde.StatusNotifierWatcher": panelService{d}, "org.freedesktop.Notifications": noteService{d}} {
		path := "/" + strings.ReplaceAll(name, ".", "/")
		if _, panel := object.(panelService); panel {
			path = "/StatusNotifierWatcher"
		}
		labtest.Must(d.t, d.bus.Export(object, dbus.ObjectPath(path), name))
		reply, err := d.bus.RequestName(name, dbus.NameFlagDoNotQueue)
		labtest.Must(d.t, err)
		if reply != dbus.RequestNameReplyPrimaryOwner {
			d.t.Fatalf("%s is somebody else's", name)
		}
	}
}

// panelService is StatusNotifierWatcher as far as items know it.
type panelService struct{ d *desktop }

// RegisterStatusNotifierItem is called by items.
func (s panelService) RegisterStatusNotifierItem(from dbus.Sender, _ string) *dbus.Error {
	s.d.panels <- string(from)
	return nil
}

// noteService is the Desktop Notifications Specification as far as it is used.
type noteService struct{ d *desktop }

// Notify is called by programs that have something to tell.
func (s noteService) Notify(_ string, replaces uint32, _, summary, body string, _ []string, hints map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	urgency, _ := hints["urgency"].Value().(byte)
	s.d.notes <- shownNote{summary, body, replaces, urgency}
	return uint32(len(summary)), nil
}

// startTray runs the applet beside the program under test, which may lie where the user may not look.
func (d *desktop) startTray(g *gateway) {
	d.t.Helper()
	program, err := os.Open(filepath.Join(filepath.Dir(binary(d.t)), "tapgw-tray"))
	labtest.Must(d.t, err)
	defer program.Close()
	d.startWith([]*os.File{program}, "/proc/self/fd/3", "--socket", g.socket())
}

// applet is the item that a panel sees.
type applet struct {
	d    *desktop
	item dbus.BusObject
	menu dbus.BusObject
}

// startApplet runs the applet for a gateway until a panel hears of it.
func (d *desktop) startApplet(g *gateway) *applet {
	d.t.Helper()
	d.startTray(g)
	name := await(d.t, "the applet", d.panels)
	a := &applet{d: d, item: d.bus.Object(name, "/StatusNotifierItem")}
	path, ok := a.property("Menu").(dbus.ObjectPath)
	if !ok {
		d.t.Fatal("the item has no menu")
	}
	a.menu = d.bus.Object(name, path)
	return a
}

// property is one of the item.
func (a *applet) property(name string) any {
	a.d.t.Helper()
	v, err := a.item.GetProperty("org.kde.StatusNotifierItem." + name)
	labtest.Must(a.d.t, err)
	return v.Value()
}

// line is an entry of the menu, with what stands above it.
type line struct {
	id      int32
	path    string // labels, from the top
	enabled bool
	checked bool
}

// layout is an entry as menus send it.
type layout struct {
	ID       int32
	Props    map[string]dbus.Variant
	Children []dbus.Variant
}

// lines are all entries of the menu.
func (a *applet) lines() (list []line) {
	a.d.t.Helper()
	var revision uint32
	var root layout
	call := a.menu.Call("com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{})
	labtest.Must(a.d.t, call.Store(&revision, &root))
	return a.below(root, "")
}

func (a *applet) below(of layout, above string) (list []line) {
	for _, v := range of.Children {
		var child layout
		labtest.Must(a.d.t, dbus.Store([]any{v.Value()}, &child))
		label, _ := child.Props["label"].Value().(string)
		l := line{id: child.ID, path: above + label}
		l.enabled, _ = child.Props["enabled"].Value().(bool)
		state, _ := child.Props["toggle-state"].Value().(int32)
		l.checked = state == 1
		list = append(append(list, l), a.below(child, l.path+" / ")...)
	}
	return list
}

// find returns the first entry whose path has all parts.
func (a *applet) find(parts ...string) (line, bool) {
	a.d.t.Helper()
next:
	for _, l := range a.lines() {
		for _, part := range parts {
			if !strings.Contains(l.path, part) {
				continue next
			}
		}
		return l, true
	}
	return line{}, false
}

// await waits for an entry whose path has all parts.
func (a *applet) await(parts ...string) (found line) {
	a.d.t.Helper()
	eventually(a.d.t, fmt.Sprintf("the entry %q", parts), func() (ok bool) {
		found, ok = a.find(parts...)
		return ok
	})
	return found
}

// choose chooses an entry as a user does.
func (a *applet) choose(l line) {
	a.d.t.Helper()
	labtest.Must(a.d.t, a.menu.Call("com.canonical.dbusmenu.Event", 0, l.id, "clicked", dbus.MakeVariant(""), uint32(0)).Err)
}

// told is the next note, whose summary must be this.
func (d *desktop) told(summary string) shownNote {
	d.t.Helper()
	n := await(d.t, summary, d.notes)
	if n.summary != summary {
		d.t.Errorf("told %+v, not %q", n, summary)
	}
	return n
}
