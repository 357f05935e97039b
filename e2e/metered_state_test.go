package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks/usage"
)

// correct says what an uplink has used.
func (g *gateway) correct(uplink, used string) {
	g.t.Helper()
	if out, status := g.tapgw("usage", uplink, "--set", used); status != 0 {
		g.t.Fatalf("status %d, %s", status, out)
	}
}

// smallDisk is one of 64 KiB with the daemon's state, in whose mount namespace it is.
type smallDisk struct {
	*gateway
	path string
}

// startOnSmallDisk is start with a disk that is soon full.
func startOnSmallDisk(t testing.TB, ns *lab.Namespace, config string) smallDisk {
	t.Helper()
	g, dir := newGateway(t, ns, datapath(t)), t.TempDir()
	g.write(config)
	g.execIn(fmt.Sprintf("mount -t tmpfs -o size=64k none %s\nexport STATE_DIRECTORY=%[1]s", dir))
	t.Cleanup(g.stop)
	g.await()
	return smallDisk{g, fmt.Sprintf("/proc/%d/root%s", g.daemon.PID(), dir)}
}

// fill leaves no room until the function that it returns.
func (d smallDisk) fill() (clear func()) {
	d.t.Helper()
	file := filepath.Join(d.path, "full")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("the disk is not full: %v", err)
	}
	return func() { d.t.Helper(); labtest.Must(d.t, os.Remove(file)) }
}

// tried says what an uplink has used, and waits until the daemon has tried to write it down.
func (d smallDisk) tried(uplink, used string) {
	d.t.Helper()
	before, err := os.Stat(d.path)
	labtest.Must(d.t, err)
	d.correct(uplink, used)
	eventually(d.t, "a file being written", func() bool {
		now, err := os.Stat(d.path)
		return err == nil && now.ModTime().After(before.ModTime())
	})
}

// written is what the file says that an uplink has used.
func (d smallDisk) written(uplink string) uint64 {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.path, "usage.json"))
	labtest.Must(d.t, err)
	ledger, err := usage.Parse(text)
	labtest.Must(d.t, err)
	return ledger.Of(time.Now(), uplink).Used
}

// TestFault51_FullDisk: what uplinks use is counted on while the disk is full, which the log says once; the file is whole at any time,
// and written again as soon as there is room.
func TestFault51_FullDisk(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	d := startOnSmallDisk(t, topology.Gateway, capped("20GB"))
	d.awaitUp(topology)
	w := world{d.gateway, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	established := w.connect(w.lan, "wan2")
	between := func(what string, used, least uint64) {
		t.Helper()
		if used < least || used > least+1e9/2 {
			t.Errorf("%s: %d bytes, want a few more than %d", what, used, least)
		}
	}
	d.correct("wan2", "1GB")
	eventually(t, "the file", func() bool { return d.written("wan2") >= 1e9 })
	for told := 1; told <= 2; told++ {
		clear := d.fill()
		kept := d.written("wan2")
		for _, used := range []string{"2GB", "3GB"} {
			d.tried("wan2", used)
		}
		labtest.Must(t, established.carry(1_000_000))
		eventually(t, "the count", func() bool { return w.usage("wan2").UsedBytes >= 3e9+2e6 })
		if d.written("wan2") != kept {
			t.Errorf("the file says %d, before the disk was full %d", d.written("wan2"), kept)
		}
		if n := d.said("is not written down", "no space left"); n != told {
			t.Errorf("full for the %d. time, the log has said so %d times", told, n)
		}
		clear()
		d.tried("wan2", "4GB")
		eventually(t, "the file", func() bool { return d.written("wan2") >= 4e9 })
		between("with room again", d.written("wan2"), 4e9)
	}
	between("the status", w.usage("wan2").UsedBytes, 4e9)
}

// TestMeteredNewPeriod: an uplink whose cap was reached takes sessions again in the period that follows.
func TestMeteredNewPeriod(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, capped("1GB"))
	w.correct("wan2", "1GB")
	w.expectOnly(w.Uplinks[0])
	w.stop()
	file := filepath.Join(w.dir, "usage.json")
	text, err := os.ReadFile(file)
	labtest.Must(t, err)
	past := regexp.MustCompile(`"\d{4}-\d\d-\d\d"`).ReplaceAll(text, []byte(`"2026-01-01"`)) // as if all that were of long ago
	if string(past) == string(text) {
		t.Fatalf("no period in %s", text)
	}
	labtest.Must(t, os.WriteFile(file, past, 0o600))
	w.restart()
	w.awaitUp(w.Topology)
	if u := w.usage("wan2"); u.State != api.UsageOK || u.UsedBytes > 1e8 || !u.ResetsAt.After(time.Now()) {
		t.Errorf("%+v", u)
	}
	w.meetLAN()
	w.connect(w.lan, "wan2")
}

// TestMeteredStoppedStandIn: what is under way goes on when the cap is reached while no other uplink works, and nothing new is begun. When
// a better one works again connections stay, and all else leaves with its next packet, as there is nothing to wait for.
func TestMeteredStoppedStandIn(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, fmt.Sprintf("uplinks: [{interface: wan1}, {interface: wan2, metered: {cap: 1GB, billing_day: %d}}]\n", min(time.Now().Day(), 28)))
	first, second := w.Uplinks[0], w.Uplinks[1].Addr()
	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	by := func(want netip.Addr, when string) {
		t.Helper()
		if outside, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "hello"); err != nil || outside.Addr() != want {
			t.Errorf("%s a datagram went by %s (%v), want %s", when, outside, err, want)
		}
	}
	begun := time.Now()
	labtest.Must(t, first.Link.Cut())
	w.events.state("wan1", api.StateDown, begun)
	by(second, "with the stand-in")
	established := w.connect(w.lan, "wan2")

	w.correct("wan2", "1GB")
	w.events.state("wan2", api.StateDisabled, begun)
	by(second, "with the cap reached")
	labtest.Must(t, established.talk())
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		if _, err := ns.WhoAmI(labtest.Context(t), lab.ServerAddrs[0]); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("a new connection of %s got %v", ns.Name(), err)
		}
	}
	healed := time.Now()
	labtest.Must(t, first.Link.Mend())
	w.events.state("wan1", api.StateUp, healed)
	by(first.Addr(), "with the first uplink again")
	labtest.Must(t, established.talk())
	if s, ok := w.session("tcp", portOf(established)); !ok || s.Uplink != "wan2" {
		t.Errorf("the connection is by %+v", s)
	}
	w.expectOnly(first)
}
