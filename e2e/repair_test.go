package e2e

import (
	"encoding/base64"
	native "encoding/binary"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// damage is something others do to what is ours.
type damage struct {
	name string
	do   func(*netlink.Handle) error
}

// tapDo acts on the TAP.
func tapDo(f func(h *netlink.Handle, tap netlink.Link) error) func(*netlink.Handle) error {
	return deviceDo("tapgw0", f)
}

func deviceDo(name string, f func(h *netlink.Handle, device netlink.Link) error) func(*netlink.Handle) error {
	return func(h *netlink.Handle) error {
		device, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return f(h, device)
	}
}

// removeRoutes deletes our routes of a table.
func removeRoutes(table int) func(*netlink.Handle) error {
	return func(h *netlink.Handle) error {
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table, Protocol: uplinks.Protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if len(routes) == 0 {
			return errors.Join(err, errors.New("no route of ours"))
		}
		for i := range routes {
			err = errors.Join(err, h.RouteDel(&routes[i]))
		}
		return err
	}
}

func removeRules(h *netlink.Handle) error {
	rules, err := h.RuleList(netlink.FAMILY_V4)
	for i := range rules {
		if p := rules[i].Priority; p >= uplinks.ResolverRule && p <= uplinks.RuleLast {
			err = errors.Join(err, h.RuleDel(&rules[i]))
		}
	}
	return err
}

const rulesDeleted = "rules deleted"

var damages = []damage{
	{"TAP deleted", tapDo((*netlink.Handle).LinkDel)},
	{"TAP set down", tapDo((*netlink.Handle).LinkSetDown)},
	{"TAP address flushed", tapDo(func(h *netlink.Handle, tap netlink.Link) error {
		addrs, err := h.AddrList(tap, netlink.FAMILY_V4)
		for i := range addrs {
			err = errors.Join(err, h.AddrDel(tap, &addrs[i]))
		}
		return err
	})},
	{"TAP neighbour deleted", tapDo(func(h *netlink.Handle, tap netlink.Link) error {
		entries, err := h.NeighList(tap.Attrs().Index, netlink.FAMILY_V4)
		for i := range entries {
			err = errors.Join(err, h.NeighDel(&entries[i]))
		}
		return err
	})},
	{"TAP MTU", tapDo(func(h *netlink.Handle, tap netlink.Link) error { return h.LinkSetMTU(tap, 576) })},
	{"default route deleted", removeRoutes(uplinks.TableMain)},
	{"uplink's routes deleted", removeRoutes(uplinks.TableBase)},
	{rulesDeleted, removeRules},
	{"give-back device deleted", deviceDo("tapgw0u", (*netlink.Handle).LinkDel)},
	{"give-back device set down", deviceDo("tapgw0u", (*netlink.Handle).LinkSetDown)},
}

// TestFault52_53_54_Repair is faults 52–54: whatever others do to what is ours is put back and told of, and sessions go on.
func TestFault52_53_54_Repair(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	// A packet that the host routes while the TAP is away is not ours to save; one of the LAN's is dropped, not sent as it is, and comes again.
	established := w.connect(w.lan, "wan1")
	inPlace := w.settledState()
	for _, d := range damages {
		if d.name == rulesDeleted && withoutRules(t) {
			continue
		}
		begun := time.Now()
		labtest.Must(t, d.do(w.Gateway.Handle()))
		talked := make(chan error, 1)
		go func() { talked <- established.talk() }()
		w.expectRepair(d.name, begun, inPlace)
		labtest.Must(t, <-talked)
		online(t, w.Gateway)
	}
	w.events.none(0, time.Time{}, leaves(api.StateUp))
}

// settledState is the gateway's state once what the LAN needs is in it, read twice as it cannot be read at one moment.
func (w world) settledState() (state lab.State) {
	w.t.Helper()
	eventually(w.t, "rules for the LAN", func() bool {
		before := w.state()
		state = w.state()
		return slices.Equal(before, state) &&
			slices.ContainsFunc(state, func(line string) bool { return strings.Contains(line, "tapgw_fallback forward") })
	})
	return state
}

// expectRepair waits until the gateway's state is as it was and an event says so.
func (w world) expectRepair(name string, begun time.Time, want lab.State) {
	w.t.Helper()
	told := w.events.await("repair of "+name, begun, isRepair)
	w.t.Logf("%s: repaired after %s: %s", name, told.Time.Sub(begun).Round(time.Millisecond), told.Message)
	var removed, added []string
	eventually(w.t, "repair of "+name, func() bool {
		removed, added = lab.Diff(want, w.state())
		return len(removed)+len(added) == 0 || time.Since(begun) > repairBound
	})
	if len(removed)+len(added) > 0 {
		w.t.Errorf("%s: not repaired: missing %q, new %q", name, removed, added)
	}
	if told.Time.Sub(begun) > repairBound {
		w.t.Errorf("%s: repaired only after %s", name, told.Time.Sub(begun))
	}
}

// awaitAsBefore waits until the gateway's state is as it was.
func (w world) awaitAsBefore(before lab.State) {
	w.t.Helper()
	var removed, added []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if removed, added = lab.Diff(before, w.state()); len(removed)+len(added) == 0 {
			return
		}
	}
	w.t.Errorf("not as before: missing %q, new %q", removed, added)
}

