package tapgw

import (
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/policy"
	"tapgw/uplinks"
)

// grouped is a plan of two groups: "one" of uplink 1, and "two" of uplink 2, with a rule for UDP to port 53 that uses "two".
func grouped(whenDown int) *policy.Plan {
	p := policy.NewPlan("failover")
	member := func(name string) policy.Group {
		return policy.Group{Name: name, Members: []policy.Member{{Name: name}}, Scheduler: "failover", WhenDown: policy.Refuse}
	}
	p.Groups = append(p.Groups, member("wan1"), member("wan2"))
	p.Rules = []policy.Rule{{
		Name: "dns", Number: 9, Ports: []policy.PortRange{{First: 53, Last: 53}}, Protocols: []uint8{packet.ProtoUDP},
		Action: policy.Action{Group: 2, Scheduler: "failover", WhenDown: whenDown},
	}}
	return p
}

// TestRules: a session goes where the first rule that matches says, and remembers which one that was.
func TestRules(t *testing.T) {
	w := newWorld(t)
	must(t, w.g.SetPlan(grouped(policy.Refuse)))
	for name, c := range map[string]struct {
		frame  []byte
		uplink uint8
		rule   uint32
	}{
		"ruled":           {udpFrame(t, inside, 4000, server, 53, "x"), 2, 9},
		"another port":    {udpFrame(t, inside, 4001, server, 54, "x"), 1, 0},
		"TCP":             {tcpFrame(t, inside, 4002, server, 53, syn, ""), 1, 0},
		"echo":            {echoFrame(t, inside, server, packet.ICMPEcho, 53, "x"), 1, 0},
		"the host itself": {udpFrame(t, tapIP, 4003, server, 53, "x"), 2, 9},
	} {
		b := clone(c.frame)
		w.sent(w.out(b), b, c.uplink)
		if got := w.ruleOf(c.frame); got != c.rule {
			t.Errorf("%s: rule %d", name, got)
		}
	}
}

// ruleOf is the rule of the session that a frame of the inside belongs to.
func (w *world) ruleOf(frame []byte) (rule uint32) {
	var p packet.Packet
	p.Decode(frame[packet.VnetLen:])
	for i := range w.table.Sessions {
		if i.Inside == p.Src && i.InsidePort == p.SrcPort {
			rule = i.Rule
		}
	}
	return rule
}

// TestMappingsOutliveRules: an endpoint keeps its mapping whatever the rules say of other remotes, and sessions go on.
func TestMappingsOutliveRules(t *testing.T) {
	w := newWorld(t)
	before := udpFrame(t, inside, 4000, server, 53, "x")
	w.open(before)
	must(t, w.g.SetPlan(grouped(policy.Refuse)))
	for _, f := range [][]byte{before, udpFrame(t, inside, 4000, router, 53, "x")} {
		b := clone(f)
		w.sent(w.out(b), b, 1)
	}
	b := udpFrame(t, inside, 4001, server, 53, "x")
	w.sent(w.out(b), b, 2)
}

// TestGroupDown: what becomes of the sessions of a group without a usable uplink, and what their senders are told.
func TestGroupDown(t *testing.T) {
	udp := udpFrame(t, inside, 4000, server, 53, "x")
	for name, c := range map[string]struct {
		whenDown int
		verdict  Verdict
		why      Reason
		code     int
	}{
		"refuse": {policy.Refuse, Drop, GroupDown, layers.ICMPv4CodeCommAdminProhibited},
		"next":   {1, Send, NoReason, -1},
		"any":    {policy.Everything, Send, NoReason, -1},
	} {
		w := newWorld(t)
		must(t, w.g.SetPlan(grouped(c.whenDown)))
		w.ups[1].State = uplinks.Down
		w.publish()
		res := w.out(clone(udp))
		w.expect(res, c.verdict, c.why)
		checkAnswer(t, res.Reply, c.code)
		if tr := w.table.Translation(1); res.Verdict == Send && (res.Uplink != 1 || policy.Reason(tr.Reason) != policy.ReasonNextGroup) {
			t.Errorf("%s: uplink %d, %s", name, res.Uplink, policy.Reason(tr.Reason))
		}
	}
}

