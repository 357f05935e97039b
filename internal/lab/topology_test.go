package lab_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

var server = lab.ServerAddrs[0]

// masqueraded is a topology whose gateway is an ordinary kernel router.
func masqueraded(t *testing.T, o lab.Options) *lab.Topology {
	t.Helper()
	topo := labtest.Build(t, o)
	labtest.Servers(t, topo)
	labtest.Must(t, topo.Masquerade())
	return topo
}

func TestBuildIsQuick(t *testing.T) {
	labtest.RequireRoot(t)
	start := time.Now()
	labtest.Build(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 8), LANHosts: 8, InnerRouter: true})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	} else {
		t.Logf("8 uplinks and 9 hosts in %v", d)
	}
}

func TestGatewayDoesNotForwardYet(t *testing.T) {
	topo := labtest.Build(t, lab.Options{RPFilter: 1})
	for path, want := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/wan2/rp_filter": "1"} {
		if got, err := topo.Gateway.ReadSysctl(path); err != nil || got != want {
			t.Errorf("%s=%q (%v), want %s", path, got, err, want)
		}
	}
}

func TestKernelRoutesTheTopology(t *testing.T) {
	topo := masqueraded(t, lab.Options{LANHosts: 2, InnerRouter: true,
		Uplinks: []lab.UplinkOptions{{}, {MTU: 1400}, {HeaderLess: true}}})
	for i, u := range topo.Uplinks {
		for _, host := range append(topo.Hosts, topo.InnerHost) {
			for _, addr := range append(lab.ServerAddrs, lab.ProbeTargets...) {
				expectOutside(t, host.Namespace, addr, u.Addr())
			}
		}
		if i < len(topo.Uplinks)-1 {
			labtest.Must(t, u.RemoveDefault())
		}
	}
}

func TestGatewayReachesEveryTargetByEveryUplink(t *testing.T) {
	topo := labtest.Build(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 3)})
	for _, u := range topo.Uplinks {
		for _, target := range append(lab.ProbeTargets, u.NextHop()) {
			_, err := topo.Gateway.Ping(labtest.Context(t), target)
			labtest.Must(t, err)
		}
		labtest.Must(t, u.RemoveDefault())
	}
}

func TestTransfersAreVerified(t *testing.T) {
	offloads := map[string]*lab.Offloads{"defaults": nil, "none": {}, "checksums": {TxChecksum: true, RxChecksum: true}}
	for name, o := range offloads {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Offloads: o, Uplinks: []lab.UplinkOptions{{}, {HeaderLess: true}}})
			for _, u := range topo.Uplinks {
				transferAll(t, topo.Hosts[0].Namespace)
				labtest.Must(t, u.RemoveDefault())
			}
		})
	}
}

func transferAll(t *testing.T, n *lab.Namespace) {
	t.Helper()
	const size = 4 << 20
	ctx := labtest.Context(t)
	for name, f := range map[string]func() (lab.Transfer, error){
		"download":      func() (lab.Transfer, error) { return n.Download(ctx, server, size) },
		"upload":        func() (lab.Transfer, error) { return n.Upload(ctx, server, size) },
		"bulk download": func() (lab.Transfer, error) { return n.BulkDownload(ctx, server, 1, size) },
		"bulk upload":   func() (lab.Transfer, error) { return n.BulkUpload(ctx, server, 2, size) },
	} {
		if got, err := f(); err != nil || got.Bytes != size {
			t.Errorf("%s: %d bytes, %v", name, got.Bytes, err)
		}
	}
}

func TestCutTakesTheCarrierAway(t *testing.T) {
	for name, o := range map[string]lab.UplinkOptions{"veth": {}, "tun": {HeaderLess: true}} {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{o}})
			u := topo.Uplinks[0]
			for range 2 {
				updates := watchLink(t, topo.Gateway)
				labtest.Must(t, u.Link.Cut())
				awaitCarrier(t, updates, u.Device, false)
				labtest.Must(t, u.Link.Mend())
				awaitCarrier(t, updates, u.Device, true)
				expectOutside(t, topo.Hosts[0].Namespace, server, u.Addr())
			}
		})
	}
}

