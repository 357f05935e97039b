package capture

import (
	"slices"

	"tapgw/uplinks"
)

// Gateway says where packets pass by a gateway.
type Gateway struct {
	Links  []uplinks.Link
	TAP    string
	LAN    []string // interfaces
	Uplink string   // interface of the one that is looked at
	Kernel bool     // programs carry packets of known sessions
}

// Points are those at which all packets of the uplink's sessions pass, before their translation and after it. What is forwarded
// without the shortcut passes two points before its translation: the port of the LAN, and the TAP.
func Points(g Gateway) (points []Point) {
	add := func(name string, side Side, note string, k kind) {
		i := slices.IndexFunc(g.Links, func(l uplinks.Link) bool { return l.Name == name })
		if i < 0 {
			return
		}
		l := g.Links[i]
		points = append(points, Point{Device: l.Name, Index: l.Index, HeaderLess: l.HeaderLess, Side: side, Note: note, kind: k})
	}
	for _, name := range g.LAN {
		add(name, Before, "", socketBoth)
	}
	if !g.Kernel {
		add(g.TAP, Before, "", socketBoth)
	} else {
		add(g.TAP, Before, "received", socketIn)
		add(g.TAP, Before, "sent", programOut)
		add(g.Uplink, Before, "received for this host, translated back", socketHost)
		add(g.Uplink, Before, "received for this host, translated back", socketHostV6)
	}
	add(g.Uplink, After, "", socketBoth)
	return points
}
