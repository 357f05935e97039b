package tapdev_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

const (
	seed     = 42
	uplinkID = 3
)

var (
	upcallMAC  = [6]byte{0x02, 0x54, 0x41, 0x50, 0x47, 0x02}
	upcallAddr = netip.MustParseAddr("198.18.73.5")
)

// returning is a world in which everything captured on wan1 is given back: only frames from the secret address reach
// the host's stack, as the nftables rule of the daemon has it.
type returning struct {
	*world
	upcall *tapdev.Upcall
}

func newReturning(t *testing.T, bind bool) *returning {
	r := &returning{world: newWorld(t, 0)}
	r.openUplink(t, wire.Config{MAC: wanMAC, GatewayMAC: ispMAC, MTU: 1500}, bind)
	addDefault(t, r.gw, "wan1", ispAddr.String())
	return r
}

func (r *returning) openUplink(t *testing.T, cfg wire.Config, bind bool) {
	t.Helper()
	r.upcall = createUpcall(t, r.gw)
	r.port = openPort(t, r.gw, "wan1", cfg)
	labtest.Must(t, r.port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Ports: poolPort, Secret: wire.GiveBackMAC(seed, uplinkID)}))
	captureOnly(t, r.gw, "wan1")
	index, err := r.gw.Index("wan1")
	labtest.Must(t, err)
	if bind {
		labtest.Must(t, r.upcall.BindUplink(uplinkID, index))
	}
	go r.giveBackAll()
}

// captureOnly drops at the ingress of a device what is not from the secret address.
func captureOnly(t *testing.T, ns *lab.Namespace, device string) {
	t.Helper()
	mac := wire.GiveBackMAC(seed, uplinkID)
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	labtest.Must(t, err)
	table := c.AddTable(&nftables.Table{Name: "capture", Family: nftables.TableFamilyNetdev})
	chain := c.AddChain(&nftables.Chain{Name: "ingress", Table: table, Type: nftables.ChainTypeFilter, Device: device,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: mac[:]}, &expr.Verdict{Kind: expr.VerdictAccept}}})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	labtest.Must(t, c.Flush())
}

func (r *returning) giveBackAll() {
	bufs, sizes := batchio.Buffers(16), make([]int, 16)
	for {
		n, err := r.port.ReadBatch(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			if err := r.upcall.GiveBack(0, uplinkID, bufs[i][:sizes[i]]); err != nil && !errors.Is(err, net.ErrClosed) {
				panic(err)
			}
		}
	}
}

func (r *returning) rpFilter(t *testing.T, value string) {
	t.Helper()
	for _, c := range []string{"all", "wan1"} {
		labtest.Must(t, r.gw.Sysctl("net/ipv4/conf/"+c+"/rp_filter", value))
	}
}

// udpService answers in ns whoever asks on port 2000.
func udpService(t *testing.T, ns *lab.Namespace, addr string) {
	t.Helper()
	c, err := ns.ListenPacket("udp4", addr)
	labtest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		for buf := make([]byte, 100); ; {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// askUDP sends one datagram from the provider to wanAddr and awaits the answer.
func askUDP(t *testing.T, ns *lab.Namespace, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := ns.Dial(ctx, "udp4", wanAddr.String()+":"+port)
	labtest.Must(t, err)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Write([]byte("question"))
	labtest.Must(t, err)
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatalf("no answer: %v", err)
	}
}

// TestLocalServicesReceiveWhatIsGivenBack: as on a host without us, in super-packets with unfinished checksums (veth's
// default) and under both kinds of source check; without a filter, through the upcall device itself.
func TestLocalServicesReceiveWhatIsGivenBack(t *testing.T) {
	for _, c := range []struct {
		name, rpFilter string
		bind           bool
	}{{"strict", "1", true}, {"loose", "2", true}, {"unbound", "2", false}, {"unbound strict", "1", false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newReturning(t, c.bind)
			r.rpFilter(t, c.rpFilter)
			udpService(t, r.gw, "0.0.0.0:2000")
			askUDP(t, r.isp, "2000")
			transfer(t, r.isp, r.gw, wanAddr.String()+":2001", 10<<20)
			s := r.port.Stats()
			if s.ReceivedBytes < 10<<20 || s.ReceivedBytes > 13<<20 {
				t.Errorf("captured %d bytes of 10 MB: less, or again what was given back", s.ReceivedBytes)
			}
			if s.ReceivedBytes/s.Received < 3000 {
				t.Errorf("%d bytes a frame: no super-packets", s.ReceivedBytes/s.Received)
			}
		})
	}
}