func TestReplugMakesANewDevice(t *testing.T) {
	for name, o := range map[string]lab.UplinkOptions{"veth": {Down: 100e6}, "tun": {HeaderLess: true}} {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{o}})
			u := topo.Uplinks[0]
			before, err := topo.Gateway.Index(u.Device)
			labtest.Must(t, err)
			labtest.Must(t, u.Unplug())
			labtest.Must(t, u.Unplug()) // harmless
			if _, err := topo.Gateway.Index(u.Device); err == nil {
				t.Error("device still there")
			}
			labtest.Must(t, u.Replug())
			after, err := topo.Gateway.Index(u.Device)
			labtest.Must(t, err)
			if before == after {
				t.Errorf("index is still %d", after)
			}
			expectOutside(t, topo.Hosts[0].Namespace, server, u.Addr())
		})
	}
}

func TestRenumber(t *testing.T) {
	for name, o := range map[string]lab.UplinkOptions{"veth": {}, "tun": {HeaderLess: true}} {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{o}})
			u := topo.Uplinks[0]
			customer, provider := netip.MustParsePrefix("100.99.0.9/29"), netip.MustParsePrefix("100.99.0.10/29")
			labtest.Must(t, u.Renumber(customer, provider))
			expectOutside(t, topo.Hosts[0].Namespace, server, customer.Addr())
		})
	}
}

func TestProviderDropsForeignSources(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	labtest.Must(t, topo.Gateway.Sysctl("net/ipv4/ip_forward", "1")) // forwards, but does not translate
	u := topo.Uplinks[0]
	c, err := u.ISP.StartCapture(lab.DeviceBackbone, nil)
	labtest.Must(t, err)
	sendUDP(t, topo.Hosts[0].Namespace, server, 20)
	_, err = topo.Gateway.Ping(labtest.Context(t), server)
	labtest.Must(t, err)
	if r, err := c.Stop(); err != nil || r.UDP != 0 {
		t.Errorf("%d datagrams with inside source left the provider, %v", r.UDP, err)
	}
}

func expectOutside(t *testing.T, n *lab.Namespace, server, want netip.Addr) {
	t.Helper()
	outside, err := n.WhoAmI(labtest.Context(t), server)
	if err != nil || outside.Addr() != want {
		t.Errorf("%s is seen by %s as %s, want %s (%v)", n.Name(), server, outside, want, err)
	}
}

// sendUDP sends datagrams to the UDP echo server without waiting for answers.
func sendUDP(t *testing.T, n *lab.Namespace, server netip.Addr, count int) {
	t.Helper()
	c, err := n.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(server, lab.PortUDPEcho).String())
	labtest.Must(t, err)
	defer c.Close()
	for range count {
		_, err := c.Write([]byte("one way"))
		labtest.Must(t, err)
	}
}

func watchLink(t *testing.T, n *lab.Namespace) chan netlink.LinkUpdate {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 1024), make(chan struct{})
	labtest.Must(t, n.Do(func() error { return netlink.LinkSubscribe(updates, done) }))
	t.Cleanup(func() { close(done) })
	return updates
}

func awaitCarrier(t *testing.T, updates chan netlink.LinkUpdate, device string, want bool) {
	t.Helper()
	const lowerUp = 1 << 16 // IFF_LOWER_UP
	ctx := labtest.Context(t)
	for {
		select {
		case u := <-updates:
			if u.Attrs().Name == device && u.Attrs().RawFlags&lowerUp != 0 == want {
				return
			}
		case <-ctx.Done():
			t.Fatalf("carrier of %s did not become %t", device, want)
		}
	}
}
