package daemon

import (
	"net/netip"

	"tapgw/internal/owner"
	"tapgw/policy"
)

// openOwners opens what tells whose sockets sessions of the host are.
func (d *Daemon) openOwners() {
	finder, err := owner.Open()
	if err != nil {
		d.log.Warn("rules about users, units and programs match nothing", "error", err)
		return
	}
	d.owners = finder
	if d.programs, err = owner.Open(); err != nil {
		d.log.Warn("lists of sessions name no programs", "error", err)
		d.programs = nil
		return
	}
	d.programs.SetWanted(owner.Wanted{Executable: true})
}

// closeOwners ends both finders.
func (d *Daemon) closeOwners() {
	for _, f := range []*owner.Finder{d.owners, d.programs} {
		if f != nil {
			f.Close()
		}
	}
}

// wantOwners has no more found out of owners than rules ask for.
func (d *Daemon) wantOwners(p *policy.Plan) {
	var w owner.Wanted
	for i := range p.Rules {
		w.Cgroup = w.Cgroup || len(p.Rules[i].Units) > 0
		w.Executable = w.Executable || len(p.Rules[i].Executables) > 0
	}
	if d.owners != nil {
		d.owners.SetWanted(w)
	}
}

// ownerOf is whose socket a session of the host is. It may take some tens of milliseconds where rules ask for programs.
func (d *Daemon) ownerOf(s policy.Session) (policy.Owner, bool) {
	if d.owners == nil {
		return policy.Owner{}, false
	}
	return d.owners.Find(s.Proto, netip.AddrPortFrom(s.Inside, s.InsidePort), netip.AddrPortFrom(s.Remote, s.RemotePort))
}
