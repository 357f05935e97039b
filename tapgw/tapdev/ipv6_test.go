package tapdev_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks/wire/batchio"
)

var (
	hostV6    = netip.MustParseAddr("2001:db8:1::abcd")
	earlierV6 = netip.MustParseAddr("2001:db8:9::abcd")
	gatewayV6 = netip.MustParseAddr("fe80::7467")
	serverV6  = netip.MustParseAddr("2001:db8:f::1")
)

// onTAP is a TAP with IPv6 in a namespace. All of it runs there, because settings belong to the thread's.
type onTAP struct {
	t  *testing.T
	ns *lab.Namespace
	d  *tapdev.Device
}

func newOnTAP(t *testing.T, v tapdev.IPv6) onTAP {
	t.Helper()
	cfg, ns := defaultConfig(), labtest.Namespace(t, "gw")
	cfg.IPv6 = v
	return onTAP{t, ns, create(t, ns, cfg)}
}

// check returns what was repaired.
func (o onTAP) check(mtu int) (repaired []string) {
	o.t.Helper()
	labtest.Must(o.t, o.ns.Do(func() (err error) { repaired, err = o.d.Check(mtu); return err }))
	return repaired
}

// addresses are those of the device with their roles.
func (o onTAP) addresses() (list []string) {
	o.t.Helper()
	have, err := o.ns.Handle().AddrList(linkOf(o.t, o.ns, o.d.Index()), netlink.FAMILY_V6)
	labtest.Must(o.t, err)
	for _, a := range have {
		role := ""
		if a.Flags&unix.IFA_F_DEPRECATED != 0 {
			role = " deprecated"
		}
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			role += " tentative"
		}
		list = append(list, a.IPNet.String()+role)
	}
	slices.Sort(list)
	return list
}

func (o onTAP) expect(v tapdev.IPv6, addresses ...string) {
	o.t.Helper()
	if got := o.addresses(); !slices.Equal(got, addresses) {
		o.t.Errorf("addresses %q, expected %q", got, addresses)
	}
	neighs, err := o.ns.Handle().NeighList(o.d.Index(), netlink.FAMILY_V6)
	labtest.Must(o.t, err)
	neighs = slices.DeleteFunc(neighs, func(n netlink.Neigh) bool { return n.State != unix.NUD_PERMANENT })
	if len(neighs) != 1 || !neighs[0].IP.Equal(v.Gateway.AsSlice()) || neighs[0].HardwareAddr.String() != "02:54:41:50:47:fe" {
		o.t.Errorf("neighbours %v", neighs)
	}
	for setting, want := range map[string]string{
		"disable_ipv6": "0", "addr_gen_mode": "1", "accept_ra": "0", "autoconf": "0", "dad_transmits": "0", "router_solicitations": "0",
	} {
		if got, err := o.ns.ReadSysctl("net/ipv6/conf/tapgw0/" + setting); err != nil || got != want {
			o.t.Errorf("%s is %s, %v", setting, got, err)
		}
	}
	if o.d.HasIPv6() != v.Address.IsValid() {
		o.t.Errorf("HasIPv6 is %t", o.d.HasIPv6())
	}
	if again := o.check(1500); len(again) > 0 {
		o.t.Errorf("another Check repaired %q", again)
	}
}

func (o onTAP) off() {
	o.t.Helper()
	if v, _ := o.ns.ReadSysctl("net/ipv6/conf/tapgw0/disable_ipv6"); v == "0" || o.d.HasIPv6() || len(o.addresses()) > 0 {
		o.t.Errorf("disable_ipv6 is %q, HasIPv6 %t, addresses %q", v, o.d.HasIPv6(), o.addresses())
	}
}

func both() tapdev.IPv6 {
	return tapdev.IPv6{Address: hostV6, Earlier: []netip.Addr{earlierV6}, Gateway: gatewayV6}
}

func TestIPv6IsFollowed(t *testing.T) {
	one := tapdev.IPv6{Address: hostV6, Gateway: gatewayV6}
	o := newOnTAP(t, one)
	o.expect(one, "2001:db8:1::abcd/128")
	for _, step := range []struct {
		want      tapdev.IPv6
		addresses []string
	}{
		{tapdev.IPv6{Address: earlierV6, Earlier: []netip.Addr{hostV6}, Gateway: gatewayV6},
			[]string{"2001:db8:1::abcd/128 deprecated", "2001:db8:9::abcd/128"}},
		{both(), []string{"2001:db8:1::abcd/128", "2001:db8:9::abcd/128 deprecated"}},
		{tapdev.IPv6{Earlier: []netip.Addr{hostV6}, Gateway: gatewayV6}, []string{"2001:db8:1::abcd/128 deprecated"}},
		{one, []string{"2001:db8:1::abcd/128"}},
	} {
		o.d.SetIPv6(step.want)
		if repaired := o.check(1500); len(repaired) > 0 {
			t.Errorf("a new wish is no repair: %q", repaired)
		}
		o.expect(step.want, step.addresses...)
	}
	o.d.SetIPv6(tapdev.IPv6{})
	if repaired := o.check(1500); len(repaired) > 0 {
		t.Errorf("a new wish is no repair: %q", repaired)
	}
	o.off()
}

