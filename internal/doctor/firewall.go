package doctor

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
	"tapgw/uplinks/nft"
)

// firewall looks for what drops packets on their way from the LAN into the TAP: Docker, for one, has them dropped on every host
// that forwards.
func firewall(h *host) Finding {
	if len(h.lan) == 0 {
		return ok("no LAN behind this host whose packets could be dropped")
	}
	lines, err := h.acting()
	if errors.Is(err, unix.EPERM) {
		return unknown(useRoot, "only root may read the firewall")
	}
	if err != nil {
		return unknown("", "cannot read the firewall: %v", err)
	}
	chains, err := droppers()
	if err != nil {
		return unknown("", "cannot read the firewall: %v", err)
	}
	dropping := slices.DeleteFunc(lines, func(line string) bool { return !drops(line, chains) })
	if len(dropping) == 0 {
		return ok("nothing drops by default what the LAN sends")
	}
	return warn(advise(chains, h.lan[0], h.TAP), "may drop what the LAN sends: %s", strings.Join(dropping, "; "))
}

// acting lists what may act on packets of the LAN. Without a TAP the loopback device stands for it: no rule names either.
func (h *host) acting() ([]string, error) {
	foreign := nft.NewForeign()
	defer foreign.Close()
	var ports []int
	for _, name := range h.lan {
		l, _ := h.link(name)
		ports = append(ports, l.Index)
	}
	tap := h.tap
	if tap.Index == 0 {
		tap, _ = h.linkThat(func(l uplinks.Link) bool { return l.Loopback })
	}
	lines, err := foreign.Bypassed(tap.Index, ports)
	six, errSix := foreign.BypassedV6(tap.Index, ports)
	return sorted(append(lines, six...)), errors.Join(err, errSix)
}

// droppers are the base chains of nftables that drop forwarded packets by default.
func droppers() (list []*nftables.Chain, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChains()
	for _, c := range all {
		forward := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter
		if forward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			list = append(list, c)
		}
	}
	return list, err
}

// drops tells a line about a chain that drops by default.
func drops(line string, chains []*nftables.Chain) bool {
	return strings.Contains(line, "drops by default") || slices.ContainsFunc(chains, func(c *nftables.Chain) bool {
		return strings.Contains(line, " "+c.Table.Name+" "+c.Name+" ")
	})
}

// advise says how the firewall's owner lets packets pass.
func advise(chains []*nftables.Chain, lan, tap string) string {
	switch {
	case hasChain("DOCKER-USER"):
		return "iptables -I DOCKER-USER -i " + lan + " -j ACCEPT; iptables -I DOCKER-USER -o " + lan + " -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
	case hasChain("ufw-user-forward"):
		return "ufw route allow in on " + lan + " out on " + tap
	case slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == "firewalld" }):
		return "firewall-cmd --permanent --zone=external --add-interface=" + tap + " && firewall-cmd --reload"
	}
	return "accept in its chain what goes from " + lan + " to " + tap + ", and the answers; see \"The LAN is offline\" in the README"
}

func hasChain(name string) bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	all, _ := conn.ListChains()
	return slices.ContainsFunc(all, func(c *nftables.Chain) bool { return c.Name == name })
}
