package daemon

import (
	"net/netip"
	"time"

	"tapgw/configs"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/tapgw"
	"tapgw/uplinks"
)

// tables are the session tables by family; that of IPv6 is nil where it is not captured.
type tables [len(uplinks.Families)]*nat.Table

// each calls do with every table there is.
func (t *tables) each(do func(f uplinks.Family, table *nat.Table)) {
	for _, f := range uplinks.Families {
		if t[f] != nil {
			do(f, t[f])
		}
	}
}

// on counts the sessions of both families on an uplink.
func (t *tables) on(uplink uint8) (n int) {
	t.each(func(_ uplinks.Family, table *nat.Table) { n += table.SessionsOn(uplink) })
	return n
}

// connections counts the TCP sessions of both families on an uplink.
func (t *tables) connections(uplink uint8) (n int) {
	t.each(func(_ uplinks.Family, table *nat.Table) { n += table.Connections(uplink) })
	return n
}

// sessions counts those of both families.
func (t *tables) sessions() (n int) {
	t.each(func(_ uplinks.Family, table *nat.Table) { n += table.Stats().Sessions })
	return n
}

// gatewayV6 is the address of the imaginary router on the link of the TAP.
var gatewayV6 = netip.MustParseAddr("fe80::7467")

// openTables makes the session tables and the gateway on them.
func (d *Daemon) openTables(c *configs.Config) (err error) {
	if d.pool, err = portPool(c); err != nil {
		return err
	}
	d.pumps = &pumps{clock: newClock()}
	configured := natConfig(c, uplinks.IPv4, d.pool, d.held.listed)
	var v6 *nat.Config
	if c.TAP.IPv6 {
		v6 = new(natConfig(c, uplinks.IPv6, d.pool, d.held.listed))
	}
	if err := d.loadFastPath(&configured, v6); err != nil {
		return err
	}
	if d.tables[uplinks.IPv4], err = nat.New(configured); err != nil {
		return err
	}
	if v6 != nil {
		if d.tables[uplinks.IPv6], err = nat.New(*v6); err != nil {
			return err
		}
	}
	if err := d.openGateway(c); err != nil {
		return err
	}
	d.setLimits(c)
	d.prober = newProber(probePlan(c), d.load, d.judged)
	return nil
}

// openGateway makes a gateway for each table.
func (d *Daemon) openGateway(c *configs.Config) error {
	d.domainBook = tapgw.NewNames()
	var gateways [len(uplinks.Families)]*tapgw.Gateway
	d.tables.each(func(f uplinks.Family, table *nat.Table) {
		g := tapgw.Config{
			IPv6: f == uplinks.IPv6, TAPMAC: tapMAC, GatewayMAC: gatewayMAC, GatewayIP: c.TAP.Gateway(), TAPIP: c.TAP.Address.Addr(),
			Held: d.held.recent, Settle: d.pumps.settle, Sessions: d.tables.on, Connections: d.tables.connections,
			Facts: policy.Facts{Domains: d.domains, Interface: d.hosts.interfaceOf, MAC: d.hosts.macOf, Owner: d.ownerOf},
			Clock: d.pumps.clock.fine, Wake: func() { poke(d.waiting) },
		}
		if g.IPv6 {
			g.GatewayIP, g.TAPIP = gatewayV6, netip.IPv6Unspecified()
		}
		gateways[f] = tapgw.New(g, table, &d.meters)
	})
	d.gateway = tapgw.NewDualStack(gateways[uplinks.IPv4], gateways[uplinks.IPv6])
	d.gateway.SetTCP(tcpOptions(c))
	d.gateway.SetHelpers(helpers(c))
	d.gateway.SetTime(time.Now())
	d.pumps.gateway = d.gateway
	return d.setPlan(d.plan(c))
}

// setLimits bounds what inside hosts of each family take.
func (d *Daemon) setLimits(c *configs.Config) {
	d.tables.each(func(f uplinks.Family, table *nat.Table) { table.SetLimits(limits(c, f, d.hostOn(f))) })
}

// hostOn is the host's address of a family on the TAP, :: while it has none.
func (d *Daemon) hostOn(f uplinks.Family) netip.Addr {
	switch {
	case f == uplinks.IPv4:
		return d.cfg().TAP.Address.Addr()
	case d.tapAddresses.Current.IsValid():
		return d.tapAddresses.Current
	}
	return netip.IPv6Unspecified()
}

// carriesIPv6 reports whether packets of IPv6 can be captured.
func (d *Daemon) carriesIPv6() bool { return d.tables[uplinks.IPv6] != nil }