// state is that of the gateway, without the index of the TAP in rules, which another one does not have.
func (w world) state() (state lab.State) {
	w.t.Helper()
	index, err := w.Gateway.Index("tapgw0")
	if err != nil { // deleted, and not yet made anew
		return labtest.Snapshot(w.t, w.Gateway)
	}
	data := base64.StdEncoding.EncodeToString(native.NativeEndian.AppendUint32(nil, uint32(index)))
	for _, line := range labtest.Snapshot(w.t, w.Gateway) {
		state = append(state, strings.ReplaceAll(line, `"Data":"`+data+`"`, `"Data":"the TAP"`))
	}
	return state
}

// withoutRules reports whether routing between ordinary uplinks does without rules, as the kernel's datapath does.
func withoutRules(t testing.TB) bool { t.Helper(); return datapath(t) == api.DatapathKernel }

// TestRenamedTAP: a TAP with another name stays the TAP.
func TestRenamedTAP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	established := w.connect(w.lan, "wan1")
	begun := time.Now()
	labtest.Must(t, tapDo(func(h *netlink.Handle, tap netlink.Link) error { return h.LinkSetName(tap, "other0") })(w.Gateway.Handle()))
	w.events.await("a new name", begun, isRepair)
	labtest.Must(t, established.talk())
	online(t, w.Gateway)
	online(t, w.lan)
}

// TestFlushedRuleset: what the owner flag does not protect is put back.
func TestFlushedRuleset(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	eventually(t, "rules for the LAN", func() bool { return w.hasTable("tapgw_fallback") })
	inPlace := w.settledState()
	begun := time.Now()
	conn, err := nftables.New(nftables.WithNetNSFd(w.Gateway.FD()))
	labtest.Must(t, err)
	conn.FlushRuleset()
	labtest.Must(t, conn.Flush())
	w.expectRepair("ruleset", begun, inPlace)
	online(t, w.lan)
}

func (w world) hasTable(name string) bool {
	conn, err := nftables.New(nftables.WithNetNSFd(w.Gateway.FD()))
	labtest.Must(w.t, err)
	tables, err := conn.ListTables()
	labtest.Must(w.t, err)
	for _, t := range tables {
		if t.Name == name {
			return true
		}
	}
	return false
}

// TestBounceIsNoAttack: devices that are switched off and on by their owner take our routes with them, and nobody is accused.
func TestBounceIsNoAttack(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	link, err := w.Gateway.Handle().LinkByName("wan1")
	labtest.Must(t, err)
	for range 3 {
		begun := time.Now()
		labtest.Must(t, errors.Join(w.Gateway.Handle().LinkSetDown(link), w.Gateway.Handle().LinkSetUp(link), first.AddRoutes()))
		visits := keepVisiting(t, w.lan)
		visits.by(first.Addr(), time.Now())
		visits.stop()
		w.events.none(0, begun, isRepair)
	}
}

// TestFault54_Rival: somebody who removes our route whenever he sees it does not make us as frantic as him.
func TestFault54_Rival(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	routes, done := make(chan netlink.RouteUpdate, 1024), make(chan struct{})
	labtest.Must(t, w.Gateway.Do(func() error { return netlink.RouteSubscribe(routes, done) }))
	remove := removeRoutes(uplinks.TableMain)
	begun := time.Now()
	labtest.Must(t, remove(w.Gateway.Handle()))
	removed := 1
	for over := time.After(3 * time.Second); over != nil; {
		select {
		case r := <-routes:
			if r.Type == unix.RTM_NEWROUTE && r.Protocol == uplinks.Protocol && remove(w.Gateway.Handle()) == nil {
				removed++
			}
		case <-over:
			over = nil
		}
	}
	close(done)
	t.Logf("removed %d times in 3 s", removed)
	if removed > 30 {
		t.Errorf("put back %d times in 3 s", removed)
	}
	ended := time.Now()
	eventually(t, "capture", w.captures)
	if took := time.Since(ended); took > repairBound {
		t.Errorf("put back only %s after the rival left", took)
	}
	w.events.await("repair", begun, isRepair)
	online(t, w.lan)
}

// captures reports whether the gateway's own traffic goes into the TAP.
func (w world) captures() bool {
	routes, err := w.Gateway.Handle().RouteGet(lab.ServerAddrs[0].AsSlice())
	tap, missing := w.Gateway.Index("tapgw0")
	return err == nil && missing == nil && routes[0].LinkIndex == tap
}

// TestPaused is faults 47 and 58: a daemon that did not run for a while takes no uplink down, and sessions live.
func TestPaused(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	begun := time.Now()
	w.signal(syscall.SIGSTOP)
	talked := make(chan error, 1)
	go func() { talked <- onFirst.talk() }()
	<-time.After(3 * time.Second) // the pause is what is tested
	w.signal(syscall.SIGCONT)
	labtest.Must(t, <-talked)
	labtest.Must(t, onSecond.talk())
	w.events.none(2*time.Second, begun, leaves(api.StateUp))
}
