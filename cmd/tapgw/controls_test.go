package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// commanded is a daemon that commands have changed in each way.
func commanded() *fakeDaemon {
	d := healthy()
	d.State.PausedUntil = noon.Add(4*time.Minute + 30*time.Second)
	d.State.Uplinks[0].Preferred, d.State.Pins = true, 2
	d.State.Uplinks[0].MeteredByCommand = true
	d.State.Uplinks[1].Metered, d.State.Uplinks[1].MeteredByCommand = true, true
	return d
}

// pinnedTwice has a pin with an end, and one of itself.
func pinnedTwice() *fakeDaemon {
	d := healthy()
	d.Pinned = []api.Pin{
		{Inside: netip.MustParseAddr("192.168.1.20"), Site: "example.com", Uplink: "wifi", Until: noon.Add(90 * time.Minute)}, {Uplink: "fiber"},
	}
	return d
}

// probed is a daemon with answers of every kind.
func probed() *fakeDaemon {
	d := healthy()
	d.Probes = []api.Probe{
		{Uplink: "fiber", Answers: []api.ProbeAnswer{
			{Family: api.FamilyIPv4, Target: "icmp://1.1.1.1", RTTMs: 8.94},
			{Family: api.FamilyIPv4, Target: "http://cp.cloudflare.com/generate_204", Error: "the page is http://login.example/, not what is expected there"},
			{Family: api.FamilyIPv6, Target: "dns://[2606:4700:4700::1111]/one.one.one.one?answer=2606:4700:4700::1111", RTTMs: 1234},
		}},
		{Uplink: "wifi", Answers: []api.ProbeAnswer{{Family: api.FamilyIPv4, Target: "icmp://1.1.1.1", Error: "no reply \x1b[2J"}}},
	}
	return d
}

func TestChangingTheDaemon(t *testing.T) {
	d := healthy()
	socket := serve(t, d)
	var want []string
	for _, c := range []struct{ args, says, call string }{
		{"uplink prefer wifi", "uplink wifi preferred\n", `prefer "wifi"`},
		{"uplink prefer --none", "no uplink preferred\n", `prefer ""`},
		{"uplink metered wifi on", "uplink wifi metered: on\n", "metered wifi on"},
		{"uplink metered fiber auto", "uplink fiber metered: auto\n", "metered fiber auto"},
		{"pin 192.168.1.20 wifi", "192.168.1.20 uses wifi; end that with: tapgw unpin 192.168.1.20\n", `pin 192.168.1.20 "" to wifi, false`},
		{
			"pin self example.com wifi --for 2h", "self example.com uses wifi for 2h0m; before that: tapgw unpin self example.com\n",
			`pin invalid IP "example.com" to wifi, true`,
		},
		{"unpin 2001:db8::7 10.0.0.0/8", "2001:db8::7 10.0.0.0/8 uses what is best again\n", `unpin 2001:db8::7 "10.0.0.0/8"`},
		{"pause", "paused for 5m0s; before that: tapgw resume\n", "pause 5m0s"},
		{"pause 90s", "paused for 1m30s; before that: tapgw resume\n", "pause 1m30s"},
		{"resume", "traffic is captured\n", "resume"},
	} {
		w := newWorld(socket, strings.Fields(c.args)...)
		if code := w.run(); code != 0 || w.out.String() != c.says {
			t.Errorf("%s: %d: %q %s", c.args, code, w.out.String(), w.err.String())
		}
		want = append(want, c.call)
	}
	if !slices.Equal(d.Calls(), want) {
		t.Errorf("%q", d.Calls())
	}
	for _, args := range []string{"uplink prefer dsl", "uplink metered dsl off", "pin self dsl", "exec --via dsl -- true", "probe dsl"} {
		unknownUplink(t, socket, strings.Fields(args)...)
	}
}

// TestExec: the command line goes on as it is once the daemon knows of it, and what cannot be run has the statuses of a shell.
func TestExec(t *testing.T) {
	d := healthy()
	socket := serve(t, d)
	for _, c := range []struct {
		args string
		err  error
		want []string
		code int
	}{
		{"exec --via wifi -- curl --via x --json", nil, []string{"curl", "--via", "x", "--json"}, 0},
		{"exec --via wifi curl -s", nil, []string{"curl", "-s"}, 0},
		{"exec --via wifi -- nothing", fs.ErrNotExist, []string{"nothing"}, exitNoCommand},
		{"exec --via wifi -- /etc", fs.ErrPermission, []string{"/etc"}, exitNotRun},
	} {
		w := newWorld(socket, strings.Fields(c.args)...)
		var got []string
		w.Exec = func(command []string) error { got = command; return c.err }
		if code := w.run(); code != c.code || !slices.Equal(got, c.want) {
			t.Errorf("%s: %d, %q: %s", c.args, code, got, w.err.String())
		}
	}
	if calls := d.Calls(); len(calls) != 4 || calls[0] != fmt.Sprintf("pin wifi %d", os.Getpid()) {
		t.Errorf("%q", calls)
	}
}

func TestFindingTheCommand(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "text"), nil, 0o644), os.WriteFile(filepath.Join(dir, "wrong"), []byte("\x00"), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for command, want := range map[string]int{
		"none": exitNoCommand, "text": exitNoCommand, dir + "/none": exitNoCommand, dir + "/text": exitNotRun, dir: exitNotRun, "wrong": exitNotRun,
	} {
		if got := codeOf(cannotRun(command, execProgram([]string{command}))); got != want {
			t.Errorf("%s: %d, want %d", command, got, want)
		}
	}
}

// TestWaitIsOverAtOnce where it is so already.
func TestWaitIsOverAtOnce(t *testing.T) {
	for _, c := range []asking{
		{healthy(), "wait", 0, "Internet: online (2 of 2 uplinks usable)\n"},
		{partial(), "wait --for partial", 0, "Internet: partial (3 of 7 uplinks usable)\n"},
		{partial(), "wait --for dsl", 0, "Internet: partial (3 of 7 uplinks usable)\n"},
		{partial(), "wait --timeout 50ms", exitTimeout, ""},
		{partial(), "wait --for lte --timeout 50ms", exitTimeout, ""},
		{offline(), "wait --for partial --timeout 50ms", exitTimeout, ""},
		{&fakeDaemon{}, "wait --timeout 50ms", exitTimeout, ""},
	} {
		w := newWorld(serve(t, c.daemon), strings.Fields(c.args)...)
		if code := w.run(); code != c.code || w.out.String() != c.says {
			t.Errorf("%s: %d: %q %q", c.args, code, w.out.String(), w.err.String())
		}
		if c.code == exitTimeout {
			checkErrorLine(t, &w.err, "not reached in time", "tapgw status")
		}
	}
}
