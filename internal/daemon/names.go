package daemon

import (
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
)

// setPlan puts groups and rules in force, and has names learned and owners of sockets found if they depend on any.
func (d *Daemon) setPlan(p *policy.Plan) error {
	if err := d.gateway.SetPlan(p); err != nil {
		return err
	}
	d.wantOwners(p)
	if p.NeedsNames() {
		d.gateway.SetNames(d.domainBook)
	} else {
		d.gateway.SetNames(nil)
	}
	return nil
}

// domainOf is the name of a session's remote, "" when it is not known.
func (d *Daemon) domainOf(i nat.Info) string {
	name, _ := d.domainBook.Domain(i.Inside, i.Remote, uint32(d.pumps.clock.tick()))
	return name
}

// domains are the names of a session's remote.
func (d *Daemon) domains(s policy.Session) []string {
	name, ok := d.domainBook.Domain(packet.AddrOf(s.Inside), packet.AddrOf(s.Remote), uint32(d.pumps.clock.tick()))
	if !ok {
		return nil
	}
	return []string{name}
}
