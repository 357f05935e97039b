package arp

import (
	"net"
	"net/netip"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"golang.org/x/net/bpf"
)

// The filter passes the gateway's replies and nothing else, not even its requests.
func TestFilter(t *testing.T) {
	gateway, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	program, ok := bpf.Disassemble(filter(gateway))
	if !ok {
		t.Fatal("cannot disassemble the filter")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		pass  bool
	}{
		"reply":          {frame(t, arp.OperationReply, gateway), true},
		"request":        {frame(t, arp.OperationRequest, gateway), false},
		"foreign reply":  {frame(t, arp.OperationReply, other), false},
		"reply, cut off": {frame(t, arp.OperationReply, gateway)[:30], false},
		"nothing":        {nil, false},
	} {
		if n, err := vm.Run(c.frame); err != nil || (n > 0) != c.pass {
			t.Errorf("%s: passes %d bytes, %v", name, n, err)
		}
	}
}

func frame(t *testing.T, op arp.Operation, sender netip.Addr) []byte {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	p, err := arp.NewPacket(op, mac, sender, mac, netip.MustParseAddr("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&ethernet.Frame{Destination: mac, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: payload}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
