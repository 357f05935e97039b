package e2e

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestStopClosesConnections: what was connected through the TAP learns of the end at once and can connect anew, and
// connections from other addresses go on.
func TestStopClosesConnections(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	through := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	datagrams := w.dialFrom("udp4", netip.Addr{}, lab.PortUDPEcho)
	around := w.dialFrom("tcp4", w.Uplinks[0].Addr(), lab.PortTCPEcho) // plain routing takes this uplink
	for _, c := range []talker{through, around} {
		labtest.Must(t, c.talk())
	}
	if local := through.LocalAddr().(*net.TCPAddr).IP.String(); local != "198.18.73.1" {
		t.Fatalf("connected from %s, not through the TAP", local)
	}
	waiting := make(chan error, 2)
	for _, c := range []net.Conn{through, datagrams} {
		labtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
		go func() { _, err := c.Read(make([]byte, 1)); waiting <- err }()
	}
	w.stop()
	stopped := time.Now()
	for range cap(waiting) {
		if err := labtest.Ended(t, waiting); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("the application was told: %v", err)
		}
	}
	if took := time.Since(stopped); took > time.Second {
		t.Errorf("the applications were told %s after the stop", took)
	}
	labtest.Must(t, around.talk())
	again := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, again.talk())
}

// dialFrom connects the gateway itself to the Internet, from an address unless that is invalid.
func (w world) dialFrom(network string, source netip.Addr, port uint16) talker {
	w.t.Helper()
	d := &net.Dialer{Timeout: patience}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	conn, err := w.Gateway.DialWith(labtest.Context(w.t), d, network, netip.AddrPortFrom(lab.ServerAddrs[0], port).String())
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return talker{Conn: conn}
}

// TestPortInUse: what cannot be listened on is told before anything is changed.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{RPFilter: 1})
	collector, err := topology.Gateway.Listen("tcp4", "127.0.0.1:0")
	labtest.Must(t, err)
	defer collector.Close()
	dir := t.TempDir()
	config, blocked := filepath.Join(dir, "tapgw.yaml"), filepath.Join(dir, "tapgw.sock")
	labtest.Must(t, os.WriteFile(config, []byte("api: {metrics: '"+collector.Addr().String()+"'}\n"), 0o644))
	routes, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	labtest.Must(t, topology.Gateway.Do(func() error { return netlink.RouteSubscribe(routes, done) }))
	defer close(done)
	before := labtest.Snapshot(t, topology.Gateway)
	refuse := func(want ...string) {
		t.Helper()
		out, status := run(t, topology.Gateway, "run", "--socket", blocked, "--config", config)
		if status != 1 || lines(out) != 1 {
			t.Errorf("status %d\n%s", status, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q does not say %q", out, w)
			}
		}
		labtest.Unchanged(t, topology.Gateway, before)
	}
	refuse("address already in use", "set api.metrics", collector.Addr().String())
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	labtest.Must(t, os.WriteFile(blocked, nil, 0o644))
	refuse("is not a socket", "set api.socket")
	if len(routes) > 0 {
		t.Errorf("%d routes were changed meanwhile", len(routes))
	}
}
