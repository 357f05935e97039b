package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// endpoint is a UDP socket and what the server saw of it first.
type endpoint struct {
	net.PacketConn
	outside netip.AddrPort
}

// openEndpoint asks the echo server by a socket of its own.
func openEndpoint(t testing.TB, ns *lab.Namespace, limit time.Duration) (endpoint, error) {
	t.Helper()
	conn, err := ns.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	outside, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], "open")
	return endpoint{conn, outside}, err
}

// openUntilRefused opens up to n endpoints, as long as they get answers.
func openUntilRefused(t testing.TB, ns *lab.Namespace, n int) (list []endpoint) {
	t.Helper()
	for range n {
		e, err := openEndpoint(t, ns, time.Second)
		if err != nil {
			return list
		}
		list = append(list, e)
	}
	return list
}

// expectAlive fails the test unless each endpoint still has its outside one, also to another server.
func expectAlive(t testing.TB, list []endpoint) {
	t.Helper()
	for i, e := range list {
		for _, server := range lab.ServerAddrs {
			if now, err := lab.AskUDP(labtest.Context(t), e, server, "still"); err != nil || now != e.outside {
				t.Errorf("endpoint %d of %d was %s, is %s: %v", i, len(list), e.outside, now, err)
			}
		}
	}
}

// expectProhibited fails the test unless ns is told that it may open nothing.
func expectProhibited(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	if _, err := ns.Ping(labtest.Context(t), lab.ServerAddrs[0]); err == nil || !contains(err.Error(), "code 13") {
		t.Errorf("an echo request got %v", err)
	}
}

const refusing = "new sessions are refused"

// TestRFC6888_REQ4_SharesOfHosts: a host of the LAN that opens sessions without end gets its share and is told so, and the log
// names it once; its sessions, another host's and the gateway's own are not the worse for it.
func TestRFC6888_REQ4_SharesOfHosts(t *testing.T) {
	t.Parallel()
	const share = 40
	for key, why := range map[string]string{"sessions_per_host": "host_sessions", "ports_per_host": "host_ports"} {
		t.Run(key, func(t *testing.T) {
			w := begin(t, lab.Options{LANHosts: 2}, fmt.Sprintf("nat: {limits: {%s: %d}}\n", key, share))
			mine := openUntilRefused(t, w.lan, 2*share)
			if len(mine) < share-10 || len(mine) > share { // the share includes how the test began
				t.Fatalf("%d sessions", len(mine))
			}
			for range 3 {
				expectProhibited(t, w.lan)
			}
			for _, ns := range []*lab.Namespace{w.Hosts[1].Namespace, w.Gateway} {
				others := openUntilRefused(t, ns, share/2)
				if len(others) < share/2 {
					t.Errorf("%s has %d sessions", ns.Name(), len(others))
				}
			}
			if n := len(openUntilRefused(t, w.Gateway, share)); n < share {
				t.Errorf("the gateway itself has %d sessions more", n)
			}
			if key == "ports_per_host" {
				expectAlive(t, mine)
			}
			labtest.Must(t, firstOf(mine).asksAgain())
			eventually(t, "a line in the log", func() bool { return w.said(refusing, why, w.Hosts[0].Addr.String()) > 0 })
			if n := w.said(refusing); n != 1 {
				t.Errorf("%d lines in the log", n)
			}
			if w.metric(`tapgw_sessions_refused_total{reason="host_limit"}`) < 3 || w.metric(`tapgw_packets_dropped_total{reason="`+why+`"}`) < 3 {
				t.Error("refusals are not counted")
			}
		})
	}
}

func firstOf(list []endpoint) endpoint { return list[0] }

// asksAgain talks to the server that an endpoint knows.
func (e endpoint) asksAgain() error {
	_, err := lab.AskUDP(context.Background(), e, lab.ServerAddrs[0], "again")
	return err
}

// TestRFC6888_REQ5_RateOfHosts: a host opens no more sessions per second than it may, and another as many as it likes.
func TestRFC6888_REQ5_RateOfHosts(t *testing.T) {
	t.Parallel()
	const rate, tries = 20, 200
	w := begin(t, lab.Options{LANHosts: 2}, fmt.Sprintf("nat: {limits: {new_per_second: %d}}\n", rate))
	begun := time.Now()
	for range tries {
		conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
		labtest.Must(t, err)
		defer conn.Close()
		_, _ = conn.WriteTo([]byte("one more"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho)))
	}
	took := time.Since(begun)
	eventually(t, "a refusal", func() bool { // now and then there is time for one more, or nobody is told in a flood
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := w.lan.Ping(ctx, lab.ServerAddrs[0])
		return err != nil && contains(err.Error(), "code 13")
	})
	if v := visitFor(w.Hosts[1].Namespace, lab.ServerAddrs[0], visitPatience); v.err != nil {
		t.Errorf("another host: %v", v.err)
	}
	if most := rate + int(took.Seconds()*rate) + rate; w.status().Sessions > most && took < tries/rate*time.Second/2 {
		t.Errorf("%d sessions in %s, at most %d are allowed", w.status().Sessions, took, most)
	}
	eventually(t, "a line in the log", func() bool { return w.said(refusing, "host_rate", w.Hosts[0].Addr.String()) > 0 })
	eventually(t, "a session when there was time", func() bool { return visitFor(w.lan, lab.ServerAddrs[0], 100*time.Millisecond).err == nil })
}

// TestMW5_ExhaustionFallsToTheNextUplink: where an uplink has no port left new endpoints take the next, those that it has stay,
// and only when none has any are new ones refused, which the log says once.
func TestMW5_ExhaustionFallsToTheNextUplink(t *testing.T) {
	t.Parallel()
	const ports = 12
	w := begin(t, lab.Options{}, fmt.Sprintf("%snat: {ports: [20000-%d]}\n", preferFirst, 20000+ports-1))
	list := openUntilRefused(t, w.lan, 3*ports)
	second := 0
	for i, e := range list {
		switch e.outside.Addr() {
		case w.Uplinks[1].Addr():
			second++
		default:
			if second > 0 {
				t.Errorf("endpoint %d took %s after others had to leave it", i, e.outside)
			}
		}
	}
	if first := len(list) - second; first < ports/2 || first > ports || second < ports/2 || second > ports {
		t.Fatalf("%d endpoints by the first uplink, %d by the second", first, second)
	}
	if e, err := openEndpoint(t, w.lan, 200*time.Millisecond); err == nil {
		t.Fatalf("an endpoint more: %s", e.outside)
	}
	expectAlive(t, list)
	eventually(t, "a line in the log", func() bool { return w.said(refusing, "no_port") == 1 })
	if w.metric(`tapgw_sessions_refused_total{reason="no_port"}`) == 0 {
		t.Error("refusals are not counted")
	}
}

// TestRFC6888_REQ12_NoDestinationsInTheLog: nothing of who spoke to whom, of sessions that went well or not, is in the log.
func TestRFC6888_REQ12_NoDestinationsInTheLog(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn+"nat: {limits: {sessions_per_host: 20}}\n")
	labtest.Must(t, w.connect(w.lan, "wan2").talk())
	labtest.Must(t, w.connect(w.Gateway, "wan1").talk())
	_, err := w.lan.Ping(labtest.Context(t), lab.ServerAddrs[1])
	labtest.Must(t, err)
	openUntilRefused(t, w.lan, 40)
	eventually(t, "a line about refusals", func() bool { return w.said(refusing) > 0 })
	for _, server := range lab.ServerAddrs {
		if n := w.said(server.String()); n > 0 {
			t.Errorf("%d lines name %s", n, server)
		}
	}
}
