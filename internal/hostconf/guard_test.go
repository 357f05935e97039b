package hostconf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// router is a host in a namespace of its own, with an uplink, a TAP and a LAN.
type router struct {
	t       *testing.T
	ns      *lab.Namespace
	journal string
	links   map[string]*lab.Link
}

func newRouter(t *testing.T) *router {
	r := &router{t: t, ns: labtest.Namespace(t, "router"), journal: filepath.Join(t.TempDir(), "undo.json"), links: make(map[string]*lab.Link)}
	other := labtest.Namespace(t, "other")
	for i, device := range []string{"wan0", "wan1", "tapgw0", "lan0"} {
		link, err := lab.Connect(lab.End{NS: r.ns, Device: device}, lab.End{NS: other, Device: device}, 0)
		r.must(err)
		r.links[device] = link
		r.set(device, "forwarding", "0")
		r.set(device, "rp_filter", []string{"0", "1", "1", "1"}[i])
	}
	r.set("all", "rp_filter", "0")
	return r
}

func (r *router) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) set(iface, setting, value string) {
	r.t.Helper()
	r.must(r.ns.Sysctl(sysctlPath(iface, setting), value))
}

func (r *router) expect(iface, setting, want string) {
	r.t.Helper()
	got, err := r.ns.ReadSysctl(sysctlPath(iface, setting))
	r.must(err)
	if got != want {
		r.t.Errorf("%s of %s is %s, want %s", setting, iface, got, want)
	}
}

// untouched checks the values of newRouter.
func (r *router) untouched() {
	r.t.Helper()
	for _, iface := range []string{"wan0", "wan1", "tapgw0", "lan0", "all"} {
		r.expect(iface, "forwarding", "0")
	}
	r.expect("wan0", "rp_filter", "0")
	r.expect("wan1", "rp_filter", "1")
	r.expect("tapgw0", "rp_filter", "1")
	r.emptied()
}

// emptied checks that the journal is gone.
func (r *router) emptied() {
	r.t.Helper()
	if _, err := os.Stat(r.journal); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("the journal is still there: %v", err)
	}
}

func (r *router) open() *Guard {
	r.t.Helper()
	g, err := Open(r.journal)
	r.must(err)
	return g
}

func (r *router) do(f func() error) {
	r.t.Helper()
	r.must(r.ns.Do(f))
}

// wanted is a state with a LAN host when there is one.
func (r *router) wanted(lanHost bool) Wanted {
	w := Wanted{TAP: "tapgw0", Upcall: "tapgw0u", Uplinks: []string{"wan0", "wan1"}}
	w.Facts.Links = []uplinks.Link{{Index: 7, Name: "lan0", Up: true}}
	w.Facts.Addresses = []uplinks.Address{{Index: 7, Prefix: netip.MustParsePrefix("192.168.1.1/24")}}
	if lanHost {
		w.Facts.Neighbours = []uplinks.Neighbour{{Index: 7, Addr: netip.MustParseAddr("192.168.1.2"), State: 2}}
	}
	return w
}

func TestLaptopIsNoRouter(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(false)) })
	for _, iface := range []string{"wan0", "wan1", "tapgw0", "lan0"} {
		r.expect(iface, "forwarding", "0")
	}
	r.expect("wan0", "rp_filter", "0")
	r.expect("wan1", "rp_filter", "2")
	r.expect("tapgw0", "rp_filter", "2")
	r.expect("lan0", "rp_filter", "1")
	if len(g.LAN()) > 0 || g.Forwarding("wan0") {
		t.Error("the laptop was taken for a router")
	}
	r.do(g.RestoreAll)
	r.untouched()
}

func TestForwardingForALAN(t *testing.T) {
	r := newRouter(t)
	r.set("wan1", "forwarding", "1")
	g := r.open()
	for range 2 {
		r.do(func() error { return g.Apply(r.wanted(true)) })
		for _, iface := range []string{"wan0", "wan1", "tapgw0", "lan0"} {
			r.expect(iface, "forwarding", "1")
		}
	}
	r.expect("all", "forwarding", "0")
	if len(g.LAN()) == 0 || !g.Forwarding("wan0") || g.Forwarding("wan1") {
		t.Errorf("LAN %t, ours on wan0 %t, on wan1 %t", len(g.LAN()) > 0, g.Forwarding("wan0"), g.Forwarding("wan1"))
	}

	quiet := r.wanted(false)
	r.do(func() error { return g.Apply(quiet) })
	r.expect("wan0", "forwarding", "1")
	quiet.Facts.Links = nil
	r.do(func() error { return g.Apply(quiet) })
	r.expect("wan0", "forwarding", "0")
	r.expect("wan1", "forwarding", "1")
	r.set("wan1", "forwarding", "0")
	r.do(g.RestoreAll)
	r.untouched()
}

