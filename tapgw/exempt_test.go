package tapgw

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/policy"
	"tapgw/uplinks"
)

// exempting is a plan that leaves untranslated what goes to some prefixes.
func exempting(prefixes ...string) *policy.Plan {
	var to []netip.Prefix
	for _, p := range prefixes {
		to = append(to, netip.MustParsePrefix(p))
	}
	plan := policy.NewPlan("failover")
	direct := plan.ActionOf(policy.NoRule)
	direct.Direct = true
	plan.Rules = []policy.Rule{{Name: "exempt", To: []*policy.Set{policy.NewSet(to)}, Action: direct}}
	return plan
}

// TestExemptDestinations: what goes there leaves as it is, whatever it is, always by the same uplink; sessions that there were go
// on, and the host itself is translated.
func TestExemptDestinations(t *testing.T) {
	w := newWorld(t)
	before := udpFrame(t, inside, 7, server, 53, "x")
	w.open(before)
	must(t, w.g.SetPlan(exempting("203.0.113.0/30")))
	frames := [][]byte{
		udpFrame(t, inside, 4000, server, 53, "x"), tcpFrame(t, inside, 4000, server, 80, syn, ""), tcpFrame(t, other, 4000, server, 80, ack, "x"),
		echoFrame(t, inside, server, packet.ICMPEcho, 7, "x"), echoFrame(t, inside, server, packet.ICMPEchoReply, 7, "x"),
		build(t, ip(inside, server, layers.IPProtocolGRE), gopacket.Payload("sixteen bytes...")),
		errorFrame(t, inside, server, udpFrame(t, server, 1, inside, 2, "x")),
	}
	frames = append(frames, cut(t, udpFrame(t, inside, 4000, server, 53, "a datagram that is long enough for several pieces"), 16)...)
	for uplink, state := range map[uint8]uplinks.State{1: uplinks.Up, 2: uplinks.Down} {
		w.ups[0].State = state
		w.publish()
		for i, f := range frames {
			b := clone(f)
			if s := w.sent(w.out(b), b, uplink); s.src() != look(t, f).src() {
				t.Errorf("frame %d left as %v", i, s.src())
			}
		}
	}
	w.ups[0].State = uplinks.Up
	w.publish()
	for name, f := range map[string][]byte{
		"known session": before, "the host's own": udpFrame(t, tapIP, 4000, server, 53, "x"),
		"next to it": udpFrame(t, inside, 4000, packet.IPv4(0xcb007105), 53, "x"),
	} {
		b := clone(f)
		if s := w.sent(w.out(b), b, 1); s.src() != wan1 {
			t.Errorf("%s left as %v", name, s.src())
		}
	}
	w.ups = [2]uplinks.Uplink{}
	w.publish()
	w.expect(w.out(clone(frames[0])), Drop, NoUplink)
}
