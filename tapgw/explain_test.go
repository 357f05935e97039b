package tapgw

import (
	"math/rand/v2"
	"slices"
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// keyOf is the session that a frame of the inside begins.
func keyOf(frame []byte) nat.Key {
	var p packet.Packet
	p.Decode(frame[packet.VnetLen:])
	k, _ := nat.KeyOf(&p)
	return k
}

// TestExplainAgrees: what is explained is what then becomes of the packet, whatever the schedulers' turns, mappings and states.
func TestExplainAgrees(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	outcomes := map[Outcome]int{}
	for _, whenDown := range []int{policy.Refuse, 1, policy.Everything} {
		w := newResolving(t)
		w.ups[1].Tier = 0
		w.publish()
		remotes := []packet.Addr{server, resolver1, resolver2}
		p := grouped(whenDown)
		p.Groups[0].Scheduler, p.Groups[2].Members = "round-robin", append(p.Groups[2].Members, policy.Member{Name: "wan1", Tier: 1})
		p.Rules = append(p.Rules, policy.Rule{
			Name: "turns", Protocols: []uint8{packet.ProtoUDP}, Ports: []policy.PortRange{{First: 60, Last: 70}},
			Action: policy.Action{Group: 2, Scheduler: "weighted", WhenDown: whenDown},
		}, policy.Rule{Name: "direct", Ports: []policy.PortRange{{First: 80, Last: 90}}, Action: policy.Action{Group: 2, Direct: true, Scheduler: "failover", WhenDown: whenDown}})
		must(t, w.g.SetPlan(p))
		for i := range 2000 {
			for j := range w.ups {
				if random.IntN(20) == 0 {
					w.ups[j].State = []uplinks.State{uplinks.Up, uplinks.Up, uplinks.Down, uplinks.Degraded, uplinks.Probing}[random.IntN(5)]
					w.publish()
				}
			}
			port, to := 4000+uint16(random.IntN(200)), uint16(50+random.IntN(60))
			remote := remotes[random.IntN(len(remotes))]
			frame := udpFrame(t, inside, port, remote, to, "x")
			if random.IntN(2) == 0 {
				frame = tcpFrame(t, inside, port, remote, to, syn, "")
			}
			e := w.g.Explain(keyOf(frame), 0, start)
			outcomes[e.Outcome]++
			b := clone(frame)
			res := w.out(b)
			switch {
			case e.Outcome == Refused:
				w.expect(res, Drop, e.Refused)
			case res.Verdict != Send || res.Uplink != e.Uplink.ID:
				t.Fatalf("packet %d: %+v, explained as %s by %s", i, res, e.Outcome, e.Uplink.Name)
			}
			if e.Outcome == Placed {
				tr := w.table.Translation(w.table.FindOut(keyOf(frame)))
				if policy.Reason(tr.Reason) != e.Reason {
					t.Fatalf("packet %d: %s, explained as %s", i, policy.Reason(tr.Reason), e.Reason)
				}
			}
		}
	}
	for _, o := range []Outcome{Placed, Known, Mapped, Direct, Refused} {
		if outcomes[o] == 0 {
			t.Errorf("none was %s: %v", o, outcomes)
		}
	}
}

// TestExplanation: which rules were looked at, what the scheduler sees, and that nothing is opened.
func TestExplanation(t *testing.T) {
	w := newWorld(t)
	p := grouped(policy.Refuse)
	p.Rules = slices.Insert(p.Rules, 0, policy.Rule{Name: "tcp", Protocols: []uint8{packet.ProtoTCP}, Action: p.Rules[0].Action})
	must(t, w.g.SetPlan(p))
	k := nat.Key{Inside: inside, Remote: server, RemotePort: 53, Proto: packet.ProtoUDP}
	e := w.g.Explain(k, 0, start)
	if e.Outcome != Placed || e.Rule != 1 || !slices.Equal(e.Fails, []policy.Field{policy.ByProtocol}) || e.Group != 2 || len(e.Candidates) != 1 ||
		e.Uplink.ID != 2 || e.Scheduler != "failover" || w.table.Stats().Sessions != 0 {
		t.Errorf("%+v", e)
	}
	k.RemotePort = 54
	if e := w.g.Explain(k, 0, start); e.Rule != policy.NoRule || len(e.Fails) != 2 || e.Uplink.ID != 1 {
		t.Errorf("%+v", e)
	}
	k.Remote = wan1
	if e := w.g.Explain(k, 0, start); e.Outcome != Refused || e.Refused != BadAddress {
		t.Errorf("to an address of ours: %+v", e)
	}
	p.Rules[0].Number, p.Rules[0].Action.OnUplinkDown = 5, policy.KeepTCP
	must(t, w.g.SetPlan(p))
	k.Remote, k.Proto = server, packet.ProtoTCP
	if e := w.g.Explain(k, 0, start); e.Outcome != Placed || e.OnUplinkDown != policy.KeepTCP {
		t.Errorf("to be kept: %+v", e)
	}
	w.sent(w.out(tcpFrame(t, inside, 4000, server, 54, syn, "")), tcpFrame(t, inside, 4000, server, 54, syn, ""), 2)
	k.InsidePort = 4000
	must(t, w.g.SetPlan(policy.NewPlan("failover")))
	if e := w.g.Explain(k, 0, start); e.Outcome != Known || e.OnUplinkDown != policy.ResetTCP {
		t.Errorf("not to be kept any more: %+v", e)
	}
	k.Proto, k.Inside = packet.ProtoUDP, wan2
	if e := w.g.Explain(k, 0, start); e.Outcome != Own || e.Uplink.ID != 2 {
		t.Errorf("from an address of ours: %+v", e)
	}
}
