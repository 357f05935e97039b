package tapgw

import (
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// pause is how long nothing passes in either direction at an endpoint that leaves an uplink under uplinks.OnRecoverDrain: longer
// than a call is silent.
const pause = 10 * time.Second

// endpoint is who has a mapping: its sessions stay together (RFC 4787 REQ-1).
type endpoint struct {
	inside packet.Addr
	port   uint16
	proto  uint8
}

// Recovered has those sessions of an uplink leave, as its OnRecover says, that would now take a better one by the rules and tiers
// that count for them. It returns the TCP sessions that it ended, whose inside ends Resets tells: none that was opened while the
// better one worked. now is also given as the time that Since of the uplinks is in.
func (g *Gateway) Recovered(u *uplinks.Uplink, now nat.Tick, at time.Time) (ended []nat.Severed) {
	if g.table.SessionsOn(u.ID) == 0 || !g.anotherUsable(u) {
		return nil
	}
	connections, others := g.standIns(u.ID, now, at)
	for _, s := range others {
		if u.OnRecover == uplinks.OnRecoverMove || !s.busy {
			g.table.Leave(s.Key, u.ID)
		}
	}
	if u.OnRecover != uplinks.OnRecoverMove || len(connections) == 0 {
		return nil
	}
	moved := func(tr *nat.Translation, _ uint32) bool { return connections[tr.Key] }
	for first := uint32(1); first != 0; {
		ended, first = g.table.Sever(u.ID, moved, first, now, ended)
	}
	return ended
}

// standIn is a session on an uplink for which a better one is back.
type standIn struct {
	nat.Key
	helped bool
	busy   bool
}

// standIns are the TCP connections of an uplink that would take a better one, and its other sessions of endpoints of which all
// would: busy as long as anything passes at the endpoint or, where a helper may have announced more, at another of that host.
func (g *Gateway) standIns(uplink uint8, now nat.Tick, at time.Time) (connections map[nat.Key]bool, others []standIn) {
	connections = map[nat.Key]bool{}
	busy, stays, busyHost := map[endpoint]bool{}, map[endpoint]bool{}, map[packet.Addr]bool{}
	g.table.Sessions(func(i nat.Info) bool {
		switch {
		case i.Uplink != uplink || i.Turned:
		case i.Proto == packet.ProtoTCP:
			if g.surpassed(&i.Translation, at.Add(-i.Created.Since(now))) {
				connections[i.Key] = true
			}
		default:
			e, passes := endpointOf(i.Key), i.Seen.Since(now) < pause
			busy[e] = busy[e] || passes
			stays[e] = stays[e] || !g.surpassed(&i.Translation, time.Time{})
			busyHost[i.Inside] = busyHost[i.Inside] || passes && !i.Helped
			others = append(others, standIn{Key: i.Key, helped: i.Helped})
		}
		return true
	})
	leaving := others[:0]
	for _, s := range others {
		if e := endpointOf(s.Key); !stays[e] {
			s.busy = busy[e] || s.helped && busyHost[s.Inside]
			leaving = append(leaving, s)
		}
	}
	return connections, leaving
}

func endpointOf(k nat.Key) endpoint { return endpoint{k.Inside, k.InsidePort, k.Proto} }

// surpassed reports whether a session that was opened at a time would now take an uplink that did not work then and is better: of
// a lower tier, or of a group that comes before.
func (g *Gateway) surpassed(tr *nat.Translation, opened time.Time) bool {
	r := g.judge(g.sessionOfKey(tr.Key))
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.view.Load()
	g.listCandidates(v, &r, tr.Inside, 0)
	own, listed := g.tierOf(tr.Uplink)
	for i := range g.candidates {
		c := &g.candidates[i]
		if u := v.ByID(c.ID); u.State.Usable() && u.Since.After(opened) && (!listed || c.Tier < own) && c.ID != tr.Uplink {
			return true
		}
	}
	return false
}

// tierOf is that of a candidate.
func (g *Gateway) tierOf(id uint8) (tier int, listed bool) {
	for i := range g.candidates {
		if g.candidates[i].ID == id {
			return g.candidates[i].Tier, true
		}
	}
	return 0, false
}

// leaves reports whether the session of k is to leave an uplink.
func (g *Gateway) leaves(k nat.Key, uplink uint8) bool {
	ref := g.table.FindOut(k)
	if ref == 0 {
		return false
	}
	tr := g.table.Translation(ref)
	return tr.State == nat.Leaving && tr.Uplink == uplink
}
