package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// command runs one that must succeed.
func (w world) command(args ...string) string {
	w.t.Helper()
	out, status := w.tapgw(args...)
	if status != 0 {
		w.t.Fatalf("tapgw %v: status %d, %s", args, status, out)
	}
	return out
}

// expectBoth fails the test unless new sessions take turns on the uplinks.
func (w world) expectBoth() {
	w.t.Helper()
	by := map[string]int{}
	for range 4 {
		v := visitFor(w.lan, w.family.servers[0], visitPatience)
		labtest.Must(w.t, v.err)
		by[v.outside.String()]++
	}
	if len(by) < 2 {
		w.t.Errorf("all sessions by one uplink: %v", by)
	}
}

// TestPreferredUplink: new sessions use it whatever tier it has, others while it is down, over a reload, and not where a rule sends them
// elsewhere.
func TestPreferredUplink(t *testing.T) {
	t.Parallel()
	ruled := "groups: {other: {uplinks: [wan1]}}\nrules: [{name: away, to: [" + lab.ServerAddrs[1].String() + "], use: other}]\n"
	w := begin(t, lab.Options{}, preferFirst+ruled)
	first, second := w.Uplinks[0], w.Uplinks[1]
	w.expectOnly(first)
	begun := time.Now()
	w.command("uplink", "prefer", "wan2")
	w.events.await("a preference", begun, func(e api.Event) bool { return e.Kind == api.EventPrefer && e.Uplink == "wan2" })
	w.use(preferFirst + ruled)
	w.expectOnly(second)
	if v := visitFor(w.lan, lab.ServerAddrs[1], visitPatience); v.err != nil || v.outside != first.Addr() {
		t.Errorf("what a rule sends to the other: by %s, %v", v.outside, v.err)
	}
	if out := w.command("status"); !w.uplink("wan2").Preferred || !strings.Contains(out, "prefer --none") {
		t.Errorf("not shown:\n%s", out)
	}
	begun = time.Now()
	labtest.Must(t, second.Link.Cut())
	w.events.state("wan2", api.StateDown, begun)
	w.expectOnly(first)
	begun = time.Now()
	labtest.Must(t, second.Link.Mend())
	w.events.state("wan2", api.StateUp, begun)
	w.expectOnly(second)
	w.command("uplink", "prefer", "--none")
	w.expectOnly(first)
	if out, status := w.tapgw("uplink", "prefer", "wan9"); status != 10 || !strings.Contains(out, "wan1, wan2") {
		t.Errorf("status %d, %s", status, out)
	}
}

// TestMeteredByCommand: an uplink that is metered stands by, over a reload; one that is not has no cap.
func TestMeteredByCommand(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	w.expectBoth()
	w.command("uplink", "metered", "wan2", "on")
	w.use(inTurn)
	w.expectOnly(w.Uplinks[0])
	if u := w.uplink("wan2"); !u.Metered || !u.MeteredByCommand {
		t.Errorf("%+v", u)
	}
	w.command("uplink", "metered", "wan2", "auto")
	w.expectBoth()
	if u := w.uplink("wan2"); u.Metered || u.MeteredByCommand {
		t.Errorf("%+v", u)
	}
	w.use(capped("6MB"))
	w.command("usage", "wan2", "--set", "6MB")
	w.awaitState("wan2", api.StateDisabled)
	begun := time.Now()
	w.command("uplink", "metered", "wan2", "off")
	w.events.state("wan2", api.StateUp, begun)
	w.expectBoth()
	begun = time.Now()
	w.command("uplink", "metered", "wan2", "auto")
	w.events.state("wan2", api.StateDisabled, begun)
}

// TestProbeNow: each target's answer by each uplink, of one that works, one whose provider is dead and one without a cable.
func TestProbeNow(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	probe := func(want int, args ...string) (list []api.Probe) {
		t.Helper()
		out, status := w.tapgw(append([]string{"probe", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &list); err != nil || status != want {
			t.Fatalf("%v: status %d, want %d, %v: %s", args, status, want, err, out)
		}
		return list
	}
	list := probe(0)
	if len(list) != 2 || len(list[0].Answers) < 3 {
		t.Fatalf("%+v", list)
	}
	for _, p := range list {
		for _, a := range p.Answers {
			if a.Error != "" || a.RTTMs <= 0 || a.Family != api.FamilyIPv4 {
				t.Errorf("%s: %+v", p.Uplink, a)
			}
		}
	}
	labtest.Must(t, w.Uplinks[1].SetFaults(lab.Blackhole))
	list = probe(4)
	if a := list[1].Answers[0]; a.Error != "no reply" || a.RTTMs != 0 || list[0].Answers[0].Error != "" {
		t.Errorf("%+v", list)
	}
	probe(0, "wan1")
	begun := time.Now()
	labtest.Must(t, w.Uplinks[1].Unplug())
	w.events.await("no interface", begun, func(e api.Event) bool { return e.Kind == api.EventVanished && e.Uplink == "wan2" })
	if list = probe(5, "wan2"); len(list) != 1 || list[0].Answers[0].Error == "" {
		t.Errorf("%+v", list)
	}
	if out, status := w.tapgw("probe", "wan9"); status != 10 {
		t.Errorf("status %d: %s", status, out)
	}
}