// TestGiveBackOnHeaderLessUplink: the filter takes the Ethernet header off again.
func TestGiveBackOnHeaderLessUplink(t *testing.T) {
	for name, bind := range map[string]bool{"bound": true, "unbound": false} {
		t.Run(name, func(t *testing.T) {
			r := &returning{world: &world{gw: labtest.Namespace(t, "gw"), isp: labtest.Namespace(t, "isp")}}
			link, err := lab.ConnectTUN(lab.End{NS: r.gw, Device: "wan1", Prefix: netip.PrefixFrom(wanAddr, 32)},
				lab.End{NS: r.isp, Device: "cust", Prefix: netip.PrefixFrom(ispAddr, 32)}, 0)
			labtest.Must(t, err)
			t.Cleanup(func() { _ = link.Unplug() })
			r.openUplink(t, wire.Config{HeaderLess: true, MTU: 1500}, bind)
			r.rpFilter(t, "1")
			udpService(t, r.gw, "0.0.0.0:2000")
			askUDP(t, r.isp, "2000")
			transfer(t, r.isp, r.gw, wanAddr.String()+":2001", 5<<20)
			if s := r.port.Stats(); s.ReceivedBytes > 7<<20 {
				t.Errorf("captured %d bytes of 5 MB: again what was given back", s.ReceivedBytes)
			}
		})
	}
}

// TestPortForwardOfTheUplinkMatches: a DNAT rule of the host that names wan1 takes what is given back.
func TestPortForwardOfTheUplinkMatches(t *testing.T) {
	r := newReturning(t, true)
	r.rpFilter(t, "1")
	forwardPort(t, r.gw, "wan1", 2000, lanAddr)
	udpService(t, r.lan, "0.0.0.0:2000")
	askUDP(t, r.isp, "2000")
	forwardPort(t, r.gw, "wan1", 2001, lanAddr)
	l, err := r.lan.Listen("tcp4", "0.0.0.0:2001")
	labtest.Must(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	c, err := r.isp.Dial(t.Context(), "tcp4", wanAddr.String()+":2001")
	labtest.Must(t, err)
	defer func() { _ = c.Close() }()
	echo(t, c, 5<<20)
}

// forwardPort is `iifname DEV meta l4proto {tcp, udp} th dport PORT dnat to ADDR`.
func forwardPort(t *testing.T, ns *lab.Namespace, device string, port uint16, to netip.Addr) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	labtest.Must(t, err)
	name := make([]byte, 16)
	copy(name, device)
	table := c.AddTable(&nftables.Table{Name: "forwards", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: "pre", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(port >> 8), byte(port)}},
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}})
	labtest.Must(t, c.Flush())
}

// TestBindUplinkFollowsTheDevice: bound anew when the uplink gets another index, and unbound.
func TestBindUplinkFollowsTheDevice(t *testing.T) {
	r := newReturning(t, false)
	r.rpFilter(t, "1")
	wan, err := r.gw.Index("wan1")
	labtest.Must(t, err)
	lan, err := r.gw.Index("lan0")
	labtest.Must(t, err)
	filters := func() int {
		link, err := r.gw.Handle().LinkByIndex(r.upcall.Index())
		labtest.Must(t, err)
		list, err := r.gw.Handle().FilterList(link, 0xfffffff2)
		labtest.Must(t, err)
		return len(list)
	}
	for _, index := range []int{lan, wan, wan} {
		labtest.Must(t, r.upcall.BindUplink(uplinkID, index))
		labtest.Must(t, r.upcall.BindUplink(uplinkID+1, index))
	}
	many := filters()
	labtest.Must(t, r.upcall.BindUplink(uplinkID+1, 0))
	if few := filters(); few*2 != many {
		t.Errorf("%d filters of two uplinks became %d of one", many, few)
	}
	udpService(t, r.gw, "0.0.0.0:2000")
	askUDP(t, r.isp, "2000")
	if err := r.upcall.BindUplink(uplinkID, 1<<20); err == nil {
		t.Error("bound to a device that does not exist")
	}
	labtest.Must(t, r.upcall.BindUplink(uplinkID, wan))
	askUDP(t, r.isp, "2000")
}