// TestIPv6IsRepaired: whatever others change is put back and told.
func TestIPv6IsRepaired(t *testing.T) {
	o := newOnTAP(t, both())
	h, link := o.ns.Handle(), linkOf(t, o.ns, o.d.Index())
	setting := func(name, value string) func() error {
		return func() error { return o.ns.Sysctl("net/ipv6/conf/tapgw0/"+name, value) }
	}
	preferred := &netlink.Addr{IPNet: netlink.NewIPNet(earlierV6.AsSlice()), ValidLft: 1000, PreferedLft: 1000}
	for _, c := range []struct {
		what  string
		spoil func() error
	}{
		{"address 2001:db8:1::abcd", func() error { return h.AddrDel(link, &netlink.Addr{IPNet: netlink.NewIPNet(hostV6.AsSlice())}) }},
		{"address 2001:db8:9::abcd", func() error { return h.AddrReplace(link, preferred) }},
		{"neighbour fe80::7467", func() error {
			return h.NeighDel(&netlink.Neigh{LinkIndex: o.d.Index(), Family: netlink.FAMILY_V6, IP: gatewayV6.AsSlice()})
		}},
		{"IPv6 on", setting("disable_ipv6", "1")},
		{"IPv6 on", setting("accept_ra", "1")},
		{"IPv6 on", setting("addr_gen_mode", "0")},
		{"address 2001:db8:1::abcd", func() error { return h.LinkSetDown(link) }},
		{"IPv6 on", func() error { return h.LinkSetMTU(link, 1000) }},
	} {
		labtest.Must(t, c.spoil())
		if repaired := o.check(1500); !slices.Contains(repaired, c.what) {
			t.Errorf("%s: repaired %q", c.what, repaired)
		}
		o.expect(both(), "2001:db8:1::abcd/128", "2001:db8:9::abcd/128 deprecated")
	}
}

// TestIPv6StaysOff: a device without IPv6 gets none from whoever switches it on for all.
func TestIPv6StaysOff(t *testing.T) {
	o := newOnTAP(t, tapdev.IPv6{})
	labtest.Must(t, o.ns.Sysctl("net/ipv6/conf/all/disable_ipv6", "0"))
	if repaired := o.check(1500); !slices.Contains(repaired, "IPv6 off") {
		t.Errorf("repaired %q", repaired)
	}
	o.off()
}

// TestSmallMTU: below 1280 bytes there is no IPv6, and above it is back, whether wanted or not.
func TestSmallMTU(t *testing.T) {
	for _, v := range []tapdev.IPv6{both(), {}} {
		o := newOnTAP(t, v)
		for range 2 {
			if repaired := o.check(1200); len(repaired) > 0 {
				t.Errorf("a new wish is no repair: %q", repaired)
			}
			o.off()
			if repaired := o.check(1500); len(repaired) > 0 {
				t.Errorf("a new wish is no repair: %q", repaired)
			}
			if v.Address.IsValid() {
				o.expect(v, "2001:db8:1::abcd/128", "2001:db8:9::abcd/128 deprecated")
			} else {
				o.off()
			}
		}
	}
}

// withUplink gives the namespace an uplink as a router's advertisements would, and the default routes that the daemon sets.
func (o onTAP) withUplink() (far *lab.Namespace) {
	o.t.Helper()
	far = labtest.Namespace(o.t, "isp")
	_, err := lab.Connect(lab.End{NS: o.ns, Device: "wan1", Prefix: netip.MustParsePrefix("2001:db8:1::2/64")},
		lab.End{NS: far, Device: "cust", Prefix: netip.MustParsePrefix("2001:db8:1::1/64")}, 0)
	labtest.Must(o.t, err)
	wan, err := o.ns.Index("wan1")
	labtest.Must(o.t, err)
	for _, r := range []netlink.Route{
		{LinkIndex: wan, Gw: net.ParseIP("fe80::1"), Priority: 1024, Protocol: unix.RTPROT_RA},
		{LinkIndex: o.d.Index(), Gw: gatewayV6.AsSlice(), Priority: 75},
		{LinkIndex: o.d.Index(), Gw: gateway.AsSlice(), Priority: 75},
	} {
		labtest.Must(o.t, o.ns.Handle().RouteAdd(&r))
	}
	return far
}

