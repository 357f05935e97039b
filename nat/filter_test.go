package nat

import (
	"errors"
	"testing"
	"time"

	"tapgw/internal/packet"
)

// lettingAll is a table whose mappings let everybody in.
func lettingAll(c *Config) {
	c.Filtering = Filtering{UDP: EndpointIndependent, TCP: EndpointIndependent}
}

// from is the inbound key of a remote to the mapping of a session.
func from(table *Table, r Ref, remote packet.Addr, port uint16) InKey {
	tr := table.Translation(r)
	in := tr.InKey()
	in.Remote, in.RemotePort = remote, port
	return in
}

// TestOfferedUntilAnswered: what a remote opens uses the mapping in both directions, and is like any other session once the
// inside has sent something that is no refusal.
func TestOfferedUntilAnswered(t *testing.T) {
	for _, c := range []struct {
		proto          uint8
		refusal, reply *packet.Packet
		want           State
	}{
		{protoUDP, nil, datagram, Active},
		{protoTCP, segment(packet.RST | packet.ACK), segment(packet.SYN | packet.ACK), TCPOpening},
	} {
		table := newTable(t, lettingAll)
		own := mustOpen(t, table, key(c.proto, 4000, web, 53), bind1, after(0))
		in := from(table, own, peer, 9)
		r, err := table.OpenIn(in, bind1, after(0))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := table.OpenIn(in, bind1, after(0)); again != r || err != nil {
			t.Errorf("opened again as %d, %v", again, err)
		}
		tr := table.Translation(r)
		if tr.Inside != host || tr.InsidePort != 4000 || tr.InKey() != in || tr.State != Offered || table.FindOut(tr.Key) != r {
			t.Errorf("%+v", tr)
		}
		table.CountIn(r, after(time.Second), 1, 1, segment(packet.SYN))
		if c.refusal != nil {
			table.CountOut(r, after(time.Second), 1, 1, c.refusal)
		}
		if s := table.Translation(r).State; s != Offered || table.Stats().Offered != 1 {
			t.Errorf("%s, %d offered", s, table.Stats().Offered)
		}
		table.CountOut(r, after(time.Second), 1, 1, c.reply)
		if s := table.Translation(r).State; s != c.want || table.Stats().Offered != 0 {
			t.Errorf("%s, %d offered", s, table.Stats().Offered)
		}
		sweepAt(table, 2*time.Minute)
		if table.FindIn(in) != r {
			t.Error("ended although it was answered")
		}
	}
}

// TestRFC7857_S7_InboundKeepsNoMapping: who never gets an answer cannot keep a mapping alive by sending, nor by sending from
// ever new endpoints.
func TestRFC7857_S7_InboundKeepsNoMapping(t *testing.T) {
	table := newTable(t, lettingAll)
	own := mustOpen(t, table, key(protoUDP, 4000, web, 53), bind1, after(0))
	first := from(table, own, peer, 1)
	last := DefaultTimeouts.UDP + offerTime + 2*time.Second
	for d := time.Duration(0); d < last; d += time.Second {
		if r, err := table.OpenIn(first, bind1, after(d)); err == nil {
			table.CountIn(r, after(d), 1, 1, datagram)
		}
		_, _ = table.OpenIn(from(table, own, peer, uint16(2+d/time.Second)), bind1, after(d))
		sweepAt(table, d)
	}
	sweepAt(table, last)
	if s := table.Stats(); s.Sessions != 0 || s.Mappings != 0 || s.Offered != 0 {
		t.Errorf("%+v", s)
	}
}

// TestOffersAreBounded: a flood from many endpoints to many mappings leaves most of the table, and other mappings, alone.
func TestOffersAreBounded(t *testing.T) {
	const flooded = 3
	table := newTable(t, func(c *Config) { lettingAll(c); c.MaxSessions = 20_000 })
	var owns []Ref
	for i := range flooded + 1 {
		owns = append(owns, mustOpen(t, table, key(protoUDP, uint16(i), web, 53), bind1, after(0)))
	}
	for i := range 100_000 {
		_, err := table.OpenIn(from(table, owns[i%flooded], plus(peer, i), 9), bind1, after(0))
		if err != nil && !errors.Is(err, ErrFiltered) {
			t.Fatal(err)
		}
	}
	if n := table.Stats().Offered; n != flooded*offerMost {
		t.Errorf("%d offered", n)
	}
	r, err := table.OpenIn(from(table, owns[flooded], peer, 9), bind1, after(0))
	if err != nil {
		t.Errorf("another mapping: %v", err)
	}
	table.CountOut(r, after(0), 1, 1, datagram)
	drain(table, offerTime+time.Second)
	if s := table.Stats(); s.Sessions != flooded+2 || s.Offered != 0 {
		t.Errorf("after the flood %+v", s)
	}
}

