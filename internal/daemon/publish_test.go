package daemon

import (
	"log/slog"
	"net/netip"
	"testing"

	"tapgw/configs"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
)

// newTestDaemon has a session table and a gateway, but nothing of the kernel.
func newTestDaemon(t *testing.T) *Daemon {
	t.Helper()
	d := newDaemon(Options{Logger: slog.New(slog.DiscardHandler), Datapath: "userspace"}, &configs.Loaded{Config: configs.Default()})
	labtest.Must(t, d.openTables(d.cfg()))
	return d
}

func (d *Daemon) openSession(t *testing.T, uplink uint8, port uint16) {
	t.Helper()
	key := nat.Key{Inside: packet.IPv4(0xc0a80101), Remote: packet.IPv4(0xcb007101), InsidePort: port, RemotePort: 443, Proto: packet.ProtoTCP}
	binding := nat.Binding{Uplink: uplink, Generation: 1, Addresses: []packet.Addr{packet.IPv4(0xc0000201)}}
	_, err := d.tables[uplinks.IPv4].Open(key, binding, d.pumps.clock.tick())
	labtest.Must(t, err)
}

func TestSessionsLeaveWithTheirUplink(t *testing.T) {
	d := newTestDaemon(t)
	address := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	left := &uplinks.Uplink{ID: 0, Name: "left", Side: uplinks.Side{Addresses: address, Generation: 1}}
	stays := &uplinks.Uplink{ID: 1, Name: "stays", Side: uplinks.Side{Addresses: address, Generation: 1}}
	labtest.Must(t, d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{left, stays}), nil))
	d.openSession(t, 0, 1001)
	d.openSession(t, 1, 1002)
	labtest.Must(t, d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{stays}), nil))
	if gone, kept := d.tables[uplinks.IPv4].SessionsOn(0), d.tables[uplinks.IPv4].SessionsOn(1); gone != 0 || kept != 1 {
		t.Errorf("%d sessions of the uplink that left, want 0; %d of the other, want 1", gone, kept)
	}
}

// TestSessionsLeaveWithTheirAddress: when a retired address is gone, those of the other go on; a link that is down says nothing yet.
func TestSessionsLeaveWithTheirAddress(t *testing.T) {
	d := newTestDaemon(t)
	next, old := netip.MustParseAddr("2001:db8:2::2"), netip.MustParseAddr("2001:db8:1::2")
	look := func(mac byte, addresses ...netip.Addr) int {
		u := &uplinks.Uplink{ID: 1, Index: 2, V6: uplinks.Side{Addresses: addresses, Generation: 1, GatewayMAC: [6]byte{mac}}}
		labtest.Must(t, d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{u}), nil))
		return d.tables[uplinks.IPv6].SessionsOn(1)
	}
	look(2, next, old)
	inside := packet.AddrOf(netip.MustParseAddr("fd00::2"))
	for port, a := range map[uint16]netip.Addr{1001: next, 1002: old} {
		key := nat.Key{Inside: inside, Remote: inside, InsidePort: port, RemotePort: 443, Proto: packet.ProtoTCP}
		_, err := d.tables[uplinks.IPv6].Open(key, nat.Binding{Uplink: 1, Generation: 1, Addresses: []packet.Addr{packet.AddrOf(a)}}, d.pumps.clock.tick())
		labtest.Must(t, err)
	}
	if both, down, gone := look(2, next, old), look(0, next), look(2, next); both != 2 || down != 2 || gone != 1 {
		t.Errorf("%d sessions, %d while nothing leaves, and %d when the address is gone", both, down, gone)
	}
}

func TestTAPIsMadeAnewAfterAFailure(t *testing.T) {
	d := newTestDaemon(t)
	labtest.Must(t, labtest.Namespace(t, "host").Do(func() error {
		tap, err := tapdev.Create(d.tapConfig(1500))
		if err != nil {
			return err
		}
		d.pumps.tap.Store(tap)
		if err := tap.Close(); err != nil { // as checkTAP leaves a deleted one when no other can be made
			return err
		}
		if err := d.checkTAP(uplinks.NewSnapshot(nil)); err != nil {
			return err
		}
		anew := d.pumps.tap.Load()
		if anew == tap {
			t.Error("still the closed device")
		}
		return anew.Close()
	}))
	d.readers.Wait()
}

func TestProtocolsGoByTheirNames(t *testing.T) {
	for proto, want := range map[uint8]string{packet.ProtoICMP: "icmp", packet.ProtoICMPv6: "icmpv6", 200: "200"} {
		if got := protocolName(proto); got != want {
			t.Errorf("protocol %d is %s", proto, got)
		}
	}
}
