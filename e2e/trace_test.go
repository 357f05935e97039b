package e2e

import (
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// hop is a line of traceroute or tracepath that names a router or the destination.
var hop = regexp.MustCompile(`(?m)^ *(\d+)[:?]? +(\d+\.\d+\.\d+\.\d+) `)

// TestRFC1812_Traceroute: traceroute with each kind of probe, and tracepath, find one hop more from the LAN than from the host:
// the gateway, by its inside address. Tracepath finds the path MTU too.
func TestRFC1812_Traceroute(t *testing.T) {
	t.Parallel()
	const mtu = 1400
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: mtu}, {MTU: mtu}}}, inTurn)
	server := lab.ServerAddrs[0]
	isps := []netip.Addr{w.Uplinks[0].NextHop(), w.Uplinks[1].NextHop()}
	for _, c := range []struct {
		ns   *lab.Namespace
		path [][]netip.Addr // who may be each hop
	}{
		{w.lan, [][]netip.Addr{{lab.GatewayLANAddr}, isps, {server}}},
		{w.Gateway, [][]netip.Addr{isps, {server}}},
	} {
		for _, args := range [][]string{
			{"traceroute", "-n", "-q", "1", "-w", "3", "-N", "1"},
			{"traceroute", "-n", "-q", "1", "-w", "3", "-N", "1", "-I"},
			{"traceroute", "-n", "-q", "1", "-w", "3", "-N", "1", "-T", "-p", "80"},
			{"tracepath", "-n"},
		} {
			out, err := c.ns.Command(labtest.Context(t), args[0], append(args[1:], server.String())...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v (is it installed? run `make peers`): %v\n%s", args, err, out)
			}
			if !isPath(hops(hop, string(out)), c.path) {
				t.Errorf("%s: %v:\n%s", c.ns.Name(), args, out)
			}
			if args[0] == "tracepath" && !contains(string(out), "pmtu 1400") {
				t.Errorf("%s: %v does not find the path MTU:\n%s", c.ns.Name(), args, out)
			}
		}
	}
}

// hops are the routers of a trace in order. Tracepath may ask one twice, and be told of an MTU by the one before it first.
func hops(hop *regexp.Regexp, out string) (list []netip.Addr) {
	last := ""
	for _, line := range hop.FindAllStringSubmatch(out, -1) {
		if line[1] == last {
			list = list[:len(list)-1]
		}
		list, last = append(list, netip.MustParseAddr(line[2])), line[1]
	}
	return list
}

func isPath(got []netip.Addr, want [][]netip.Addr) bool {
	return slices.EqualFunc(got, want, func(a netip.Addr, any []netip.Addr) bool { return slices.Contains(any, a) })
}
