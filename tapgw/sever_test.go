package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// converseBy opens a TCP session, which must take an uplink, and answers it.
func (w *world) converseBy(port uint16, uplink uint8) {
	w.t.Helper()
	syn := tcpFrame(w.t, inside, port, server, 80, packet.SYN, "")
	outside := w.sent(w.out(syn), syn, uplink)
	answer := tcpFrame(w.t, server, 80, outside.src(), uint16(outside.tcp.SrcPort), packet.SYN|packet.ACK, "")
	w.delivered(w.in(answer, uplink), answer)
	ack := tcpFrame(w.t, inside, port, server, 80, packet.ACK, "")
	w.sent(w.out(ack), ack, uplink)
}

// TestSevered: segments of connections on a dead uplink are answered with a reset at the number that the inside names, and what
// moves or waits on that uplink does so as before.
func TestSevered(t *testing.T) {
	w := newWorld(t)
	w.converseBy(4000, 1)
	syn := tcpFrame(t, inside, 4001, server, 80, packet.SYN, "")
	w.sent(w.out(clone(syn)), clone(syn), 1)
	w.ups[0].State = uplinks.Down
	w.publish()
	data := tcpFrame(t, inside, 4000, server, 80, packet.ACK, "data")
	w.expect(w.out(clone(data)), Send, NoReason) // it waits until it is severed
	w.g.SetSevered(1, true)
	res := w.out(clone(data))
	w.expect(res, Drop, NotSYN)
	sent, reset := look(t, data), look(t, res.Reply)
	if !reset.tcp.RST || reset.tcp.Seq != sent.tcp.Ack || reset.src() != server || reset.dst() != inside {
		t.Errorf("answer %+v", reset.tcp)
	}
	moved := clone(syn)
	w.sent(w.out(moved), moved, 2)
	w.g.SetSevered(1, false)
	w.expect(w.out(data), Send, NoReason)
}

// onDown is a plan under which TCP fares so when its uplink is down.
func onDown(what policy.OnUplinkDown) *policy.Plan {
	p := policy.NewPlan("failover")
	p.OnUplinkDown = what
	return p
}

// TestTCPWaits: where all TCP is to wait, a SYN does too.
func TestTCPWaits(t *testing.T) {
	for what, by := range map[policy.OnUplinkDown]uint8{policy.ResetTCP: 2, policy.MoveUnanswered: 2, policy.KeepTCP: 1} {
		w := newWorld(t)
		must(t, w.g.SetPlan(onDown(what)))
		syn := tcpFrame(t, inside, 4000, server, 80, packet.SYN, "")
		w.sent(w.out(clone(syn)), clone(syn), 1)
		w.ups[0].State = uplinks.Down
		w.publish()
		if res := w.out(syn); res.Verdict != Send || res.Uplink != by {
			t.Errorf("under %s a SYN goes by %d, want %d", what, res.Uplink, by)
		}
	}
}

// ruledDown is a plan under which connections to a port fare in a way of their own when their uplink is down.
func ruledDown(all policy.OnUplinkDown, port uint16, own policy.OnUplinkDown) *policy.Plan {
	p := onDown(all)
	p.Rules = []policy.Rule{{
		Name: "own", Number: 7, Ports: []policy.PortRange{{First: port, Last: port}},
		Action: policy.Action{Group: policy.Everything, Scheduler: "failover", WhenDown: policy.Refuse, OnUplinkDown: own},
	}}
	return p
}

// TestSeveredByRule: what a rule says counts for the connections that it placed, also once another plan is in force, as long as
// that has the rule.
func TestSeveredByRule(t *testing.T) {
	for name, c := range map[string]struct {
		later         *policy.Plan // nil for the same
		ruled, others bool         // severed
	}{
		"the same":         {nil, false, true},
		"another port":     {ruledDown(policy.ResetTCP, 81, policy.KeepTCP), false, true},
		"says otherwise":   {ruledDown(policy.KeepTCP, 80, policy.ResetTCP), true, false},
		"says nothing":     {ruledDown(policy.KeepTCP, 80, ""), false, false},
		"the rule is gone": {onDown(policy.ResetTCP), true, true},
	} {
		w := newWorld(t)
		must(t, w.g.SetPlan(ruledDown(policy.ResetTCP, 80, policy.MoveUnanswered)))
		w.converseBy(4000, 1)
		if c.later != nil {
			must(t, w.g.SetPlan(c.later))
		}
		key := nat.Key{Inside: inside, Remote: server, InsidePort: 4000, RemotePort: 80, Proto: packet.ProtoTCP}
		tr := w.table.Translation(w.table.FindOut(key))
		if ruled, others := w.g.Severs(&tr, 7), w.g.Severs(&tr, 0); ruled != c.ruled || others != c.others || w.g.SeversAny() != (c.ruled || c.others) {
			t.Errorf("%s: severed: %v of the rule, %v of others", name, ruled, others)
		}
		w.ups[0].State = uplinks.Down
		w.publish()
		w.g.SetSevered(1, true)
		want, why := Send, NoReason
		if c.ruled {
			want, why = Drop, NotSYN
		}
		w.expect(w.out(tcpFrame(t, inside, 4000, server, 80, packet.ACK, "data")), want, why)
	}
}

// TestResets: one at the number the inside named last, and one at the end of what it was sent where that is another.
func TestResets(t *testing.T) {
	w := newWorld(t)
	key := nat.Key{Inside: inside, Remote: server, InsidePort: 4000, RemotePort: 80, Proto: packet.ProtoTCP}
	for _, c := range []struct {
		s    nat.Severed
		want []uint32
		hop  uint8
	}{
		{nat.Severed{Key: key, Hop: 3, Next: 901, End: 901}, []uint32{901}, 3},
		{nat.Severed{Key: key, Hop: nat.HopDevice, Next: 901, End: 2361}, []uint32{901, 2361}, 0},
	} {
		var got []uint32
		w.g.Resets(&c.s, func(hop uint8, frame []byte) {
			s := look(t, frame)
			got = append(got, s.tcp.Seq)
			if hop != c.hop || !s.tcp.RST || s.src() != server || s.dst() != inside || s.tcp.SrcPort != 80 || s.tcp.DstPort != 4000 {
				t.Errorf("by hop %d: %+v", hop, s.tcp)
			}
		})
		if len(got) != len(c.want) || got[0] != c.want[0] || got[len(got)-1] != c.want[len(c.want)-1] {
			t.Errorf("resets at %v, want %v", got, c.want)
		}
	}
}
