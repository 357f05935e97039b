package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestPortsNobodyHas: of an uplink's ports the host refuses what it always refused, save those that are mapped or rest: of
// these it says nothing.
func TestPortsNobodyHas(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	expectRefusals(t, topology.Internet, topology.Uplinks[0]) // plain routing answers for no other
	g := start(t, topology.Gateway, inTurn+"nat: {timeouts: {udp: 1s}}\n")
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	expectRefusals(t, topology.Internet, topology.Uplinks...)

	datagrams, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer datagrams.Close()
	mapped, err := lab.AskUDP(labtest.Context(t), datagrams, lab.ServerAddrs[0], "hello")
	labtest.Must(t, err)
	expectSilence(t, w.Internet, "udp4", mapped)
	expectRefusal(t, w.Internet, "tcp4", mapped)
	port := datagrams.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	eventually(t, "the end of the session", func() bool { _, ok := w.session("udp", port); return !ok })
	expectSilence(t, w.Internet, "udp4", mapped) // it rests

	stream := w.connect(w.lan, "wan1")
	s, ok := w.session("tcp", portOf(stream))
	if !ok {
		t.Fatal("a connection is not listed")
	}
	expectSilence(t, w.Internet, "tcp4", s.Outside)
	expectRefusal(t, w.Internet, "udp4", s.Outside)
	labtest.Must(t, stream.talk())
	expectRefusals(t, topology.Internet, topology.Uplinks...)

	w.stop()
	expectRefusals(t, w.Internet, w.Uplinks[0])
	expectRefusal(t, w.Internet, "tcp4", s.Outside)
}

// expectRefusals fails the test unless ports of all kinds on the uplinks are answered as those of a host that nobody serves.
func expectRefusals(t testing.TB, ns *lab.Namespace, uplinks ...*lab.Uplink) {
	t.Helper()
	for _, u := range uplinks {
		for _, port := range []uint16{portBelow, portInside, portEphemeral} {
			for _, network := range []string{"tcp4", "udp4"} {
				expectRefusal(t, ns, network, netip.AddrPortFrom(u.Addr(), port))
			}
		}
		_, err := ns.Ping(labtest.Context(t), u.Addr())
		labtest.Must(t, err)
	}
}

func expectRefusal(t testing.TB, ns *lab.Namespace, network string, to netip.AddrPort) {
	t.Helper()
	if err := approach(t, ns, network, to, 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s %s: %v instead of a refusal", network, to, err)
	}
}

func expectSilence(t testing.TB, ns *lab.Namespace, network string, to netip.AddrPort) {
	t.Helper()
	var late net.Error
	if err := approach(t, ns, network, to, 300*time.Millisecond); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("%s %s: %v instead of silence", network, to, err)
	}
}

// approach sends a first packet and returns what comes of it.
func approach(t testing.TB, ns *lab.Namespace, network string, to netip.AddrPort, limit time.Duration) error {
	t.Helper()
	conn, err := ns.DialWith(t.Context(), &net.Dialer{Timeout: limit}, network, to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	labtest.Must(t, conn.SetDeadline(time.Now().Add(limit)))
	if _, err := conn.Write([]byte("is anybody there")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 100))
	return err
}
