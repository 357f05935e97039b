package e2e

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// sourceV6 is the address that the gateway's own sockets have.
func (w world) sourceV6() netip.Addr {
	w.t.Helper()
	conn, err := w.Gateway.Dial(labtest.Context(w.t), "udp6", netip.AddrPortFrom(lab.ServerAddrsV6[0], 7).String())
	labtest.Must(w.t, err)
	defer conn.Close()
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Addr()
}

// awaitSourceV6 waits until it is one that fits.
func (w world) awaitSourceV6(what string, fits func(netip.Addr) bool) netip.Addr {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if a := w.sourceV6(); fits(a) {
			return a
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: sends from %s", what, w.sourceV6())
		}
	}
}

// TestFault27_RenumberedPrefix: what the host sends by IPv6 goes through the TAP from an address of its own there. When the provider
// takes a prefix back, the host gets an address of the next one, and connections begin with that; those of before go on.
func TestFault27_RenumberedPrefix(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{IPv6: true, Uplinks: make([]lab.UplinkOptions, 1)}, inTurn)
	u := w.Uplinks[0]
	const life = time.Hour
	labtest.Must(t, u.RemoveRouterV6())
	labtest.Must(t, u.Advertise(life, lab.AdvertisedPrefix{Prefix: u.PrefixV6(), Preferred: life, Valid: life}))
	w.awaitUpV6("wan1", func(a netip.Addr) bool { return u.PrefixV6().Contains(a) && a != u.AddrV6() })
	w.awaitSourceV6("at first", u.PrefixV6().Contains)
	connect := func() talker {
		t.Helper()
		conn, err := w.Gateway.Dial(labtest.Context(t), "tcp6", netip.AddrPortFrom(lab.ServerAddrsV6[0], lab.PortTCPEcho).String())
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, conn.Close()) })
		labtest.Must(t, talker{Conn: conn}.talk())
		return talker{Conn: conn}
	}
	before, begun := connect(), time.Now()
	next, err := u.Delegate()
	labtest.Must(t, err)
	labtest.Must(t, u.Advertise(life, lab.AdvertisedPrefix{Prefix: next, Preferred: life, Valid: life},
		lab.AdvertisedPrefix{Prefix: u.PrefixV6(), Valid: life}))
	w.awaitSourceV6("renumbered", next.Contains)
	w.awaitUpV6("wan1", next.Contains)
	connect()
	if err := before.talk(); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	w.events.none(0, begun, func(e api.Event) bool { return e.Kind == api.EventRepair })
}

// TestRestartedDaemonHasItsIPv6Address: what the host sends from the TAP's address goes on when the daemon was killed and is back.
func TestRestartedDaemonHasItsIPv6Address(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	datagrams, err := w.Gateway.Dial(labtest.Context(t), "udp6", netip.AddrPortFrom(lab.ServerAddrsV6[0], lab.PortUDPEcho).String())
	labtest.Must(t, err)
	defer datagrams.Close()
	answered := func() bool { // the echo server tells from where it was asked, too
		_, err := datagrams.Write([]byte("ask"))
		labtest.Must(t, errors.Join(err, datagrams.SetReadDeadline(time.Now().Add(time.Second))))
		_, err = datagrams.Read(make([]byte, 100))
		return err == nil
	}
	eventually(t, "an answer", answered)
	stream := w.connect(w.Gateway, "wan1")
	before := w.sourceV6()
	w.kill()
	w.restart()
	w.awaitUp(w.Topology)
	if after := w.sourceV6(); after != before {
		t.Errorf("sends from %s, before the crash from %s", after, before)
	}
	eventually(t, "an answer on the same socket", answered)
	if err := stream.talk(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of before: %v", err)
	}
}

// awaitUpV6 waits until an uplink is up to IPv6 with a first address that fits.
func (w world) awaitUpV6(uplink string, fits func(netip.Addr) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		v := w.uplink(uplink).IPv6
		if v.State == api.StateUp && fits(v.Addresses[0]) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %+v", uplink, v)
		}
	}
}
