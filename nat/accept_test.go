package nat

import (
	"errors"
	"testing"
	"time"

	"tapgw/internal/packet"
)

func mustReserve(t *testing.T, table *Table, port uint16, b Binding, now Tick) Reservation {
	t.Helper()
	r, err := table.Reserve(protoTCP, host, port, b, now)
	if err != nil {
		t.Fatalf("reserve for port %d: %v", port, err)
	}
	return r
}

// from is the key of a packet of a remote to a reserved port.
func (r Reservation) from(remote packet.Addr, port uint16) InKey {
	return InKey{Outside: r.Outside, OutsidePort: r.OutsidePort, Remote: remote, RemotePort: port, Proto: protoTCP, Uplink: isp1}
}

// A session that begins outside is one like any other: found from both sides, tracked, and ended.
func TestAcceptOpensFromOutside(t *testing.T) {
	table := newTable(t, nil)
	mapped := table.Translation(mustOpen(t, table, key(protoTCP, 4000, web, 21), bind1, after(0)))
	k := mapped.InKey()
	k.Remote, k.RemotePort = peer, 20
	r, err := table.Accept(k, bind1, after(0))
	if err != nil {
		t.Fatal(err)
	}
	tr := table.Translation(r)
	if tr.Inside != host || tr.InsidePort != 4000 || tr.InKey() != k || tr.State != TCPOpening || tr.Reason != bind1.Reason {
		t.Errorf("accepted %+v", tr)
	}
	if table.FindIn(k) != r || table.FindOut(tr.Key) != r {
		t.Error("it is not found")
	}
	if again, err := table.Accept(k, bind1, after(0)); again != r || err != nil {
		t.Errorf("accepted twice: %d, %v", again, err)
	}
	table.CountIn(r, after(0), 60, 1, segment(packet.SYN))
	table.CountOut(r, after(0), 60, 1, segment(packet.SYN|packet.ACK))
	table.CountIn(r, after(0), 60, 1, segment(packet.ACK))
	if got := table.Translation(r).State; got != TCPEstablished {
		t.Errorf("it is %v after the handshake", got)
	}
	table.End(tr.Key, after(time.Second))
	if table.FindIn(k) != 0 || table.Stats().Sessions != 1 || table.Stats().Mappings != 1 {
		t.Errorf("after its end: %+v", table.Stats())
	}
}

func TestAcceptRefuses(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 1 })
	mapped := table.Translation(mustOpen(t, table, key(protoTCP, 4000, web, 21), bind1, after(0)))
	k := mapped.InKey()
	k.Remote = peer
	later, elsewhere, udp := bind1, k, k
	later.Generation++
	elsewhere.OutsidePort++
	udp.Proto = protoUDP
	for name, c := range map[string]struct {
		k    InKey
		b    Binding
		want error
	}{
		"a free port":        {elsewhere, bind1, ErrNoMapping},
		"another protocol":   {udp, bind1, ErrNoMapping},
		"another generation": {k, later, ErrNoMapping},
		"another uplink":     {k, bind2, ErrNoMapping},
		"a full table":       {k, bind1, ErrTableFull},
	} {
		if r, err := table.Accept(c.k, c.b, after(0)); !errors.Is(err, c.want) {
			t.Errorf("%s: session %d, error %v", name, r, err)
		}
	}
	if s := table.Stats(); s.Sessions != 1 || s.Refused.TableFull != 1 {
		t.Errorf("stats %+v", s)
	}
}

// The inside endpoint may have a session with the remote by an older mapping already: that one stays.
func TestAcceptTakesNoSessionsPlace(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoTCP, 4000, web, 20), bind2, after(0))
	reserved := mustReserve(t, table, 4000, bind1, after(0))
	if got, err := table.Accept(reserved.from(web, 20), bind1, after(0)); !errors.Is(err, ErrNoMapping) {
		t.Errorf("session %d, error %v", got, err)
	}
	if table.FindOut(key(protoTCP, 4000, web, 20)) != r {
		t.Error("the session is gone")
	}
}

