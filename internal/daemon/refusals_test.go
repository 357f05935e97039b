package daemon

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// sendTwo sends first packets of two sessions of an inside host.
func (d *Daemon) sendTwo(inside uint32) {
	for port := range byte(2) {
		frame := make([]byte, packet.VnetLen+packet.EthernetLen+28)
		copy(frame[packet.VnetLen+12:], []byte{8, 0})
		ip := frame[packet.VnetLen+packet.EthernetLen:]
		copy(ip, []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, packet.ProtoUDP, 0, 0, 0, 0, 0, 0, 203, 0, 113, 1, 1, port, 2, 2, 0, 8})
		binary.BigEndian.PutUint32(ip[12:], inside)
		d.gateway.Outbound(frame, d.pumps.clock.tick())
	}
}

// TestRefusalsAreToldOnce: a host whose sessions are refused is in the log once in a while, however often that is; a LAN full
// of invented hosts does not fill the log.
func TestRefusalsAreToldOnce(t *testing.T) {
	d, now := newTestDaemon(t), time.Now()
	var log bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	labtest.Must(t, d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{{
		Name: "up", Index: 1, MTU: 1500, Weight: 1,
		Side: uplinks.Side{State: uplinks.Up, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, GatewayMAC: [6]byte{2}, Generation: 1},
	}}), nil))
	d.tables[uplinks.IPv4].SetLimits(nat.Limits{Sessions: 1})
	tell := func(at time.Time, want int) {
		t.Helper()
		log.Reset()
		if d.tellRefusals(at); strings.Count(log.String(), "host=10.0.0.2") != want {
			t.Errorf("%d lines expected, not %q", want, log.String())
		}
	}
	tell(now, 0)
	for range 100 {
		d.sendTwo(0x0a000002)
	}
	tell(now, 1)
	d.sendTwo(0x0a000002)
	tell(now.Add(complainEvery/2), 0)
	d.sendTwo(0x0a000002)
	tell(now.Add(complainEvery), 1)
	log.Reset()
	for i := range uint32(5000) {
		if d.sendTwo(0x0a010000 + i); i%10 == 0 {
			d.tellRefusals(now.Add(3 * complainEvery))
		}
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > maxComplaints {
		t.Errorf("%d lines about invented hosts", n)
	}
}
