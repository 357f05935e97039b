package tapgw

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Resolvers of the ISPs of uplinks 1 and 2.
var (
	resolver1 = packet.IPv4(0xc0000201)
	resolver2 = packet.IPv4(0xc0000202)
)

// newResolving is a world whose uplinks' ISPs have a resolver each.
func newResolving(t testing.TB) *world {
	w := newWorld(t)
	w.ups[0].Resolvers = []netip.Addr{resolver1.Netip()}
	w.ups[1].Resolvers = []netip.Addr{resolver2.Netip()}
	w.publish()
	return w
}

// ask sends a question from a port and fails unless it leaves by the uplink.
func (w *world) ask(from uint16, resolver packet.Addr, port uint16, uplink uint8) {
	w.t.Helper()
	b := udpFrame(w.t, inside, from, resolver, port, "?")
	w.sent(w.out(b), b, uplink)
}

// TestResolverOfISP: questions to an ISP's resolver leave by that ISP, by UDP, TCP and TLS, also from a socket that asks both; all else
// that is sent there goes as it would.
func TestResolverOfISP(t *testing.T) {
	w := newResolving(t)
	for i, port := range []uint16{53, 853} {
		w.ask(4000+uint16(i), resolver1, port, 1)
		w.ask(4000+uint16(i), resolver2, port, 2)
		w.ask(4000+uint16(i), resolver1, port, 1)
		b := tcpFrame(t, inside, 4100, resolver2, port, syn, "")
		w.sent(w.out(b), b, 2)
	}
	w.ask(5000, resolver2, 123, 1)
	b := echoFrame(t, inside, resolver2, packet.ICMPEcho, 7, "x")
	w.sent(w.out(b), b, 1)
}

// TestResolverOfDeadISP: it is not asked, and the sender is told at once so that it asks the next one: by TCP with a reset, by UDP
// with an error that sockets take for a refusal.
func TestResolverOfDeadISP(t *testing.T) {
	w := newResolving(t)
	w.ask(4000, resolver2, 53, 2)
	w.ups[1].State = uplinks.Down
	w.publish()
	for _, from := range []uint16{4000, 4001} { // one of before, and a new one
		res := w.out(udpFrame(t, inside, from, resolver2, 53, "?"))
		w.expect(res, Drop, ResolverDown)
		icmp := look(t, res.Reply).icmp
		if icmp == nil || icmp.TypeCode != layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort) {
			t.Errorf("told %+v", icmp)
		}
	}
	res := w.out(tcpFrame(t, inside, 4002, resolver2, 53, syn, ""))
	w.expect(res, Drop, ResolverDown)
	if tcp := look(t, res.Reply).tcp; tcp == nil || !tcp.RST {
		t.Errorf("told %+v", tcp)
	}
	w.ask(4003, resolver1, 53, 1)
	w.ask(4004, server, 53, 1)
}

// TestOnlyResolver: where no uplink that works has one, the resolver of the dead ISP is asked by another: it may answer after all.
func TestOnlyResolver(t *testing.T) {
	w := newResolving(t)
	w.ups[0].Resolvers, w.ups[1].State = nil, uplinks.Down
	w.publish()
	w.ask(4000, resolver2, 53, 1)
}

// TestSharedResolver: one that two ISPs name is asked by either, and as long as one of them works.
func TestSharedResolver(t *testing.T) {
	w := newResolving(t)
	w.ups[0].Resolvers = append(w.ups[0].Resolvers, resolver2.Netip())
	w.publish()
	w.ask(4000, resolver2, 53, 1)
	w.ask(4001, server, 9, 1)
	w.ups[0].State = uplinks.Down
	w.publish()
	w.ask(4002, resolver2, 53, 2)
}

// TestRuleBeforeResolver: what the user says of a session comes first.
func TestRuleBeforeResolver(t *testing.T) {
	w := newResolving(t)
	must(t, w.g.SetPlan(grouped(policy.Refuse)))
	w.ask(4000, resolver1, 53, 2)
}