// TestGlobalSwitch: whoever makes the host a router while we forward for a LAN, as Docker does, is not undone.
func TestGlobalSwitch(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	r.set("all", "forwarding", "1")
	expectAll := func(value string) {
		t.Helper()
		for _, iface := range []string{"wan0", "wan1", "tapgw0", "lan0"} {
			r.expect(iface, "forwarding", value)
		}
	}
	for range 2 {
		r.do(func() error { return g.Apply(r.wanted(true)) })
		expectAll("1")
	}
	if g.Forwarding("wan0") {
		t.Error("the user's forwarding is taken for ours")
	}
	r.set("all", "forwarding", "0")
	r.do(func() error { return g.Apply(r.wanted(true)) })
	expectAll("1")
	if !g.Forwarding("wan0") {
		t.Error("our forwarding is taken for the user's")
	}
	r.set("all", "forwarding", "1")
	r.do(g.RestoreAll)
	expectAll("1")
}

// TestCrash leaves the journal to another Guard, as tapgw cleanup does after kill -9.
func TestCrash(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	next := r.open()
	r.do(func() error { return next.Apply(r.wanted(true)) })
	if !next.Forwarding("wan0") {
		t.Error("the next process takes the forwarding of the crashed one for the user's")
	}
	r.do(r.open().RestoreAll)
	r.untouched()
}

func TestValuesOfOthersAreKept(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	r.set("tapgw0", "rp_filter", "0")
	r.do(g.RestoreAll)
	r.expect("tapgw0", "rp_filter", "0")
	r.set("tapgw0", "rp_filter", "1")
	r.untouched()
}

func TestDeviceComesBack(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	r.must(r.links["wan1"].Unplug())
	r.do(func() error { return g.Apply(r.wanted(true)) })
	r.must(r.links["wan1"].Replug())
	r.set("wan1", "rp_filter", "1")
	r.do(func() error { return g.Apply(r.wanted(true)) })
	r.expect("wan1", "rp_filter", "2")
	r.expect("wan1", "forwarding", "1")
	r.do(g.RestoreAll)
	r.untouched()
}

func TestDeviceGoneForever(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	for _, link := range r.links {
		r.must(link.Unplug())
	}
	r.do(g.RestoreAll)
	if _, err := os.Stat(r.journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is still there: %v", err)
	}
}

func TestUplinkNoMore(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	r.do(func() error { return g.Apply(r.wanted(true)) })
	w := r.wanted(true)
	w.Uplinks = w.Uplinks[:1]
	r.do(func() error { return g.Apply(w) })
	r.expect("wan1", "rp_filter", "1")
	r.expect("wan1", "forwarding", "0")
}

func TestWhatCannotBeUndoneIsRefused(t *testing.T) {
	r := newRouter(t)
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "kernel/hostname", "net/ipv4/conf/../ip_forward"} {
		r.do(func() error {
			if _, changes, err := (journal{}).plan([]setting{{path, "1"}}); err == nil || changes != nil {
				t.Errorf("%s would be set", path)
			}
			return nil
		})
	}
	r.do(func() error {
		_, changes, err := (journal{}).plan([]setting{{sysctlPath("nosuch", "forwarding"), "1"}})
		if changes != nil {
			t.Error("a device that does not exist would be changed")
		}
		return err
	})
}

// TestOneWrite: the journal is written once for all settings, before the first one.
func TestOneWrite(t *testing.T) {
	r := newRouter(t)
	g := r.open()
	writes := r.countWrites()
	for _, step := range []struct {
		what string
		w    Wanted
		want int
	}{
		{"first", r.wanted(true), 1},
		{"the same", r.wanted(true), 0},
		{"one set, others put back", Wanted{TAP: "tapgw0", Uplinks: []string{"wan0", "lan0"}}, 1},
	} {
		r.do(func() error { return g.Apply(step.w) })
		if n := writes(); n != step.want {
			t.Errorf("%s: the journal was written %d times, want %d", step.what, n, step.want)
		}
	}
	r.expect("lan0", "rp_filter", "2")
	r.expect("wan1", "rp_filter", "1")
	r.do(g.RestoreAll)
	r.untouched()
}

// countWrites returns a function that says how often the journal was replaced since it was called last.
func (r *router) countWrites() func() int {
	r.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	r.must(err)
	r.t.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(r.journal), unix.IN_MOVED_TO)
	r.must(err)
	return func() (n int) {
		buf := make([]byte, 64<<10)
		size, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return 0
		}
		r.must(err)
		return strings.Count(string(buf[:size]), filepath.Base(r.journal)+"\x00")
	}
}

// TestNoJournalNoChange: nothing is set that could not be written down.
func TestNoJournalNoChange(t *testing.T) {
	r := newRouter(t)
	file := filepath.Join(t.TempDir(), "file")
	r.must(os.WriteFile(file, nil, 0o600))
	g := &Guard{path: filepath.Join(file, "undo.json"), journal: journal{Version: journalVersion}}
	if err := r.ns.Do(func() error { return g.Apply(r.wanted(true)) }); err == nil {
		t.Error("a journal below a file was written")
	}
	if len(g.journal.Sysctls) != 0 {
		t.Error("what could not be written down is held for changed")
	}
	r.untouched()
}

func TestUnfinishedJournalsAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "undo.json")
	for _, name := range []string{"undo.json", ".undo.json.1", "undo.json.1", ".other.json.1"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := RemoveUnfinished(path)
	if err != nil || len(removed) != 1 || filepath.Base(removed[0]) != ".undo.json.1" {
		t.Errorf("removed %v, %v", removed, err)
	}
	if removed, err := RemoveUnfinished(filepath.Join(path, "nowhere", "undo.json")); len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
}
