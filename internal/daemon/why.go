package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tapgw/api"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/tapgw"
	"tapgw/uplinks"
)

// Why answers GET /v1/why.
func (b backend) Why(q api.Question) (api.Why, error) {
	family := uplinks.IPv4
	if q.Remote.Addr().Is6() {
		family = uplinks.IPv6
	}
	g := b.gateway.For(family)
	if g == nil {
		return api.Why{}, fmt.Errorf("%w: IPv6 is not captured (tap.ipv6 is false), and goes its way without tapgw", api.ErrBadQuestion)
	}
	key, err := b.keyOf(q, family)
	if err != nil {
		return api.Why{}, err
	}
	snapshot := b.snapshot.Load().For(family)
	w := explained(g.Explain(key, q.DSCP, b.pumps.clock.tick()), snapshot)
	w.Proto, w.Remote = q.Proto, q.Remote
	w.Inside, w.Host = netip.AddrPortFrom(key.Inside.Netip(), q.From.Port()), key.Inside.Netip() == b.hostOn(family)
	return w, nil
}

// keyOf is the session that is asked about; the error tells of an inside host that there cannot be.
func (b backend) keyOf(q api.Question, family uplinks.Family) (k nat.Key, err error) {
	k = nat.Key{Remote: packet.AddrOf(q.Remote.Addr()), InsidePort: q.From.Port(), RemotePort: q.Remote.Port()}
	switch {
	case q.Proto == "udp":
		k.Proto = packet.ProtoUDP
	case q.Proto == "tcp":
		k.Proto = packet.ProtoTCP
	case family == uplinks.IPv6:
		k.Proto = packet.ProtoICMPv6
	default:
		k.Proto = packet.ProtoICMP
	}
	from := q.From.Addr()
	if !from.IsValid() {
		from = b.hostOn(family)
	}
	if from.Is6() != q.Remote.Addr().Is6() {
		return k, fmt.Errorf("%w: %s and %s are of different families; give a client's address of the other one", api.ErrBadQuestion, from, q.Remote.Addr())
	}
	k.Inside = packet.AddrOf(from)
	if from == b.hostOn(family) || b.snapshot.Load().Owner(from) != nil {
		return k, nil
	}
	device := b.hosts.find(from, time.Now()).device
	behind := func(u *uplinks.Uplink) bool { return u.Interface == device }
	switch {
	case device == "":
		return k, fmt.Errorf("%w: this host knows no way to the client %s", api.ErrBadQuestion, from)
	case device == b.pumps.tap.Load().Name() || device == "lo" || slices.ContainsFunc(b.snapshot.Load().Uplinks, behind):
		return k, fmt.Errorf("%w: the client %s is not behind this host, but would be reached by %s", api.ErrBadQuestion, from, device)
	}
	return k, nil
}

// explained is an explanation in the words of the API.
func explained(e tapgw.Explanation, s *uplinks.Snapshot) api.Why {
	w := api.Why{
		Outcome: string(e.Outcome), Reason: reasonOf(e), Group: e.Plan.Groups[e.Group].Name, Scheduler: e.Scheduler, Stickiness: string(e.Stickiness),
		OnUplinkDown: string(e.OnUplinkDown),
	}
	for i, field := range e.Fails {
		w.Rules = append(w.Rules, api.WhyRule{Name: e.Plan.Rules[i].Name, Fails: string(field)})
	}
	if e.Rule != policy.NoRule {
		w.Rule = e.Plan.Rules[e.Rule].Name
		w.Rules = append(w.Rules, api.WhyRule{Name: w.Rule, Matches: true})
	}
	if e.Group != e.Action.Group {
		w.AskedFirst = e.Plan.Groups[e.Action.Group].Name
	}
	if e.Uplink != nil {
		w.Uplink = e.Uplink.Name
	}
	group := &e.Plan.Groups[e.Group]
	for _, u := range s.Uplinks {
		if tier, member := group.Tier(u.Rank(), u.Name, u.Interface); member {
			w.Uplinks = append(w.Uplinks, whyUplink(e, u, tier))
		}
	}
	return w
}

func whyUplink(e tapgw.Explanation, u *uplinks.Uplink, tier int) api.WhyUplink {
	out := api.WhyUplink{Name: u.Name, Tier: tier, State: string(u.State), Chosen: e.Uplink != nil && e.Uplink.ID == u.ID}
	for _, c := range e.Candidates {
		if c.ID == u.ID {
			out.Candidate, out.ExpectBps, out.Load, out.Sessions, out.RTTMs = true, c.Rate, c.Load, c.Sessions, milliseconds(c.Latency)
		}
	}
	return out
}

// reasonOf says in a clause why a session uses what it uses.
func reasonOf(e tapgw.Explanation) string {
	switch e.Outcome {
	case tapgw.Mapped:
		return policy.ReasonMapping.String()
	case tapgw.Announced:
		return policy.ReasonRelated.String()
	case tapgw.Direct:
		return "the first uplink of the lowest tier that works"
	case tapgw.Own:
		return "its address is the uplink's own"
	case tapgw.Refused:
		return refusedTexts[e.Refused]
	}
	return e.Reason.String()
}

// refusedTexts are the refusals that Explain can give.
var refusedTexts = map[tapgw.Reason]string{
	tapgw.NoUplink: "no uplink can be used", tapgw.GroupDown: "no uplink of its group can be used, and no other group is to be asked",
	tapgw.ResolverDown: "the uplink of the ISP whose resolver it is cannot be used, and others have resolvers",
	tapgw.BadAddress:   "no host beyond the uplinks has this address",
}