// TestGroupDownResetsTCP: the application is told at once.
func TestGroupDownResetsTCP(t *testing.T) {
	w := newWorld(t)
	p := grouped(policy.Refuse)
	p.Rules[0].Protocols = nil
	must(t, w.g.SetPlan(p))
	w.ups[1].State = uplinks.Down
	w.publish()
	res := w.out(tcpFrame(t, inside, 4000, server, 53, syn, ""))
	w.expect(res, Drop, GroupDown)
	checkAnswer(t, res.Reply, -2)
}

// TestProbingGroup: an uplink that is not judged yet takes its group's sessions only where no group asked has a better one.
func TestProbingGroup(t *testing.T) {
	w := newWorld(t)
	w.ups[1].State = uplinks.Probing
	w.publish()
	must(t, w.g.SetPlan(grouped(policy.Everything)))
	b := udpFrame(t, inside, 4000, server, 53, "x")
	w.sent(w.out(b), b, 1)
	must(t, w.g.SetPlan(grouped(policy.Refuse)))
	b = udpFrame(t, inside, 4001, server, 53, "x")
	w.sent(w.out(b), b, 2)
}

// TestSchedulersOfRules: a rule's own scheduler has turns of its own.
func TestSchedulersOfRules(t *testing.T) {
	w := newWorld(t)
	w.ups[1].Tier = 0
	w.publish()
	p := grouped(policy.Refuse)
	p.Rules[0].Action = policy.Action{Group: policy.Everything, Scheduler: "round-robin", WhenDown: policy.Refuse}
	must(t, w.g.SetPlan(p))
	for i, want := range []uint8{1, 2, 1, 2} {
		if _, uplink := w.open(udpFrame(t, inside, 4000+uint16(i), server, 53, "x")); uplink != want {
			t.Errorf("session %d by uplink %d", i, uplink)
		}
		if _, uplink := w.open(udpFrame(t, inside, 5000+uint16(i), server, 54, "x")); uplink != 1 {
			t.Errorf("session %d without a rule by uplink %d", i, uplink)
		}
	}
	p.Rules[0].Action.Scheduler = "fastest"
	if w.g.SetPlan(p) == nil {
		t.Error("an unknown scheduler was taken")
	}
}

// TestRulesSeeTheFirstPacket: its DSCP, and what time it is.
func TestRulesSeeTheFirstPacket(t *testing.T) {
	w := newWorld(t)
	p := grouped(policy.Refuse)
	p.Rules[0].DSCP = []uint8{46}
	p.Rules[0].Times = []policy.Span{{Days: policy.EveryDay, First: 60, Last: 120}}
	must(t, w.g.SetPlan(p))
	marked := func(port uint16) []byte {
		b := udpFrame(t, inside, port, server, 53, "x")
		b[packet.VnetLen+packet.EthernetLen+1] = 46<<2 | 1
		return b
	}
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		frame  []byte
		at     time.Duration
		uplink uint8
	}{
		{marked(1), 90 * time.Minute, 2}, {marked(2), 120 * time.Minute, 1}, {udpFrame(t, inside, 3, server, 53, "x"), 90 * time.Minute, 1},
	} {
		w.g.SetTime(day.Add(c.at))
		if res := w.out(c.frame); res.Verdict != Send || res.Uplink != c.uplink {
			t.Errorf("%d: %+v", i, res)
		}
	}
}

// TestDirectByGroup: a rule may say by which uplinks packets leave as they are, and what to do when none works; what is for an address
// of ours never leaves so.
func TestDirectByGroup(t *testing.T) {
	w := newWorld(t)
	p := grouped(policy.Refuse)
	p.Rules[0].Action.Direct = true
	must(t, w.g.SetPlan(p))
	frame := udpFrame(t, inside, 4000, server, 53, "x")
	b := clone(frame)
	if s := w.sent(w.out(b), b, 2); s.src() != inside {
		t.Errorf("left as %v", s.src())
	}
	pieces := cut(t, udpFrame(t, inside, 4000, server, 53, "a datagram that is long enough for several pieces"), 16)
	for _, f := range pieces {
		b := clone(f)
		if s := w.sent(w.out(b), b, 2); s.src() != inside {
			t.Errorf("a piece left as %v", s.src())
		}
	}
	about := errorFrame(t, inside, server, udpFrame(t, server, 53, inside, 4000, "x"))
	w.sent(w.out(about), about, 2)
	w.ups[1].State = uplinks.Down
	w.publish()
	w.expect(w.out(clone(frame)), Drop, GroupDown)
	w.expect(w.out(udpFrame(t, inside, 4000, wan1, 53, "x")), Return, NoReason)
}
