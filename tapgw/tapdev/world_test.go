package tapdev_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

var (
	tapMAC     = [6]byte{0x02, 0x54, 0x41, 0x50, 0x47, 0x01}
	gatewayMAC = [6]byte{0x02, 0x54, 0x41, 0x50, 0x47, 0xfe}
	ispMAC     = [6]byte{0x02, 0, 0, 0, 1, 1}
	wanMAC     = [6]byte{0x02, 0, 0, 0, 1, 2}

	wanAddr  = netip.MustParseAddr("100.64.1.2")
	ispAddr  = netip.MustParseAddr("100.64.1.1")
	server   = netip.MustParseAddr("203.0.113.1") // at the provider
	lanAddr  = netip.MustParseAddr("10.0.0.2")
	tapPre   = netip.MustParsePrefix("198.18.73.1/30")
	gateway  = netip.MustParseAddr("198.18.73.2")
	poolPort = []wire.PortRange{{First: 1024, Last: 65535}}
)

func defaultConfig() tapdev.Config {
	return tapdev.Config{Name: "tapgw0", Address: tapPre, Gateway: gateway, MAC: tapMAC, GatewayMAC: gatewayMAC, MTU: 1500, Queues: 1}
}

func create(t testing.TB, ns *lab.Namespace, cfg tapdev.Config) (d *tapdev.Device) {
	t.Helper()
	labtest.Must(t, ns.Do(func() (err error) { d, err = tapdev.Create(cfg); return err }))
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// world is lan – gw – isp; gw has a TAP and an uplink, wan1.
type world struct {
	lan, gw, isp *lab.Namespace
	dev          *tapdev.Device
	port         *wire.Port
}

func newWorld(t testing.TB, queues int) *world {
	t.Helper()
	w := &world{lan: labtest.Namespace(t, "lan"), gw: labtest.Namespace(t, "gw"), isp: labtest.Namespace(t, "isp")}
	_, err := lab.Connect(lab.End{NS: w.lan, Device: "eth0", Prefix: netip.PrefixFrom(lanAddr, 24)},
		lab.End{NS: w.gw, Device: "lan0", Prefix: netip.MustParsePrefix("10.0.0.1/24")}, 0)
	labtest.Must(t, err)
	_, err = lab.Connect(lab.End{NS: w.gw, Device: "wan1", Prefix: netip.PrefixFrom(wanAddr, 24), MAC: wanMAC[:]},
		lab.End{NS: w.isp, Device: "cust", Prefix: netip.PrefixFrom(ispAddr, 24), MAC: ispMAC[:]}, 0)
	labtest.Must(t, err)
	labtest.Must(t, w.gw.Sysctl("net/ipv4/ip_forward", "1"))
	lo, err := w.isp.Handle().LinkByName("lo")
	labtest.Must(t, err)
	labtest.Must(t, w.isp.Handle().AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(server.AsSlice())}))
	for _, c := range []string{"all", "default", "wan1", "lan0"} {
		labtest.Must(t, w.gw.Sysctl("net/ipv4/conf/"+c+"/rp_filter", "0"))
	}
	addDefault(t, w.lan, "eth0", "10.0.0.1")
	neighbour(t, w.gw, "wan1", ispAddr, ispMAC)
	neighbour(t, w.isp, "cust", wanAddr, wanMAC)
	if queues > 0 {
		w.openGateway(t, queues)
	}
	return w
}

func (w *world) openGateway(t testing.TB, queues int) {
	cfg := defaultConfig()
	cfg.Queues = queues
	w.dev = create(t, w.gw, cfg)
	labtest.Must(t, w.gw.Sysctl("net/ipv4/conf/tapgw0/rp_filter", "0"))
	addDefault(t, w.gw, "tapgw0", gateway.String())
	w.port = openPort(t, w.gw, "wan1", wire.Config{MAC: wanMAC, GatewayMAC: ispMAC, MTU: 1500})
	labtest.Must(t, w.port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Ports: poolPort}))
	labtest.Must(t, w.gw.Silence("wan1", true))
}

func openPort(t testing.TB, ns *lab.Namespace, device string, cfg wire.Config) (p *wire.Port) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	cfg.Index = index
	labtest.Must(t, ns.Do(func() (err error) { p, err = wire.Open(cfg); return err }))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func addDefault(t testing.TB, ns *lab.Namespace, device, via string) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().RouteAdd(&netlink.Route{LinkIndex: index, Gw: net.ParseIP(via)}))
}

func neighbour(t testing.TB, ns *lab.Namespace, device string, addr netip.Addr, mac [6]byte) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().NeighSet(&netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, State: unix.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: mac[:]}))
}

// forward runs a translator of one inside address until the devices are closed.
func (w *world) forward(inside netip.Addr, batch int) {
	for i := range w.dev.Queues() {
		go w.outbound(w.dev.Queues()[i], inside, batch)
	}
	go w.inbound(inside, batch)
}

func (w *world) outbound(q *tapdev.Queue, inside netip.Addr, batch int) {
	runtime.LockOSThread()
	bufs, sizes, s := batchio.Buffers(batch), make([]int, batch), w.port.Sender()
	for {
		n, err := q.ReadBatch(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			if f := bufs[i][:sizes[i]]; rewrite(f, inside, wanAddr, true) {
				s.Queue(f)
			}
		}
		_ = s.Flush()
	}
}

func (w *world) inbound(inside netip.Addr, batch int) {
	runtime.LockOSThread()
	bufs, sizes := batchio.Buffers(batch), make([]int, batch)
	q := w.dev.Queues()[0]
	for {
		n, err := w.port.ReadBatch(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			f := bufs[i][:sizes[i]]
			if rewrite(f, wanAddr, inside, false) {
				copy(f[packet.VnetLen:], tapMAC[:])
				copy(f[packet.VnetLen+6:], gatewayMAC[:])
				_ = q.Write(f)
			}
		}
	}
}

// rewrite replaces the source (or destination) address from by to.
func rewrite(f []byte, from, to netip.Addr, source bool) bool {
	var p packet.Packet
	eth := f[packet.VnetLen:]
	p.Decode(eth)
	at := int(p.L3) + 16
	if source {
		at = int(p.L3) + 12
	}
	if p.Kind != packet.TCP && p.Kind != packet.UDP || word(eth[at:]) != packet.HostOrder(from) {
		return false
	}
	var d packet.Delta
	d.Replace32(word(eth[at:]), packet.HostOrder(to))
	binary.BigEndian.PutUint32(eth[at:], packet.HostOrder(to))
	put16(eth[p.L3+10:], d.Apply)
	sum := eth[p.ChecksumOffset():]
	switch {
	case packet.VnetHeader(f).NeedsCsum():
		put16(sum, d.ApplySeed)
	case p.Kind == packet.TCP || binary.BigEndian.Uint16(sum) != 0:
		put16(sum, d.Apply)
	}
	return true
}

func put16(b []byte, change func(uint16) uint16) {
	binary.BigEndian.PutUint16(b, change(binary.BigEndian.Uint16(b)))
}

func word(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// rawSocket sends into and receives from a device, without a virtio header.
func rawSocket(t testing.TB, ns *lab.Namespace, device string) (fd int) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func sendRaw(t testing.TB, fd int, b []byte) {
	if _, err := unix.Write(fd, b); err != nil {
		t.Error(err)
	}
}
