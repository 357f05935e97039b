package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

var echoServer = netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho).String()

// TestThousandSessions: 1,000 connections at the same time, all of them talking, spread over the uplinks and listed.
func TestThousandSessions(t *testing.T) {
	t.Parallel()
	const count = 1000
	w := begin(t, lab.Options{}, "")
	conns := dialAll(t, w.lan, count)
	forAll(t, count, func(i int) error { return echo(conns[i], fmt.Sprint("session ", i)) })

	out, status := w.tapgw("sessions", "--json", "--proto", "tcp")
	var list []api.Session
	if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 {
		t.Fatalf("sessions: status %d, %v", status, err)
	}
	perUplink := make(map[string]int)
	known := make(map[netip.AddrPort]bool)
	for _, s := range list {
		known[s.Inside] = true
		if s.Remote.Port() != lab.PortTCPEcho {
			continue
		}
		perUplink[s.Uplink]++
		if s.State != "established" || s.BytesOut == 0 || s.BytesIn == 0 {
			t.Errorf("listed as %+v", s)
		}
	}
	for i, c := range conns {
		if local := c.LocalAddr().(*net.TCPAddr).AddrPort(); !known[local] {
			t.Fatalf("connection %d of %s is not listed", i, local)
		}
	}
	t.Log(perUplink)
	if min(perUplink["wan1"], perUplink["wan2"]) < count/4 || perUplink["wan1"]+perUplink["wan2"] != count {
		t.Errorf("the sessions are not spread: %v", perUplink)
	}
	forAll(t, count, func(i int) error { return echo(conns[i], "still here") })
}

// dialAll opens connections to the echo server that stay open until the test ends.
func dialAll(t testing.TB, ns *lab.Namespace, count int) []net.Conn {
	t.Helper()
	return dialAllTo(t, ns, netip.MustParseAddrPort(echoServer), count)
}

// dialAllTo is dialAll for any server.
func dialAllTo(t testing.TB, ns *lab.Namespace, server netip.AddrPort, count int) []net.Conn {
	t.Helper()
	ctx := labtest.Context(t)
	conns := make([]net.Conn, count)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	forAll(t, count, func(i int) (err error) {
		conns[i], err = ns.Dial(ctx, "tcp", server.String())
		return err
	})
	return conns
}

// forAll calls f for 0 … count-1, some at a time, and fails the test with the first error.
func forAll(t testing.TB, count int, f func(i int) error) {
	t.Helper()
	next, errs := make(chan int), make(chan error, count)
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					errs <- fmt.Errorf("%d of %d: %w", i, count, err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	workers.Wait()
	if len(errs) > 0 {
		t.Fatalf("%d failures, the first: %v", len(errs), <-errs)
	}
}

// echo has the server repeat what.
func echo(c net.Conn, what string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, what); err != nil {
		return err
	}
	back := make([]byte, len(what))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != what {
		return fmt.Errorf("%w: %q for %q", lab.ErrCorrupt, back, what)
	}
	return nil
}

// TestTableFull: new sessions are refused at once and by name, old ones go on, and the refusals are counted.
func TestTableFull(t *testing.T) {
	t.Parallel()
	const room = 64
	testTableFull(t, begin(t, lab.Options{}, fmt.Sprintf("nat: {max_sessions: %d}\n", room)), room)
}

func testTableFull(t *testing.T, w world, room int) {
	ctx := labtest.Context(t)
	server, echoes := w.family.servers[0], netip.AddrPortFrom(w.family.servers[0], lab.PortTCPEcho).String()
	var conns []net.Conn
	var refused error
	for range room + 1 {
		c, err := w.lan.Dial(ctx, "tcp", echoes)
		if refused = err; err != nil {
			break
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for name, ns := range map[string]*lab.Namespace{"LAN": w.lan, "host": w.Gateway} {
		begun := time.Now()
		_, err := ns.Dial(ctx, "tcp", echoes)
		if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) || time.Since(begun) > 2*time.Second {
			t.Errorf("a connection of the %s got %v after %s", name, err, time.Since(begun))
		}
		if v := visitFor(ns, server, 200*time.Millisecond); v.err == nil {
			t.Errorf("a datagram of the %s passed", name)
		}
		if _, err := ns.Ping(ctx, server); err == nil || !contains(err.Error(), w.family.prohibited) {
			t.Errorf("an echo request of the %s got %v", name, err)
		}
	}
	if len(conns) < room*3/4 {
		t.Errorf("only %d sessions before %v", len(conns), refused)
	}
	for _, c := range conns {
		labtest.Must(t, echo(c, "go on"))
	}
	if n := w.metric(`tapgw_sessions_refused_total{reason="table_full"}`); n < 5 {
		t.Errorf("%g refusals counted", n)
	}
	if n, limit := w.sessions(), w.metric(`tapgw_sessions_limit{family="`+w.family.name+`"}`); int(limit) != room || n > limit || int(n) < room*3/4 {
		t.Errorf("%g sessions of %g", n, limit)
	}
	for _, c := range conns {
		labtest.Must(t, c.Close())
	}
	eventually(t, "room for new sessions", func() bool { return visitFor(w.lan, server, 100*time.Millisecond).err == nil })
}

// sessions is how many there are of the family.
func (w world) sessions() float64 { return w.metric(`tapgw_sessions{family="` + w.family.name + `"}`) }
