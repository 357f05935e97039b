package tapgw

import (
	"errors"
	"net/netip"
	"time"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/names"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// DualStack is a gateway for each family of the Internet Protocol. They have their own tables and see the uplinks' sides to their own
// family; what is measured of an uplink is both families'.
type DualStack struct {
	v4 *Gateway
	v6 *Gateway // nil where IPv6 is not carried
}

// NewDualStack joins two gateways; that of IPv6 may be nil.
func NewDualStack(v4, v6 *Gateway) *DualStack { return &DualStack{v4, v6} }

// For returns the gateway of a family, nil where it is not carried.
func (d *DualStack) For(f uplinks.Family) *Gateway {
	if f == uplinks.IPv6 {
		return d.v6
	}
	return d.v4
}

// IsHost reports whether an inside address is the host's own on the TAP.
func (d *DualStack) IsHost(a netip.Addr) bool {
	g := d.v4
	if a.Is6() {
		g = d.v6
	}
	return g != nil && g.isHostItself(packet.AddrOf(a))
}

// each calls do with every gateway there is.
func (d *DualStack) each(do func(*Gateway)) {
	do(d.v4)
	if d.v6 != nil {
		do(d.v6)
	}
}

// of is the gateway that a frame is for. Whatever is not IPv6 is IPv4's, which also answers ARP.
func (d *DualStack) of(b []byte) *Gateway {
	if d.v6 != nil && len(b) >= packet.VnetLen && packet.IsIPv6(b[packet.VnetLen:]) {
		return d.v6
	}
	return d.v4
}

// Outbound is Gateway.Outbound of the frame's family.
func (d *DualStack) Outbound(b []byte, now nat.Tick) Result { return d.of(b).Outbound(b, now) }

// Inbound is Gateway.Inbound of the frame's family.
func (d *DualStack) Inbound(b []byte, uplink uint8, now nat.Tick) Result {
	return d.of(b).Inbound(b, uplink, now)
}

// Request is Gateway.Request of the frame's family.
func (d *DualStack) Request(b []byte, uplink uint8, now nat.Tick) { d.of(b).Request(b, uplink, now) }

// SetUplinks publishes a new view of the uplinks, to each family its own side of them.
func (d *DualStack) SetUplinks(s *uplinks.Snapshot) {
	d.v4.SetUplinks(s)
	if d.v6 != nil {
		d.v6.SetUplinks(s.For(uplinks.IPv6))
	}
}

// SetPlan is Gateway.SetPlan of both families; each has schedulers of its own.
func (d *DualStack) SetPlan(p *policy.Plan) (err error) {
	d.each(func(g *Gateway) { err = errors.Join(err, g.SetPlan(p)) })
	return err
}

// SetTime is Gateway.SetTime of both families.
func (d *DualStack) SetTime(local time.Time) { d.each(func(g *Gateway) { g.SetTime(local) }) }

// SetServices is Gateway.SetServices of both families.
func (d *DualStack) SetServices(visible, hidden []uint16) {
	d.each(func(g *Gateway) { g.SetServices(visible, hidden) })
}

// SetTCP is Gateway.SetTCP of both families.
func (d *DualStack) SetTCP(o TCPOptions) { d.each(func(g *Gateway) { g.SetTCP(o) }) }

// SetHelpers is Gateway.SetHelpers of both families.
func (d *DualStack) SetHelpers(set helper.Set) { d.each(func(g *Gateway) { g.SetHelpers(set) }) }

// SetNames is Gateway.SetNames of both families.
func (d *DualStack) SetNames(b *names.Book) { d.each(func(g *Gateway) { g.SetNames(b) }) }

// SweepHelpers is Gateway.SweepHelpers of both families.
func (d *DualStack) SweepHelpers(now nat.Tick) { d.each(func(g *Gateway) { g.SweepHelpers(now) }) }

// TakeRefusals is Gateway.TakeRefusals of both families.
func (d *DualStack) TakeRefusals() (list []Refusal) {
	d.each(func(g *Gateway) { list = append(list, g.TakeRefusals()...) })
	return list
}

// Overdue is Gateway.Overdue of both families.
func (d *DualStack) Overdue(now nat.Tick, o *Outlook) (again bool) {
	d.each(func(g *Gateway) { again = g.Overdue(now, o) || again })
	return again
}

// WatchEvents is Gateway.WatchEvents of each family.
func (d *DualStack) WatchEvents(yield func(event string, n uint64)) {
	d.each(func(g *Gateway) { g.WatchEvents(yield) })
}

// Drops is Gateway.Drops of each family.
func (d *DualStack) Drops(yield func(reason string, n uint64)) {
	d.each(func(g *Gateway) { g.Drops(yield) })
}

// HelperEvents is Gateway.HelperEvents of each family.
func (d *DualStack) HelperEvents(yield func(event string, n uint64)) {
	d.each(func(g *Gateway) { g.HelperEvents(yield) })
}
