package tapgw

import (
	"net/netip"
	"slices"
	"testing"

	"tapgw/internal/packet"
	"tapgw/uplinks"
)

// messageV6 is a message to an uplink, with or without an extension header that says nothing.
func messageV6(t *testing.T, kind byte, extended bool) []byte {
	t.Helper()
	const l3 = packet.VnetLen + packet.EthernetLen
	b := udpV6(t, serverV6, 1, wan1V6, 2, "as long as any message")
	b[l3+6], b[l3+40], b[l3+41] = packet.ProtoICMPv6, kind, 0
	if extended {
		b = slices.Insert(b, l3+40, packet.ProtoICMPv6, 0, 1, 4, 0, 0, 0, 0)
		b[l3+5] += 8
		b[l3+6] = 60
	}
	return b
}

// TestExtensionHeadersAreGivenBack: what is not ours of packets that the host's stack has no copy of.
func TestExtensionHeadersAreGivenBack(t *testing.T) {
	d := newDual(t)
	for _, kind := range []byte{packet.ICMPv6Unreachable, packet.ICMPv6Echo, packet.ICMPv6EchoReply, 135, 136, packet.ICMPv6Listener, 200} {
		d.expect(d.both.Inbound(messageV6(t, kind, false), 1, start), Ignore, NoReason)
		if res := d.both.Inbound(messageV6(t, kind, true), 1, start); res.Verdict != GiveBack || res.Uplink != 1 {
			t.Errorf("type %d with an extension header: %+v", kind, res)
		}
	}
	d.ups[0].V6.Static = []uplinks.Static{{Inside: netip.MustParseAddr("fd00:1::9"), Outside: wan1V6}}
	d.both.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{&d.ups[0], &d.ups[1]}))
	d.expect(d.both.Inbound(messageV6(t, 135, true), 1, start), GiveBack, NoReason)
	d.expect(d.both.Inbound(messageV6(t, 135, false), 1, start), Ignore, NoReason)
}
