package nat

import (
	"testing"
	"time"

	"tapgw/internal/packet"
)

// callKey is that of a PPTP call of an inside host.
func callKey(inside packet.Addr, id uint16) Key {
	return Key{Inside: inside, Remote: web, InsidePort: id, Proto: packet.ProtoGRE}
}

// TestCallsHaveIdentifiers: calls with the same identifier and remote are told apart outside, beside GRE without one.
func TestCallsHaveIdentifiers(t *testing.T) {
	table := newTable(t, nil)
	other := plus(host, 1)
	a := table.Translation(mustOpen(t, table, callKey(host, 7), bind1, after(0)))
	b := table.Translation(mustOpen(t, table, callKey(other, 7), bind1, after(0)))
	pair := table.Translation(mustOpen(t, table, callKey(host, 0), bind1, after(0)))
	if a.OutsidePort == b.OutsidePort || a.OutsidePort == 0 || b.OutsidePort == 0 || pair.OutsidePort != 0 {
		t.Errorf("identifiers %d, %d and %d", a.OutsidePort, b.OutsidePort, pair.OutsidePort)
	}
	for _, tr := range []Translation{a, b, pair} {
		if r := table.FindIn(tr.InKey()); table.Translation(r).Key != tr.Key {
			t.Errorf("%+v is found as %+v", tr.InKey(), table.Translation(r))
		}
	}
	drain(table, 2*DefaultTimeouts.Other)
	if s := table.Stats(); s.Mappings != 0 || s.Sessions != 0 {
		t.Errorf("left: %+v", s)
	}
	if got := table.Owned(isp1, packet.ProtoGRE, out1, a.OutsidePort); got != Free {
		t.Errorf("the identifier is %v", got)
	}
}

// TestCallIdentifiersRunOut: there are as many calls as identifiers that are not 0.
func TestCallIdentifiersRunOut(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 70000 })
	for i := range allPorts - 1 {
		tr := table.Translation(mustOpen(t, table, callKey(plus(host, i), 7), bind1, after(time.Duration(i))))
		if tr.OutsidePort == 0 {
			t.Fatalf("call %d has no identifier", i)
		}
	}
	mustFail(t, ErrNoPort, table, callKey(plus(host, allPorts), 7), bind1, after(0))
}

// TestRewriteCall: the identifier of the inside is changed on its way in, that of the remote never.
func TestRewriteCall(t *testing.T) {
	tr := &Translation{Key: callKey(host, 7), Outside: out1, OutsidePort: 9}
	header := []byte{0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 9, 0, 0, 0, 1, 'd', 'a', 't', 'a'}
	for _, f := range []struct {
		flow
		rewrite func([]byte, *packet.Packet, *Translation, bool) bool
		want    byte
	}{
		{flow{proto: packet.ProtoGRE, src: host, dst: web, payload: header}, RewriteOut, 9},
		{flow{proto: packet.ProtoGRE, src: web, dst: out1, payload: header}, RewriteIn, 7},
	} {
		frame := append(make([]byte, packet.EthernetLen), f.packet(t)...)
		frame[12] = 8
		var p packet.Packet
		p.Decode(frame)
		l4 := append([]byte(nil), header...)
		l4[7] = f.want
		if p.Kind != packet.Call || !f.rewrite(frame, &p, tr, false) {
			t.Fatalf("%+v is not rewritten", p)
		}
		if got := frame[p.L4:]; string(got) != string(l4) || !intactIP(frame, &p) {
			t.Errorf("% x became % x", header, got)
		}
		if f.want == 7 && p.Dst != host || f.want == 9 && p.Src != out1 {
			t.Errorf("became %+v", p)
		}
	}
}
