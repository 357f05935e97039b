package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// served is a machine whose gateway runs as the package's service.
type served struct {
	world
	*machine
}

// serve boots a machine in the gateway of a topology, installs the package there and starts the service.
func serve(t *testing.T) (s served, before lab.State) {
	t.Helper()
	return serveBeside(t, func(*machine, *lab.Topology) {})
}

// serveBeside is serve on a machine that something else manages already, with folders laid over its system.
func serveBeside(t *testing.T, manage func(*machine, *lab.Topology), over ...string) (s served, before lab.State) {
	t.Helper()
	topology := labtest.Build(t, lab.Options{RPFilter: 1})
	labtest.Servers(t, topology)
	m := bootMachine(t, topology.Gateway, over...)
	manage(m, topology)
	m.run("dpkg", "--install", m.give(built(t, "tapgw_", ".deb")))
	before = labtest.Snapshot(t, topology.Gateway)
	m.write("/etc/systemd/system/tapgw.service.d/lab.conf", "[Service]\nWatchdogSec=8s\n")
	m.write(conffile, inTurn)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "enable", "--now", "tapgw")
	g := m.service()
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	return served{w, m}, before
}

// mainPID is the daemon's process, as the machine sees it.
func (s served) mainPID() string { s.t.Helper(); return s.show("tapgw", "MainPID") }

// awaitAnother waits until another process than that serves.
func (s served) awaitAnother(pid string) {
	s.t.Helper()
	eventually(s.t, "another process", func() bool {
		now := s.mainPID()
		return now != "0" && now != pid && s.show("tapgw", "SubState") == "running"
	})
}

// carries fails the test unless new connections of host and LAN go by both uplinks.
func (s served) carries(when string) {
	s.t.Helper()
	for _, ns := range []*lab.Namespace{s.lan, s.Gateway} {
		by := make(map[string]bool)
		for range 4 {
			v := visitFor(ns, s.family.servers[0], visitPatience)
			if v.err != nil {
				s.t.Errorf("%s %s is offline: %v", when, ns.Name(), v.err)
			}
			by[v.outside.String()] = true
		}
		if len(by) != 2 {
			s.t.Errorf("%s %s goes by %v", when, ns.Name(), by)
		}
	}
}

// TestService: under systemd, as its own user with no more rights than the unit gives, the gateway does its work in the kernel and in
// userspace, tells how it is, reloads, and is started again when it hangs or dies.
func TestService(t *testing.T) {
	t.Parallel()
	s, before := serve(t)
	if got := s.status(); got.Datapath != api.DatapathKernel {
		t.Errorf("the datapath is %s: %s", got.Datapath, got.DatapathReason)
	}
	if user := s.sh("stat -c %U /proc/$(systemctl show --value --property=MainPID tapgw)"); user != "tapgw" {
		t.Errorf("it runs as %s", user)
	}
	s.carries("in the kernel")
	eventually(t, "a status", func() bool { return strings.HasPrefix(s.show("tapgw", "StatusText"), "2 of 2 uplinks usable, ") })
	s.reloads()
	s.survives()

	s.write("/etc/systemd/system/tapgw.service.d/userspace.conf", "[Service]\nEnvironment=TAPGW_DATAPATH_MODE=userspace\n")
	s.run("systemctl", "daemon-reload")
	s.run("systemctl", "restart", "tapgw")
	s.awaitUp(s.Topology)
	if got := s.status(); got.Datapath != api.DatapathUserspace {
		t.Errorf("the datapath is %s", got.Datapath)
	}
	s.carries("in userspace")

	s.run("systemctl", "stop", "tapgw")
	if result := s.show("tapgw", "Result"); result != "success" {
		t.Errorf("the service ended with %s", result)
	}
	labtest.Unchanged(t, s.Gateway, before)
	s.expectUsageKept()
	s.expectRemoved(before)
	if log, err := s.try("journalctl", "--unit=tapgw", "--case-sensitive=no", "--grep=not permitted|permission denied"); err == nil {
		t.Errorf("the journal has\n%s", log)
	}
}

// reloads expects of `systemctl reload` that it fails for a bad file and takes a good one.
func (s served) reloads() {
	s.t.Helper()
	pid := s.mainPID()
	s.write(conffile, "policy: {scheduler: worst}\n")
	if out, err := s.try("systemctl", "reload", "tapgw"); err == nil {
		s.t.Errorf("a bad file is taken: %s", out)
	}
	s.write(conffile, preferFirst)
	s.run("systemctl", "reload", "tapgw")
	config, err := s.client.Config(s.t.Context())
	if err != nil || !strings.Contains(string(config), "failover") {
		s.t.Errorf("the new file is not in force: %v", err)
	}
	s.write(conffile, inTurn)
	s.run("systemctl", "reload", "tapgw")
	if now := s.mainPID(); now != pid || s.show("tapgw", "ActiveState") != "active" {
		s.t.Errorf("process %s became %s, %s", pid, now, s.show("tapgw", "ActiveState"))
	}
}

// survives expects a new process after one that hangs and one that is killed, and no traffic lost for long.
func (s served) survives() {
	s.t.Helper()
	for _, signal := range []string{"STOP", "KILL"} {
		pid, began := s.mainPID(), time.Now()
		s.run("systemctl", "kill", "--signal="+signal, "tapgw")
		s.awaitAnother(pid)
		s.t.Logf("another process %s after SIG%s", time.Since(began).Round(time.Millisecond), signal)
		s.awaitUp(s.Topology)
		s.carries("after SIG" + signal)
	}
}

// expectRemoved purges the package while the service runs, and expects the host as it was.
func (s served) expectRemoved(before lab.State) {
	s.t.Helper()
	s.run("systemctl", "start", "tapgw")
	s.run("dpkg", "--purge", "tapgw")
	labtest.Unchanged(s.t, s.Gateway, before)
	if out, err := s.try("systemctl", "cat", "tapgw"); err == nil {
		s.t.Errorf("after the purge there is\n%s", out)
	}
}

// expectUsageKept expects what the uplinks used to be kept, for nobody else to read.
func (s served) expectUsageKept() {
	s.t.Helper()
	info, err := os.Stat(s.path("/var/lib/tapgw/usage.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		s.t.Errorf("the uplinks' usage: %v, %v", info, err)
	}
	if _, err := os.Stat(s.path("/run/tapgw/undo.json")); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("what to put back is still there: %v", err)
	}
}