// sourceTo is the address that a socket of this host sends from.
func (o onTAP) sourceTo(server netip.Addr) netip.Addr {
	o.t.Helper()
	conn, err := o.ns.Dial(labtest.Context(o.t), "udp", netip.AddrPortFrom(server, 7).String())
	labtest.Must(o.t, err)
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// firstOf is the address that programs try first for a name that has both families (getaddrinfo, RFC 6724).
func (o onTAP) firstOf(addresses ...string) string {
	o.t.Helper()
	for _, tool := range []string{"unshare", "mount", "getent"} {
		if _, err := os.Stat("/usr/bin/" + tool); err != nil {
			o.t.Skipf("no %s", tool)
		}
	}
	hosts := filepath.Join(o.t.TempDir(), "hosts")
	labtest.Must(o.t, os.WriteFile(hosts, []byte(strings.Join(addresses, " both.test\n")+" both.test\n"), 0o644))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := o.ns.Command(ctx, "unshare", "--mount", "sh", "-c", "mount --bind "+hosts+" /etc/hosts && getent ahosts both.test").CombinedOutput()
	if err != nil {
		o.t.Fatalf("%v: %s", err, out)
	}
	first, _, _ := strings.Cut(string(out), " ")
	return first
}

// TestHostsPreferIPv6: what applications do by themselves takes IPv6 by the TAP, from the address for new connections, as they
// would take it by the uplink. With a local address they would not.
func TestHostsPreferIPv6(t *testing.T) {
	o := newOnTAP(t, both())
	o.withUplink()
	if got := o.sourceTo(serverV6); got != hostV6 {
		t.Errorf("sends from %s, expected %s", got, hostV6)
	}
	if got := o.firstOf("203.0.113.1", serverV6.String()); got != serverV6.String() {
		t.Errorf("a name with both families leads to %s first", got)
	}
	local := netip.MustParseAddr("fd00:1::abcd")
	o.d.SetIPv6(tapdev.IPv6{Address: local, Earlier: []netip.Addr{hostV6, earlierV6}, Gateway: gatewayV6})
	o.check(1500)
	if got := o.sourceTo(serverV6); got != local {
		t.Errorf("sends from %s, expected %s", got, local)
	}
	if got := o.firstOf("203.0.113.1", serverV6.String()); got != "203.0.113.1" {
		t.Errorf("a name with both families leads to %s first from a local address", got)
	}
}

// TestMulticastStays on the device it had: without a word of the sender the TAP is never chosen, also where an uplink has been
// switched off and on.
func TestMulticastStays(t *testing.T) {
	o := newOnTAP(t, both())
	far := o.withUplink()
	wan, err := o.ns.Handle().LinkByName("wan1")
	labtest.Must(t, err)
	groups := []netip.AddrPort{netip.MustParseAddrPort("[ff02::fb]:5353"), netip.MustParseAddrPort("[ff05::fb]:5354")}
	for i := range 2 {
		for _, group := range groups {
			if err := o.announce(far, group); err != nil {
				t.Errorf("round %d, %s: %v", i, group, err)
			}
		}
		labtest.Must(t, o.ns.Handle().LinkSetDown(wan))
		labtest.Must(t, o.ns.Handle().LinkSetUp(wan))
		o.check(1500)
	}
}

// announce sends to a group from a socket that names no device, and waits for it at the provider's.
func (o onTAP) announce(far *lab.Namespace, group netip.AddrPort) error {
	var member *net.UDPConn
	labtest.Must(o.t, far.Do(func() error {
		device, err := net.InterfaceByName("cust")
		labtest.Must(o.t, err)
		member, err = net.ListenMulticastUDP("udp6", device, net.UDPAddrFromAddrPort(group))
		return err
	}))
	defer member.Close()
	labtest.Must(o.t, member.SetReadDeadline(time.Now().Add(5*time.Second)))
	conn, err := o.ns.ListenPacket("udp6", "[::]:0")
	labtest.Must(o.t, err)
	defer conn.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := conn.WriteTo([]byte("who is there?"), net.UDPAddrFromAddrPort(group))
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EADDRNOTAVAIL) || time.Now().After(deadline) { // the uplink gets its own address in a moment
			return err
		}
	}
	_, _, err = member.ReadFromUDPAddrPort(make([]byte, 100))
	return err
}

// TestQuiet: nobody is asked for anything on the TAP. Reports of group memberships are all that comes out.
func TestQuiet(t *testing.T) {
	o := newOnTAP(t, both())
	o.withUplink()
	frames := make(chan []byte)
	go func() {
		defer close(frames)
		bufs, sizes := batchio.Buffers(16), make([]int, 16)
		for {
			n, err := o.d.Queues()[0].ReadBatch(bufs, sizes)
			if err != nil {
				return
			}
			for i := range n {
				frames <- slices.Clone(bufs[i][packet.VnetLen:sizes[i]])
			}
		}
	}()
	sent := false
	for quiet := time.After(2 * time.Second); ; {
		if !sent {
			conn, err := o.ns.Dial(labtest.Context(t), "udp", netip.AddrPortFrom(serverV6, 7).String())
			labtest.Must(t, err)
			_, err = conn.Write([]byte("hello"))
			labtest.Must(t, err)
			labtest.Must(t, conn.Close())
			sent = true
		}
		select {
		case f := <-frames:
			var p packet.Packet
			p.Decode(f)
			switch {
			case p.Kind == packet.UDP:
				if mac := [6]byte(f); mac != gatewayMAC {
					t.Errorf("sent to %x", mac)
				}
			case len(f) > 62 && f[20] == 0 && f[62] == 143: // hop-by-hop options, then a report (RFC 3810)
			default:
				t.Errorf("came out: %x", f)
			}
		case <-quiet:
			return
		}
	}
}
