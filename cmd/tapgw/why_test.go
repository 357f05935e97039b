package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/api"
	"tapgw/internal/apiserver/apitest"
	"tapgw/internal/golden"
)

// answering is a daemon that gives one answer.
func answering(w api.Why) *fakeDaemon { return &fakeDaemon{Daemon: apitest.Daemon{Reply: w}} }

func placedWhy() api.Why {
	return api.Why{
		Host: true, Outcome: api.OutcomePlaced, Uplink: "fiber", Reason: "only candidate of the preferred tier", Group: "work",
		Rule: "video", Rules: []api.WhyRule{{Name: "vpn", Fails: "to"}, {Name: "video", Matches: true}}, Scheduler: "least-load", Stickiness: "site", OnUplinkDown: "keep",
		Uplinks: []api.WhyUplink{
			{Name: "fiber", State: "up", Candidate: true, ExpectBps: 42.1e6, Load: 0.61, Sessions: 128, RTTMs: 9.2, Chosen: true},
			{Name: "lte", Tier: 1, State: "up", Candidate: true, ExpectBps: 12e6, Sessions: 2, RTTMs: 48},
			{Name: "dsl", State: "down"},
		},
	}
}

func TestWhy(t *testing.T) {
	next := placedWhy()
	next.AskedFirst, next.Rule, next.Rules[1] = "home", "", api.WhyRule{Name: "video", Fails: "times"}
	refused := api.Why{Host: true, Outcome: api.OutcomeRefused, Reason: "no uplink of its group can be used, and no other group is to be asked", Group: "work", Uplinks: next.Uplinks[2:]}
	direct := placedWhy()
	direct.OnUplinkDown = ""
	direct.Outcome, direct.Scheduler, direct.Reason = api.OutcomeDirect, "", "the first uplink of the lowest tier that works"
	known := placedWhy()
	known.Outcome, known.Reason, known.Rules, known.Rule = api.OutcomeSession, "chosen by the scheduler", nil, ""
	evil := placedWhy()
	evil.Rules[0].Name, evil.Uplinks[0].Name, evil.Reason, evil.Group = "\x1b[2J", "\n", strings.Repeat("long\u009b ", 40), strings.Repeat("g", 90)
	for _, c := range []struct {
		name string
		why  api.Why
		args string
	}{
		{"why", placedWhy(), "why 93.184.216.34"},
		{"why.json", placedWhy(), "why 93.184.216.34:80 --json"},
		{"why-none.json", api.Why{}, "why 93.184.216.34:80 --json"},
		{"why-next", next, "why example.com:993 --from 192.168.1.20"},
		{"why-refused", refused, "why [2001:db8::1]:53 --proto udp"},
		{"why-direct", direct, "why 2001:db8::1 --proto icmp"},
		{"why-session", known, "why 93.184.216.34 --from 192.168.1.20:40000"},
		{"why-hostile", evil, "why 93.184.216.34"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(serve(t, answering(c.why)), strings.Fields(c.args)...)
			if code := w.run(); code != 0 || w.err.Len() > 0 {
				t.Errorf("exit status %d; stderr: %s", code, w.err.String())
			}
			golden.Text(t, filepath.Join("testdata", c.name), w.out.String())
			if strings.Contains(c.args, "--json") {
				checkJSON(t, w.out.String())
			} else {
				checkPlain(t, w.out.String())
			}
		})
	}
}

// TestWhyMisuse: what cannot be asked, and whom nobody can ask.
func TestWhyMisuse(t *testing.T) {
	unknown := answering(api.Why{})
	unknown.Err = fmt.Errorf("%w: this host knows no way to the client 10.9.9.9", api.ErrBadQuestion)
	socket := serve(t, unknown)
	for args, c := range map[string]struct {
		code int
		part string
	}{
		"why":                               {exitUsage, "accepts 1 arg"},
		"why nowhere.example":               {exitUsage, "no address"},
		"why 1.1.1.1:0":                     {exitUsage, `"0" is no port`},
		"why 1.1.1.1:x":                     {exitUsage, `"x" is no port`},
		"why 1:2:3":                         {exitUsage, "no address"},
		"why 1.1.1.1 --proto gre":           {exitUsage, "tcp, udp, icmp"},
		"why 1.1.1.1 --from laptop":         {exitUsage, "--from"},
		"why example.com --from 2001:db8::": {exitUsage, "client's family"},
		"why 1.1.1.1 --from 10.9.9.9":       {exitFailure, "no way to the client 10.9.9.9"},
	} {
		w := newWorld(socket, strings.Fields(args)...)
		if code := w.run(); code != c.code {
			t.Errorf("%s: exit status %d", args, code)
		}
		checkErrorLine(t, &w.err, c.part)
	}
	w := newWorld("/nonexistent/s", "why", "1.1.1.1")
	if code := w.run(); code != exitNoDaemon {
		t.Errorf("without a daemon: exit status %d", code)
	}
}

// resolveForTests knows one name.
func resolveForTests(_ context.Context, name string) ([]netip.Addr, error) {
	if name != "example.com" {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{netip.MustParseAddr("::ffff:93.184.216.34")}, nil
}