func TestGiveBackIgnoresScraps(t *testing.T) {
	r := newReturning(t, true)
	for n := range packet.VnetLen + packet.EthernetLen + 40 {
		_ = r.upcall.GiveBack(0, uplinkID, make([]byte, n))
		_ = r.upcall.ToLAN(0, 1, make([]byte, n))
	}
}

// TestBindingLosesNothing: devices are bound, as hosts of a new LAN are heard, while first packets pass here.
func TestBindingLosesNothing(t *testing.T) {
	gw := labtest.Namespace(t, "gw")
	lo, err := gw.Index("lo")
	labtest.Must(t, err)
	for range 20 {
		u := createUpcall(t, gw)
		fd, arrived := rawSocket(t, gw, u.Name()), make(chan struct{})
		go func() {
			bufs, sizes := batchio.Buffers(16), make([]int, 16)
			for n, err := u.Queue(0).ReadBatch(bufs, sizes); err == nil; n, err = u.Queue(0).ReadBatch(bufs, sizes) {
				for i := range n {
					if bufs[i][packet.VnetLen+packet.EthernetLen] == 0x45 { // and not the kernel's own of IPv6
						arrived <- struct{}{}
					}
				}
			}
		}()
		send := func() {
			sendRaw(t, fd, slices.Concat(upcallMAC[:], wanMAC[:], []byte{8, 0}, datagram(server, lanAddr, 1, "first")))
			select {
			case <-arrived:
			case <-time.After(2 * time.Second):
				t.Error("a frame was lost")
			}
		}
		send()
		bound := make(chan error, 1)
		go func() { bound <- u.BindLAN(0, lo) }()
		for len(bound) == 0 && !t.Failed() {
			send()
		}
		labtest.Must(t, errors.Join(<-bound, u.Close()))
	}
}

func createUpcall(t *testing.T, ns *lab.Namespace) (u *tapdev.Upcall) {
	t.Helper()
	labtest.Must(t, ns.Do(func() (err error) {
		u, err = tapdev.CreateUpcall(tapdev.UpcallConfig{Name: "tapgw0u", MAC: upcallMAC, Address: upcallAddr, Seed: seed})
		return err
	}))
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func TestOrigin(t *testing.T) {
	u := createUpcall(t, labtest.Namespace(t, "gw"))
	frame := func(mac [6]byte) []byte {
		b := make([]byte, packet.VnetLen+packet.EthernetLen)
		copy(b[packet.VnetLen+6:], mac[:])
		return b
	}
	for tag := range 256 {
		want, uplink := tapdev.Nowhere, uint8(0)
		switch {
		case tag < 32:
			want, uplink = tapdev.FromUplink, uint8(tag)
		case tag < 64:
			want, uplink = tapdev.Copy, uint8(tag-32)
		case tag == 64:
			want = tapdev.FromLAN
		}
		ours := frame(wire.GiveBackMAC(seed, uint8(tag)))
		if got, id := u.Origin(ours); got != want || id != uplink {
			t.Errorf("tag %d: from %d of uplink %d, want %d of %d", tag, got, id, want, uplink)
		}
		for _, strange := range [][]byte{frame(wire.GiveBackMAC(seed+1, uint8(tag))), ours[:len(ours)-1], nil} {
			if got, id := u.Origin(strange); got != tapdev.Nowhere || id != 0 {
				t.Errorf("tag %d with another secret, or cut: from %d of uplink %d", tag, got, id)
			}
		}
	}
}
