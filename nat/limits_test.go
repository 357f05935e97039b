package nat

import (
	"testing"
	"time"
)

// hostKey is a UDP session of the nth inside host from its port i.
func hostKey(n, i int) Key {
	return Key{Inside: plus(host, n), InsidePort: uint16(i), Remote: plus(web, i&3), RemotePort: 53, Proto: protoUDP}
}

// An inside host has no more outside ports than it may, of all protocols together; others have theirs, and the ports it has
// can be used for more sessions.
func TestRFC6888_REQ4_PortsOfAHostAreLimited(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Limits = Limits{Ports: 30, Exempt: plus(host, 2)} })
	for i := range 10 {
		for _, proto := range []uint8{protoICMP, protoTCP, protoUDP} {
			k := hostKey(0, i)
			k.Proto = proto
			mustOpen(t, table, k, bind1, after(0))
		}
	}
	for _, b := range []Binding{bind1, bind2} {
		mustFail(t, ErrHostPorts, table, hostKey(0, 10), b, after(0))
	}
	more := hostKey(0, 3)
	more.Remote = plus(peer, 100)
	mustOpen(t, table, more, bind1, after(0))
	for i := range 30 {
		mustOpen(t, table, hostKey(1, i), bind1, after(0))
	}
	for i := range 100 {
		mustOpen(t, table, hostKey(2, i), bind1, after(0)) // exempt
	}
	mustOpen(t, table, hostKey(0, 4), bind2, after(0)) // a session that moves
	if got := table.Stats().Refused.HostLimit; got != 2 {
		t.Errorf("%d refusals counted", got)
	}
	d := drain(table, time.Hour)
	mustOpen(t, table, hostKey(0, 10), bind1, after(d))
}

// An inside host has no more sessions than it may, and moves those it has.
func TestRFC6888_REQ5_SessionsOfAHostAreLimited(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Limits = Limits{Sessions: 20} })
	for i := range 20 {
		mustOpen(t, table, hostKey(0, i), bind1, after(0))
	}
	mustFail(t, ErrHostSessions, table, hostKey(0, 20), bind1, after(0))
	mustOpen(t, table, hostKey(1, 20), bind1, after(0))
	for i := range 20 {
		mustOpen(t, table, hostKey(0, i), bind2, after(0))
	}
	mustFail(t, ErrHostSessions, table, hostKey(0, 20), bind2, after(0))
	table.SetLimits(Limits{Sessions: 21})
	mustOpen(t, table, hostKey(0, 20), bind2, after(0))
	table.Purge(isp2, 2, after(0))
	mustOpen(t, table, hostKey(0, 20), bind1, after(0))
}

// An inside host opens so many sessions at once, and as many in each second after; a clock that seems to go back gives none.
func TestRFC6888_REQ5_SessionsPerSecondAreLimited(t *testing.T) {
	const rate = 40
	table := newTable(t, func(c *Config) { c.Limits = Limits{PerSecond: rate} })
	opened := 0
	burst := func(at time.Duration) (n int) {
		for ; ; n++ {
			if _, err := table.Open(hostKey(0, opened), bind1, after(at)); err != nil {
				return n
			}
			opened++
		}
	}
	if n := burst(0); n != rate {
		t.Errorf("%d at once", n)
	}
	if n := burst(-time.Second); n != 0 {
		t.Errorf("%d more for a clock that went back", n)
	}
	mustOpen(t, table, hostKey(1, 0), bind1, after(0))
	n := 0
	for at := time.Duration(0); at <= 2*time.Second; at += 10 * time.Millisecond {
		n += burst(at)
	}
	if n < 2*rate*9/10 || n > 2*rate {
		t.Errorf("%d in two seconds", n)
	}
	if n := burst(time.Minute); n != rate {
		t.Errorf("%d at once after a quiet minute", n)
	}
}

// What is remembered of inside hosts is bounded by the sessions, whatever sources a LAN invents, and goes with them.
func TestInventedHostsTakeNoMemory(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 1000; c.Limits = Limits{Sessions: 10, PerSecond: 10, Ports: 10} })
	for n := range 1 << 16 {
		_, _ = table.Open(hostKey(n, 1), bind1, after(0))
	}
	if s := table.Stats(); s.Hosts != s.Sessions || s.Sessions < 900 {
		t.Errorf("%d hosts, %d sessions", s.Hosts, s.Sessions)
	}
	drain(table, time.Hour)
	if n := table.Stats().Hosts; n != 0 {
		t.Errorf("%d hosts without sessions", n)
	}
}
