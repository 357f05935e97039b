package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// A prefix of the inside may be translated to one of an uplink by computing alone (NPTv6, RFC 6296). Each host then has an address of
// its own there, as with a static mapping; sessions are remembered all the same, for the choice of an uplink.

// addPrefixes notes the prefixes that an uplink translates. The configuration has been checked: what cannot be paired is not there.
func (v *view) addPrefixes(u *uplinks.Uplink) {
	for _, n := range u.NPTv6 {
		if pair, err := nat.NewPrefixPair(n.Inside, n.Outside); err == nil {
			v.prefixes[u.ID] = append(v.prefixes[u.ID], pair)
		}
	}
}

// owner is whose all is that is sent to an outside address.
type owner struct {
	inside   packet.Addr // none where the address is nobody's
	whole    bool        // it is one inside host's alone, or of a translated prefix
	computed bool        // … the latter
	why      nat.Unmapped
}

// ownerTo returns whose an outside address of an uplink is. An address of the uplink's own is the host's, whatever prefix it lies in.
func (v *view) ownerTo(uplink uint8, outside packet.Addr) owner {
	if s := v.staticTo(uplink, outside); s != nil {
		return owner{inside: s.inside, whole: true}
	}
	if int(uplink) >= len(v.prefixes) {
		return owner{}
	}
	for i := range v.prefixes[uplink] {
		if p := &v.prefixes[uplink][i]; p.HasOutside(outside) && !slices.Contains(v.addresses[uplink], outside) {
			inside, why := p.In(outside)
			return owner{inside, true, true, why}
		}
	}
	return owner{}
}

// computed is the address that an inside host has on an uplink which translates its prefix; translated is false where none does. An
// address of the uplink's own is nobody else's.
func (v *view) computed(uplink uint8, inside packet.Addr) (outside packet.Addr, why nat.Unmapped, translated bool) {
	for i := range v.prefixes[uplink] {
		if p := &v.prefixes[uplink][i]; p.HasInside(inside) && !v.isHostItself(inside) {
			if outside, why = p.Out(inside); slices.Contains(v.addresses[uplink], outside) {
				return packet.Addr{}, nat.NoHost, true
			}
			return outside, why, true
		}
	}
	return packet.Addr{}, nat.Foreign, false
}

// translates reports whether an uplink translates the prefix of an inside host.
func (v *view) translates(inside packet.Addr) bool {
	return v.anyPrefix(func(p *nat.PrefixPair) bool { return p.HasInside(inside) })
}

// leads reports whether an address is one of ours: an uplink's own, or of a prefix that is translated.
func (v *view) leads(a packet.Addr) bool {
	return v.Owner(a.Netip()) != nil || v.anyPrefix(func(p *nat.PrefixPair) bool { return p.HasOutside(a) })
}

func (v *view) anyPrefix(has func(*nat.PrefixPair) bool) bool {
	for _, u := range v.Uplinks {
		for i := range v.prefixes[u.ID] {
			if has(&v.prefixes[u.ID][i]) {
				return true
			}
		}
	}
	return false
}

// unmapped names the drop of an inside address that no uplink carries, where one that could has none for it in its prefix.
func (v *view) unmapped(inside packet.Addr) Reason {
	for _, u := range v.Uplinks {
		if _, why, translated := v.computed(u.ID, inside); translated && why != nat.Translated && u.State.Usable() && u.Ready() {
			return unmappedReason(why)
		}
	}
	return NoReason
}

func unmappedReason(why nat.Unmapped) Reason {
	if why == nat.NoSubnet {
		return ReservedSubnet
	}
	return ReservedHost
}

// adopts reports whether a connection of an inside host that is under way can be taken up again: no other uplink has an address than
// the one that computes it, so that it must have been the same before (RFC 6296 §2.5).
func (g *Gateway) adopts(inside packet.Addr) bool {
	v, found := g.view.Load(), false
	for _, u := range v.Uplinks {
		if !u.Ready() {
			continue
		}
		_, why, translated := v.computed(u.ID, inside)
		if found || !translated || why != nat.Translated {
			return false
		}
		found = true
	}
	return found
}
