package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// static is an inside host with an outside address of its own (basic NAT, RFC 3022 §2.1).
type static struct {
	inside    packet.Addr
	addresses []packet.Addr // the one
}

// addStatic notes an uplink's one-to-one mappings.
func (v *view) addStatic(u *uplinks.Uplink) {
	for _, s := range u.Static {
		if v.insides == nil {
			v.insides = make(map[packet.Addr]bool)
		}
		inside := packet.AddrOf(s.Inside)
		v.insides[inside] = true
		v.static[u.ID] = append(v.static[u.ID], static{inside, []packet.Addr{packet.AddrOf(s.Outside)}})
	}
}

// staticTo returns whose an outside address of an uplink is, nil for nobody's.
func (v *view) staticTo(uplink uint8, outside packet.Addr) *static {
	if int(uplink) >= len(v.static) {
		return nil
	}
	for i := range v.static[uplink] {
		if s := &v.static[uplink][i]; s.addresses[0] == outside {
			return s
		}
	}
	return nil
}

// staticAt returns whose an outside address is on whatever uplink, nil for nobody's.
func (v *view) staticAt(outside packet.Addr) *static {
	for id := range v.static {
		if s := v.staticTo(uint8(id), outside); s != nil {
			return s
		}
	}
	return nil
}

// outside is what sessions of an inside host are translated to on an uplink: its own address there, or the pool.
func (v *view) outside(uplink uint8, inside packet.Addr) nat.Binding {
	for i := range v.static[uplink] {
		if s := &v.static[uplink][i]; s.inside == inside {
			return nat.Binding{Addresses: s.addresses, Exact: true}
		}
	}
	if a, _, translated := v.computed(uplink, inside); translated {
		return nat.Binding{Computed: a}
	}
	return nat.Binding{Addresses: v.pool[uplink]}
}

// at is the binding to one outside address of an uplink.
func (v *view) at(uplink uint8, outside packet.Addr) nat.Binding {
	o := v.ownerTo(uplink, outside)
	if o.computed {
		return nat.Binding{Computed: outside}
	}
	return nat.Binding{Addresses: []packet.Addr{outside}, Exact: o.whole}
}

// serves reports whether an inside host has an address on an uplink.
func (v *view) serves(uplink uint8, inside packet.Addr) bool {
	b := v.outside(uplink, inside)
	return !b.IsEmpty()
}

// hasOwn reports whether an inside host has an address of its own on some uplink.
func (v *view) hasOwn(inside packet.Addr) bool { return v.insides[inside] || v.translates(inside) }

// welcome opens the session of a packet that a remote sent to an inside host's own address, whatever remote and port; what the
// host itself lets in is its own firewall's; whole says that the address is one. It returns 0 for what opens none, and where the
// two talk by another uplink or address already: whoever forges a source shall not move that.
func (g *Gateway) welcome(p *packet.Packet, key nat.InKey, now nat.Tick) (ref nat.Ref, whole bool) {
	v := g.view.Load()
	o := v.ownerTo(key.Uplink, key.Outside)
	if !o.whole {
		return 0, false
	}
	if !isHost(p.Src) || p.Kind == packet.TCP && !opens(p) && !(o.computed && goesOn(p)) {
		return 0, true
	}
	u := v.ByID(key.Uplink)
	k := nat.Key{Inside: o.inside, Remote: key.Remote, InsidePort: key.OutsidePort, RemotePort: key.RemotePort, Proto: key.Proto}
	if other := g.table.FindOut(k); other != 0 && g.works(other) {
		return 0, true
	}
	b := v.binding(u, policy.ReasonMapping, g.hop(o.inside), o.inside, key.Remote)
	b.Inward = true
	ref, err := g.table.Open(k, b, now)
	if err != nil {
		g.refusals.note(refusal(err), o.inside)
	}
	return ref, true
}

// works reports whether packets of a session can be sent, by an uplink that is not avoided.
func (g *Gateway) works(ref nat.Ref) bool {
	tr := g.table.Translation(ref)
	u := g.view.Load().ByID(tr.Uplink)
	return u != nil && u.Generation == tr.Generation && !g.Avoids(u)
}