// A reserved endpoint is mapped like one with sessions: the same for all destinations, and until it is cancelled.
func TestReserve(t *testing.T) {
	table := newTable(t, nil)
	a := mustReserve(t, table, 4000, bind1, after(0))
	if b := mustReserve(t, table, 4000, bind1, after(0)); a != b {
		t.Errorf("reserved %+v and %+v", a, b)
	}
	if u, ok := table.Bound(protoTCP, host, 4000); !ok || u != isp1 {
		t.Errorf("bound %v to %d", ok, u)
	}
	tr := table.Translation(mustOpen(t, table, key(protoTCP, 4000, web, 80), bind1, after(0)))
	if tr.Outside != a.Outside || tr.OutsidePort != a.OutsidePort {
		t.Errorf("a session got %x:%d, reserved is %+v", tr.Outside, tr.OutsidePort, a)
	}
	table.End(tr.Key, after(0))
	table.Cancel(a, after(0))
	if got := table.Owned(isp1, protoTCP, a.Outside, a.OutsidePort); got != Mapped {
		t.Errorf("the port is %v while one reservation is left", got)
	}
	table.Cancel(a, after(0))
	if got := table.Owned(isp1, protoTCP, a.Outside, a.OutsidePort); got != Resting {
		t.Errorf("the port is %v after the last was cancelled", got)
	}
	if s := table.Stats(); s.Mappings != 0 {
		t.Errorf("%d mappings are left", s.Mappings)
	}
}

func TestReserveIsBounded(t *testing.T) {
	table := newTable(t, nil)
	for range maxReserved {
		mustReserve(t, table, 4000, bind1, after(0))
	}
	if r, err := table.Reserve(protoTCP, host, 4000, bind1, after(0)); !errors.Is(err, ErrNoPort) {
		t.Errorf("reserved %+v, error %v", r, err)
	}
	for _, proto := range []uint8{protoICMP, 47} {
		if r, err := table.Reserve(proto, host, 1, bind1, after(0)); !errors.Is(err, ErrBinding) {
			t.Errorf("protocol %d: reserved %+v, error %v", proto, r, err)
		}
	}
}

// A packet from outside tells only the port, so a reserved one is not shared, and a shared one not reserved.
func TestReservedPortsAreNotShared(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{2000, 2003}} })
	reserved := mustReserve(t, table, 4000, bind1, after(0))
	for i := range 12 {
		tr := table.Translation(mustOpen(t, table, key(protoTCP, uint16(5000+i), plus(web, i), 80), bind1, after(0)))
		if tr.OutsidePort == reserved.OutsidePort {
			t.Errorf("session %d is on the reserved port", i)
		}
	}
	if r, err := table.Reserve(protoTCP, host, 4001, bind1, after(0)); err == nil {
		t.Errorf("reserved %+v, and no port is free", r)
	}
	if s := table.Stats(); s.Shared == 0 {
		t.Error("no port was shared")
	}
}

// The address may go and come back while something is reserved on it.
func TestReservationOutlivesItsAddress(t *testing.T) {
	table := newTable(t, nil)
	r := mustReserve(t, table, 4000, bind1, after(0))
	table.Purge(isp1, 2, after(0))
	if got, err := table.Accept(r.from(web, 20), Binding{Uplink: isp1, Generation: 2}, after(0)); err == nil {
		t.Errorf("session %d on an address that is gone", got)
	}
	table.Cancel(r, after(time.Minute))
	if s := table.Stats(); s.Mappings != 0 {
		t.Errorf("%d mappings are left", s.Mappings)
	}
}

// The mark of a session with a helper outlives its changes of state, and goes when it is told to.
func TestHelpedSessions(t *testing.T) {
	table := newTable(t, nil)
	b := bind1
	b.Helped = true
	r := mustOpen(t, table, key(protoTCP, 4000, web, 21), b, after(0))
	table.CountOut(r, after(0), 60, 1, segment(packet.SYN))
	table.CountIn(r, after(0), 60, 1, segment(packet.SYN|packet.ACK))
	table.CountOut(r, after(0), 60, 1, segment(packet.ACK))
	if tr := table.Translation(r); !tr.Helped || tr.State != TCPEstablished || tr.Reason != b.Reason {
		t.Errorf("the session is %+v", tr)
	}
	if w := table.records[r].own.Load() & (ownStateMask | ownHelped); w <= uint64(TCPReset) {
		t.Errorf("a kernel program takes the session for one that is %v", State(w))
	}
	table.EndHelp(r)
	if tr := table.Translation(r); tr.Helped || tr.State != TCPEstablished {
		t.Errorf("the session is %+v", tr)
	}
}