// TestAddressDependentWithManyRemotes: whom an inside endpoint has sent to is known at once however many there are, and
// forgotten with the last session.
func TestAddressDependentWithManyRemotes(t *testing.T) {
	const many = 10_000
	table := newTable(t, func(c *Config) { c.MaxSessions = 2 * many; c.Filtering = Filtering{UDP: AddressDependent} })
	var last Ref
	for i := range uint32(many) {
		last = mustOpen(t, table, key(protoUDP, 4000, plus(peer, int(i)), 53), bind1, after(0))
	}
	for i := range uint32(many) {
		r, err := table.OpenIn(from(table, last, plus(peer, int(i)), 54), bind1, after(0))
		if err != nil {
			t.Fatalf("the %dth: %v", i, err)
		}
		table.CountOut(r, after(0), 1, 1, datagram)
		if _, err := table.OpenIn(from(table, last, plus(peer, -1-int(i)), 54), bind1, after(0)); !errors.Is(err, ErrFiltered) {
			t.Fatalf("a stranger: %v", err)
		}
	}
	if n := len(table.peers.counts); n != many { // the first one stands in the mapping
		t.Errorf("%d addresses are counted", n)
	}
	// What is not counted is not found although the session is there, as none is looked at.
	mapped := ownLink(table.records[last].own.Load())
	known := peerKey{plus(peer, many-1), mapped}
	count := table.peers.counts[known]
	delete(table.peers.counts, known)
	if table.spoke(mapped, known.remote) {
		t.Error("sessions are looked through")
	}
	table.peers.counts[known] = count
	drain(table, DefaultTimeouts.UDP+time.Minute)
	if n := len(table.peers.counts); n != 0 {
		t.Errorf("%d addresses are left", n)
	}
}

// TestFilteringFollowsReload: a filter that is switched on later knows the sessions that there are.
func TestFilteringFollowsReload(t *testing.T) {
	table := newTable(t, nil)
	own := mustOpen(t, table, key(protoTCP, 4000, web, 80), bind1, after(0))
	mustOpen(t, table, key(protoTCP, 4000, peer, 80), bind1, after(0))
	open := func(remote packet.Addr, port uint16) error {
		_, err := table.OpenIn(from(table, own, remote, port), bind1, after(0))
		return err
	}
	for _, c := range []struct {
		filter              Filter
		web, peer, stranger error
	}{
		{AddressAndPortDependent, ErrFiltered, ErrFiltered, ErrFiltered},
		{AddressDependent, nil, nil, ErrFiltered},
		{EndpointIndependent, nil, nil, nil},
	} {
		table.SetFiltering(Filtering{TCP: c.filter})
		port := 100 + uint16(c.filter)
		if got := [3]error{open(web, port), open(peer, port), open(plus(peer, 1), port)}; got != [3]error{c.web, c.peer, c.stranger} {
			t.Errorf("filter %d: %v", c.filter, got)
		}
	}
}

// TestSharedPortsLetNobodyIn: where two endpoints share a port, a stranger's packet belongs to neither.
func TestSharedPortsLetNobodyIn(t *testing.T) {
	table := newTable(t, func(c *Config) { lettingAll(c); c.Ports = []PortRange{{3000, 3000}} })
	r := mustOpen(t, table, key(protoTCP, 4000, web, 80), bind1, after(0))
	mustOpen(t, table, key(protoTCP, 4001, peer, 80), bind1, after(0))
	if _, _, ok := table.Inside(from(table, r, peer, 81)); ok {
		t.Error("a shared port belongs to one endpoint")
	}
	if _, err := table.OpenIn(from(table, r, peer, 81), bind1, after(0)); !errors.Is(err, ErrFiltered) {
		t.Error(err)
	}
}
