package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// newTestPeer makes a peer of a family that lives as long as the test.
func newTestPeer(t *testing.T, m maker, f *family) *peer {
	t.Helper()
	labtest.RequireRoot(t)
	p, err := m.make(t.Context(), room{family: f})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, p.close()) })
	return p
}

// inFamilies runs a test with each family.
func inFamilies(t *testing.T, test func(*testing.T, *family)) {
	for _, f := range []*family{ipv4, ipv6} {
		t.Run(f.name, func(t *testing.T) { test(t, f) })
	}
}

// TestOpen lets the kernel and a gateway without sessions forward a whole turn of many flows.
func TestOpen(t *testing.T) {
	inFamilies(t, func(t *testing.T, f *family) {
		for _, m := range []maker{kernelMaker(nameKernelRules, true), {nameRedirect, newRedirect}} {
			p := newTestPeer(t, m, f)
			f := flows{500, 7}
			labtest.Must(t, f.open(t.Context(), p))
			if p.sessions == nil {
				continue
			}
			if held, err := p.sessions(); err != nil || held < f.count() {
				t.Errorf("%s holds %d sessions (%v), want %d", p.name, held, err, f.count())
			}
		}
	})
}

// TestOpenFails tells what is missing when a gateway takes no packet.
func TestOpenFails(t *testing.T) {
	p := newTestPeer(t, maker{nameRouted, newRouted}, ipv4)
	labtest.Must(t, p.lab.Gateway.Sysctl(p.family.forwarding, "0"))
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := (flows{10, 1}).open(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a gateway that forwards nothing: %v", err)
	}
}

// TestSources lets an independent decoder look at what the providers receive of the flood: translated to the uplink's own
// address where the gateway translates, from the LAN where it does not, and good in every other respect.
func TestSources(t *testing.T) {
	inFamilies(t, func(t *testing.T, f *family) {
		for _, m := range []maker{kernelMaker(nameKernelRules, true), {nameRedirect, newRedirect}, {nameRouted, newRouted}} {
			p := newTestPeer(t, m, f)
			var captures []*lab.Capture
			for _, u := range p.lab.Uplinks {
				c, err := u.ISP.StartCapture(lab.DeviceCustomer, func(c *lab.Packet) bool { return c.Dst.Port() == portDiscard })
				labtest.Must(t, err)
				captures = append(captures, c)
			}
			labtest.Must(t, flows{50, 1}.open(t.Context(), p))
			labtest.Must(t, p.checkSources())
			seen := 0
			for i, c := range captures {
				report, err := c.Stop()
				labtest.Must(t, err)
				seen += len(report.Kept)
				for _, k := range slices.Concat(report.Kept, report.BadOnes) {
					if k.Problem != "" || k.UDP == nil || !p.expected(p.lab.Uplinks[i]).Contains(k.Src.Addr()) || k.Dst.Addr() != f.server(0) {
						t.Errorf("%s: %s", p.name, k)
					}
				}
			}
			if seen < 50 {
				t.Errorf("%s: %d packets", p.name, seen)
			}
		}
	})
}

// TestWrongSources: a gateway that is thought to translate, and does not, has no figures.
func TestWrongSources(t *testing.T) {
	inFamilies(t, func(t *testing.T, f *family) {
		m := maker{"routed", func(ctx context.Context, r room) (*peer, error) {
			p := &peer{name: "routed", family: r.family, translates: true}
			return newPeer(ctx, p, func() error { return errors.Join(p.routeLAN(), p.forward()) })
		}}
		p := newTestPeer(t, m, f)
		if _, err := (flows{1, 1}).rate(t.Context(), p, quick); err == nil || !strings.Contains(err.Error(), "wrong source") {
			t.Errorf("untranslated packets: %v", err)
		}
	})
}

// TestCarried: packets that pass a program are no figure of the kernel's.
func TestCarried(t *testing.T) {
	p := newTestPeer(t, maker{nameRouted, newRouted}, ipv4)
	for _, c := range []struct {
		sent func() (uint64, error)
		ok   bool
	}{
		{func() (uint64, error) { return 7, nil }, true},
		{p.forwarded, false},
		{func() (uint64, error) { return 0, errNothing }, false},
	} {
		p.sent = c.sent
		if rate, err := (flows{1, 1}).rate(t.Context(), p, quick); (err == nil) != c.ok || c.ok && rate <= 0 {
			t.Errorf("%g packets per second, %v", rate, err)
		}
	}
}

// TestFloodIsWellFormed lets an independent decoder look at what the LAN port received: all checksums are right, also of
// frames that came back rewritten, and every endpoint and every server has its turn.
func TestFloodIsWellFormed(t *testing.T) { inFamilies(t, testFlood) }

func testFlood(t *testing.T, v *family) {
	p := newTestPeer(t, kernelMaker(nameKernel, false), v)
	const portsOfAddress = 1 << 15
	f := flows{portsOfAddress + 3, 3}
	seen, servers := make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	capture, err := p.lab.Gateway.StartCapture(lab.DeviceLAN, func(c *lab.Packet) bool {
		if c.UDP != nil {
			seen[c.Src], servers[c.Dst] = true, true
		}
		return false
	})
	labtest.Must(t, err)
	g, err := newGenerator(v, f, xdpPass, 0)
	labtest.Must(t, err)
	defer g.close()
	want := 2 * f.count()
	if n, err := g.inject(t.Context(), p.lab.Gateway, want); n != want || err != nil {
		t.Errorf("%d packets (%v), want %d", n, err, want)
	}
	report, err := capture.Stop()
	labtest.Must(t, err)
	for _, bad := range report.BadOnes {
		t.Errorf("bad packet: %s", bad)
	}
	for _, addr := range []netip.Addr{v.gateway.Next(), v.gateway.Next().Next()} {
		if first := netip.AddrPortFrom(addr, 1024); !seen[first] {
			t.Errorf("no packet from %s", first)
		}
	}
	if len(seen) < f.endpoints/2 || len(seen) > f.endpoints { // the capture may lose some
		t.Errorf("packets of %d endpoints, want %d", len(seen), f.endpoints)
	}
	if len(servers) != f.remotes || !servers[netip.AddrPortFrom(v.server(2), portDiscard)] {
		t.Errorf("packets to %v, want %d servers", servers, f.remotes)
	}
}

// TestPace bounds the rate of a generator.
func TestPace(t *testing.T) {
	labtest.RequireRoot(t)
	topology := labtest.Build(t, lab.Options{})
	g, err := newGenerator(ipv4, flows{1, 1}, xdpDrop, 10_000)
	labtest.Must(t, err)
	defer g.close()
	begin := time.Now()
	_, err = g.inject(t.Context(), topology.Gateway, 2000)
	labtest.Must(t, err)
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("2,000 packets at 10,000 a second took %s", took)
	}
}

func TestGeneratorLimits(t *testing.T) {
	for _, f := range []flows{{0, 1}, {-1, 1}, {maxEndpoints + 1, 1}, {1, 0}, {1, maxRemotes + 1}} {
		if _, err := newGenerator(ipv6, f, xdpPass, 0); err == nil {
			t.Errorf("a flood of %+v was accepted", f)
		}
	}
}
