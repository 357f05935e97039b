package daemon

import (
	"tapgw/internal/metrics"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Metrics answers a scrape.
func (b backend) Metrics() metrics.Snapshot {
	m := metrics.Snapshot{
		Datapath: b.datapath(), DatapathReason: b.noFast.code,
		Drops: map[string]uint64{}, Refused: map[string]uint64{}, Helpers: map[string]uint64{}, Unanswered: map[string]uint64{},
	}
	m.Events, m.Reload = b.tally.events()
	m.LANShortcut, _ = b.lan.status()
	b.tables.each(func(f uplinks.Family, table *nat.Table) {
		st := table.Stats()
		m.Tables = append(m.Tables, metrics.Table{Family: familyName(f), Sessions: st.Sessions, Limit: st.Max, Hosts: st.Hosts, Opened: st.Opened})
		m.Refused["table_full"] += st.Refused.TableFull
		m.Refused["no_port"] += st.Refused.NoPort
		m.Refused["host_limit"] += st.Refused.HostLimit
	})
	b.gateway.HelperEvents(func(event string, n uint64) { m.Helpers[event] += n })
	b.gateway.WatchEvents(func(event string, n uint64) { m.Unanswered[event] += n })
	b.gateway.Drops(func(reason string, n uint64) { m.Drops[reason] += n })
	m.Drops["device"] = b.pumps.lost.Load()
	for _, u := range b.snapshot.Load().Uplinks {
		m.Uplinks = append(m.Uplinks, b.uplinkMetrics(u))
	}
	return m
}

func (b backend) uplinkMetrics(u *uplinks.Uplink) metrics.Uplink {
	capacity := b.meters[u.ID].Estimate()
	m := metrics.Uplink{
		Name: u.Name, Interface: u.Interface, Load: min(1, b.meters[u.ID].Load()), Down: float64(capacity.Down) / 8, Up: float64(capacity.Up) / 8,
		Sessions: b.tables.on(u.ID), Datapath: b.pumps.traffic(u.ID), Metered: u.Metered,
	}
	used := b.usageOf(u)
	m.UsedBytes, m.CapBytes = used.UsedBytes, used.CapBytes
	if c, err := b.kernel.Counters(u.Index); u.Index != 0 && err == nil {
		m.RxBytes, m.TxBytes = c.RxBytes, c.TxBytes
	}
	for _, f := range uplinks.Families {
		if u.On(f).State != "" {
			m.Sides = append(m.Sides, b.sideMetrics(u, f))
		}
	}
	return m
}

func (b backend) sideMetrics(u *uplinks.Uplink, f uplinks.Family) metrics.Side {
	on, counted := u.On(f), b.tally.of(side{u.ID, f})
	m := metrics.Side{
		Family: familyName(f), State: string(on.State), Usable: on.State.Usable(), Suspect: b.isSuspect(u, f), Since: on.Since,
		RTT: on.Health.RTT, Loss: on.Health.Loss,
		Entered: counted.entered, Failovers: counted.failovers, Good: counted.good, Failed: counted.failed,
	}
	if table := b.tables[f]; table != nil {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			taken, all := table.PortsOf(u.ID, proto)
			m.Ports = append(m.Ports, metrics.Ports{Protocol: protocolName(proto), Used: taken, Limit: all})
		}
	}
	return m
}
