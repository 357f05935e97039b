package doctor

import (
	"context"
	"errors"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"tapgw/api"
	"tapgw/probe"
	"tapgw/probe/dns"
	"tapgw/uplinks"
)

// daemon looks whether it answers.
func daemon(h *host) Finding {
	switch {
	case h.running():
		return ok("version %s answers", h.status.Version)
	case errors.Is(h.absent, api.ErrNoDaemon):
		return warn("sudo tapgw run, or sudo systemctl start tapgw", "no daemon answers")
	}
	return fail("see its log: journalctl -u tapgw", "%v", h.absent)
}

// access looks whether this user may change something in the daemon.
func access(*host) Finding {
	if os.Geteuid() == 0 {
		return ok("root may look and change")
	}
	group, err := user.LookupGroup("tapgw")
	if err == nil {
		mine, err := os.Getgroups()
		if id, bad := strconv.Atoi(group.Gid); err == nil && bad == nil && slices.Contains(mine, id) {
			return ok("this user may look and change")
		}
	}
	return Finding{Level: OK, Message: "this user may look, not change", Advice: "to change: sudo, or sudo groupadd -f tapgw; sudo usermod -aG tapgw $USER; log in again"}
}

// health tells of uplinks that are not used.
func health(h *host) Finding {
	if !h.running() {
		return ok("nobody probes the uplinks")
	}
	var bad []string
	for _, u := range h.status.Uplinks {
		if !u.Usable() && u.State != api.StateDisabled && u.State != api.StatePortal {
			bad = append(bad, u.Name+" "+u.State)
		}
	}
	switch {
	case len(bad) > 0 && len(bad) == len(h.status.Uplinks):
		return fail("tapgw status", "%s", words(bad))
	case len(bad) > 0:
		return warn("tapgw status", "%s", words(bad))
	}
	return ok("all uplinks are usable or disabled")
}

// portal tells of uplinks that want somebody to sign in.
func portal(h *host) Finding {
	for _, u := range h.status.Uplinks {
		if u.State == api.StatePortal || u.IPv6.State == api.StatePortal {
			return warn("tapgw portal "+u.Name, "%s wants somebody to sign in", u.Name)
		}
	}
	return ok("no uplink is known to want somebody to sign in")
}

// What names are tested with, and how long.
const (
	testName = "dns.google"
	patience = 3 * time.Second
)

// names asks for one by every uplink at once.
func names(h *host) Finding {
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	silent := make([]bool, len(h.list))
	var asking sync.WaitGroup
	for i, u := range h.list {
		asking.Go(func() { silent[i] = !resolves(ctx, u) })
	}
	asking.Wait()
	var without []string
	for i, u := range h.list {
		if silent[i] {
			without = append(without, u.Interface)
		}
	}
	switch {
	case len(without) > 0 && len(without) == len(h.list):
		return fail("check the connection, and the name servers in /etc/resolv.conf", "no name server answers by any uplink (%s)", words(without))
	case len(without) > 0:
		return warn("check that network; new sessions avoid an uplink whose probes fail too", "no name server answers by %s", words(without))
	}
	return ok("name servers answer by all uplinks")
}

// resolves reports whether a name server answers by an uplink, in any family that it has.
func resolves(ctx context.Context, u *uplinks.Uplink) bool {
	for _, f := range uplinks.Families {
		side := u.On(f)
		if len(side.Addresses) == 0 {
			continue
		}
		link := probe.Link{Name: u.Interface, Index: u.Index, Source: side.Addresses[0], Gateway: side.Gateway, HeaderLess: u.HeaderLess}
		if _, err := dns.Resolve(ctx, link, testName); err == nil {
			return true
		}
	}
	return false
}
