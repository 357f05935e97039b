package tapgw

import (
	"encoding/binary"
	"errors"
	"math"

	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// open binds a new session to an uplink: the one its endpoint is mapped on, else the scheduler's choice.
func (g *Gateway) open(key nat.Key, now nat.Tick) (nat.Ref, *uplinks.Uplink, Reason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	snap := g.snap.Load()
	g.listCandidates(snap)
	if id, ok := g.table.Bound(key.Proto, key.Inside, key.InsidePort); ok && g.isCandidate(id) {
		u := snap.ByID(id)
		ref, err := g.table.Open(key, binding(u, policy.ReasonMapping), now)
		return ref, u, refusal(err)
	}
	why := NoUplink
	for len(g.candidates) > 0 {
		d, _ := policy.Decide(g.scheduler, g.candidates)
		u := snap.ByID(g.candidates[d.Index].ID)
		ref, err := g.table.Open(key, binding(u, policy.ReasonScheduler), now)
		if err == nil {
			g.meters[u.ID].Charge()
			return ref, u, NoReason
		}
		if why = refusal(err); why != NoPort {
			break
		}
		g.candidates = append(g.candidates[:d.Index], g.candidates[d.Index+1:]...)
	}
	return 0, nil, why
}

// listCandidates fills g.candidates with the usable uplinks; when there is none, with those not judged yet.
func (g *Gateway) listCandidates(snap *uplinks.Snapshot) {
	g.candidates = g.candidates[:0]
	for _, u := range snap.Uplinks {
		if u.State.Usable() && u.Ready() {
			g.addCandidate(snap, u)
		}
	}
	if len(g.candidates) > 0 {
		return
	}
	for _, u := range snap.Uplinks {
		if u.State == uplinks.Probing && u.Ready() {
			g.addCandidate(snap, u)
		}
	}
}

func (g *Gateway) addCandidate(snap *uplinks.Snapshot, u *uplinks.Uplink) {
	up, down := snap.Capacity(u.ID)
	g.candidates = append(g.candidates, policy.Candidate{
		ID: u.ID, Weight: u.Weight, Tier: u.Tier,
		Sessions: g.table.UplinkSessions(u.ID),
		Capacity: math.Max(float64(up), float64(down)),
		Load:     g.meters[u.ID].Load(),
	})
}

func (g *Gateway) isCandidate(id uint8) bool {
	for i := range g.candidates {
		if g.candidates[i].ID == id {
			return true
		}
	}
	return false
}

func binding(u *uplinks.Uplink, why policy.Reason) nat.Binding {
	a := u.Addresses[0].As4()
	return nat.Binding{
		Uplink: u.ID, Generation: u.Generation, Address: binary.BigEndian.Uint32(a[:]), Reason: uint8(why),
	}
}

// refusal names the drop that an error of nat.Open means.
func refusal(err error) Reason {
	switch {
	case err == nil:
		return NoReason
	case errors.Is(err, nat.ErrNoPort):
		return NoPort
	default:
		return TableFull
	}
}
