package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// deaf is how long a test waits for what must not come.
const deaf = 200 * time.Millisecond

func TestBlackholeHoldsForOldAndNewFlows(t *testing.T) {
	topo := masqueraded(t, lab.Options{})
	host, u := topo.Hosts[0].Namespace, topo.Uplinks[0]
	old := openEcho(t, host)
	expectEcho(t, old, true)
	labtest.Must(t, u.SetFaults(lab.Blackhole))
	expectEcho(t, old, false)
	expectPing(t, host, server, false)
	expectPing(t, topo.Gateway, u.NextHop(), true) // the provider itself still answers
	labtest.Must(t, u.SetFaults())
	expectPing(t, host, server, true)
}

func TestOneWayBlackhole(t *testing.T) {
	for name, tc := range map[string]struct {
		fault lab.Fault
		want  uint64
	}{
		"requests lost": {lab.Fault{From: lab.DeviceCustomer, Loss: 1}, 0},
		"answers lost":  {lab.Fault{To: lab.DeviceCustomer, Loss: 1}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{})
			labtest.Must(t, topo.Uplinks[0].SetFaults(tc.fault))
			c, err := topo.Uplinks[0].ISP.StartCapture(lab.DeviceBackbone, toServer)
			labtest.Must(t, err)
			sendUDP(t, topo.Hosts[0].Namespace, server, 20)
			expectPing(t, topo.Hosts[0].Namespace, server, false)
			r, err := c.Stop()
			labtest.Must(t, err)
			if uint64(len(r.Kept)) != tc.want {
				t.Errorf("%d datagrams passed the provider, want %d", len(r.Kept), tc.want)
			}
		})
	}
}

func TestICMPBlackholeSparesTheRest(t *testing.T) {
	topo := masqueraded(t, lab.Options{})
	labtest.Must(t, topo.Uplinks[0].SetFaults(lab.ICMPBlackhole))
	expectPing(t, topo.Hosts[0].Namespace, server, false)
	expectOutside(t, topo.Hosts[0].Namespace, server, topo.Uplinks[0].Addr())
}

func TestRandomLossLosesItsShare(t *testing.T) {
	topo := masqueraded(t, lab.Options{})
	labtest.Must(t, topo.Uplinks[0].SetFaults(lab.Fault{From: lab.DeviceCustomer, Loss: 0.3}))
	c, err := topo.Uplinks[0].ISP.StartCapture(lab.DeviceBackbone, toServer)
	labtest.Must(t, err)
	const sent = 4000
	sendUDP(t, topo.Hosts[0].Namespace, server, sent)
	r, err := c.Stop()
	labtest.Must(t, err)
	if share := 1 - float64(len(r.Kept))/sent; share < 0.25 || share > 0.35 {
		t.Errorf("lost %.3f of the packets, want 0.3", share)
	}
}

func TestSilenceStopsARPToo(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	u := topo.Uplinks[0]
	labtest.Must(t, u.Silence(true))
	expectPing(t, topo.Gateway, u.NextHop(), false)
	labtest.Must(t, u.Silence(false))
	expectPing(t, topo.Gateway, u.NextHop(), true)
}

// toServer holds for datagrams that go to the echo server.
func toServer(p *lab.Packet) bool {
	return p.UDP != nil && p.Outgoing && p.Dst == netip.AddrPortFrom(server, lab.PortUDPEcho)
}

func openEcho(t *testing.T, n *lab.Namespace) net.Conn {
	t.Helper()
	c, err := n.Dial(labtest.Context(t), "tcp4", netip.AddrPortFrom(server, lab.PortTCPEcho).String())
	labtest.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func expectEcho(t *testing.T, c net.Conn, want bool) {
	t.Helper()
	_, err := c.Write([]byte("ping"))
	labtest.Must(t, err)
	wait := deaf
	if want {
		wait = 10 * time.Second
	}
	labtest.Must(t, c.SetReadDeadline(time.Now().Add(wait)))
	_, err = io.ReadFull(c, make([]byte, 4))
	if (err == nil) != want {
		t.Errorf("echo: %v, want answered %t", err, want)
	}
}

func expectPing(t *testing.T, n *lab.Namespace, addr netip.Addr, want bool) {
	t.Helper()
	wait := deaf
	if want {
		wait = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(labtest.Context(t), wait)
	defer cancel()
	_, err := n.Ping(ctx, addr)
	if want && err != nil {
		t.Error(err)
	}
	if !want && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ping %s: %v, want a timeout", addr, err)
	}
}

func TestDelay(t *testing.T) {
	const delay = 150 * time.Millisecond
	topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{{HeaderLess: true}}})
	rtt := func() time.Duration {
		begun := time.Now()
		expectPing(t, topo.Hosts[0].Namespace, server, true)
		return time.Since(begun)
	}
	labtest.Must(t, topo.Uplinks[0].Link.SetDelay(delay))
	if took := rtt(); took < 2*delay {
		t.Errorf("delayed by %s each way, a ping took %s", delay, took)
	}
	labtest.Must(t, topo.Uplinks[0].Link.SetDelay(0))
	if took := rtt(); took >= 2*delay {
		t.Errorf("without delay, a ping took %s", took)
	}
	if err := masqueraded(t, lab.Options{}).Uplinks[0].Link.SetDelay(delay); !errors.Is(err, lab.ErrCannotDelay) {
		t.Errorf("a veth pair: %v", err)
	}
}
