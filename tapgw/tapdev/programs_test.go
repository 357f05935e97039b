package tapdev_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw/fastpath"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

// carried is a world whose uplink and upcall device have the programs of package fastpath, and no reader but the test.
type carried struct {
	*world
	upcall     *tapdev.Upcall
	programs   *fastpath.Programs
	wan        int // interface index
	headerless bool
	frames     chan []byte // that came by the upcall device from the programs, with a virtio header
}

const (
	service = 2000
	unused  = 2001  // a port that nothing uses
	barrier = 65000 // one that is ours without a session
)

func newCarried(t *testing.T, headerless bool) *carried {
	t.Helper()
	c := &carried{headerless: headerless, frames: make(chan []byte, 1000)}
	if headerless {
		c.world = &world{lan: labtest.Namespace(t, "lan"), gw: labtest.Namespace(t, "gw"), isp: labtest.Namespace(t, "isp")}
		link, err := lab.ConnectTUN(lab.End{NS: c.gw, Device: "wan1", Prefix: netip.PrefixFrom(wanAddr, 32)},
			lab.End{NS: c.isp, Device: "cust", Prefix: netip.PrefixFrom(ispAddr, 32)}, 0)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, link.Unplug()) })
	} else {
		c.world = newWorld(t, 0)
	}
	c.dev = create(t, c.gw, defaultConfig())
	labtest.Must(t, c.gw.Do(func() (err error) {
		c.upcall, err = tapdev.CreateUpcall(tapdev.UpcallConfig{Name: "tapgw0u", MAC: upcallMAC, Address: upcallAddr, Seed: seed})
		return err
	}))
	ended := make(chan struct{})
	t.Cleanup(func() { _ = c.upcall.Close(); <-ended })
	go func() { defer close(ended); c.read() }()
	c.load(t)
	return c
}

// load attaches the programs: all ports of the uplink's address are free but the barrier's.
func (c *carried) load(t *testing.T) {
	t.Helper()
	p, err := fastpath.Load(fastpath.Config{
		MaxSessions: 10, Secret: wire.GiveBackMAC(seed, 0), TAPMAC: tapMAC, GatewayMAC: gatewayMAC, UpcallMAC: upcallMAC,
	})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, p.Close()) })
	c.programs = p
	c.wan, err = c.gw.Index("wan1")
	labtest.Must(t, err)
	u := fastpath.Uplink{Generation: 1, Index: c.wan, MAC: wanMAC, MTU: 1500, HeaderLess: c.headerless, Usable: true}
	labtest.Must(t, p.SetUplink(uplinkID, uplinks.IPv4, u))
	addr := packet.AddrOf(wanAddr)
	labtest.Must(t, p.SetAddresses(uplinkID, uplinks.IPv4, []nat.PortArrays{{Outside: addr, TCP: 0, UDP: 1}}))
	ports := p.Memory().Ports[nat.PortArrayBytes:]
	binary.NativeEndian.PutUint32(ports[barrier*4:], 1<<30)
	labtest.Must(t, c.gw.Do(func() error {
		if err := p.AttachUpcall(c.upcall.Index()); err != nil {
			return err
		}
		if err := p.AttachTAP(c.dev.Index()); err != nil {
			return err
		}
		return p.AttachUplink(uplinkID, c.wan, c.headerless)
	}))
}

// read takes what comes by the upcall device, but for what the host itself sends there.
func (c *carried) read() {
	bufs, sizes := batchio.Buffers(16), make([]int, 16)
	for {
		n, err := c.upcall.Queue(0).ReadBatch(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			if from, _ := c.upcall.Origin(bufs[i][:sizes[i]]); from != tapdev.Nowhere {
				c.frames <- slices.Clone(bufs[i][:sizes[i]])
			}
		}
	}
}

// next is the next frame that came by the upcall device.
func (c *carried) next(t *testing.T) []byte {
	t.Helper()
	select {
	case f := <-c.frames:
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came by the upcall device")
		return nil
	}
}

// handed lets the provider send something, and returns what the programs hand over because of it.
func (c *carried) handed(t *testing.T, send func()) (frames [][]byte) {
	t.Helper()
	send()
	end := datagram(server, wanAddr, barrier, "barrier")
	c.inject(t, end)
	for {
		f := c.next(t)
		if bytes.Equal(f[packet.VnetLen+packet.EthernetLen:], end) {
			return frames
		}
		frames = append(frames, f)
	}
}

// inject puts an IPv4 packet on the provider's end of the cable.
func (c *carried) inject(t *testing.T, ip []byte) {
	t.Helper()
	index, err := c.isp.Index("cust")
	labtest.Must(t, err)
	frame := ip
	if !c.headerless {
		frame = slices.Concat(wanMAC[:], ispMAC[:], []byte{8, 0}, ip)
	}
	labtest.Must(t, c.isp.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: 0x0008}) // ETH_P_IP, network order
	}))
}

// datagram is an IPv4 packet from port 53.
func datagram(src, dst netip.Addr, port uint16, payload string) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, packet.ProtoUDP
	binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^packet.Fold(packet.Sum(0, b[:20])))
	binary.BigEndian.PutUint16(b[20:], 53)
	binary.BigEndian.PutUint16(b[22:], port)
	binary.BigEndian.PutUint16(b[24:], uint16(cap(b)-20))
	b = append(b, payload...)
	from, to := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	binary.BigEndian.PutUint16(b[26:], ^packet.Fold(packet.Sum(packet.PseudoHeader(packet.IPv4(from), packet.IPv4(to), packet.ProtoUDP, len(b)-20), b[20:])))
	return b
}

// changed is a packet with another byte; its header checksum stays right only where it is not looked at.
func changed(b []byte, at int, v byte) []byte {
	b = slices.Clone(b)
	b[at] = v
	return b
}

// TestHandedOver: a header-less uplink hands over the same packets as an Ethernet uplink, with an Ethernet header of ours.
func TestHandedOver(t *testing.T) {
	for _, headerless := range []bool{false, true} {
		t.Run(fmt.Sprintf("header-less %v", headerless), func(t *testing.T) {
			c := newCarried(t, headerless)
			labtest.Must(t, c.programs.SetServices([]uint16{service}))
			free, mine := datagram(server, wanAddr, unused, "free"), datagram(server, wanAddr, barrier, "mine")
			elsewhere := datagram(server, lanAddr, barrier, "elsewhere")
			for _, p := range []struct {
				name   string
				packet []byte
				want   tapdev.Origin // Nowhere when it is the host's alone
			}{
				{"free port", free, tapdev.Nowhere}, {"our port", mine, tapdev.FromUplink}, {"another address", elsewhere, tapdev.Nowhere},
				{"fragment", changed(free, 6, 0x20), tapdev.FromUplink}, {"later fragment", changed(free, 7, 2), tapdev.FromUplink},
				{"TCP, where only UDP is ours", changed(mine, 9, packet.ProtoTCP), tapdev.Nowhere},
				{"another protocol", changed(mine, 9, 132), tapdev.Nowhere},
				{"service", datagram(server, wanAddr, service, "service"), c.whenServed()},
				{"error about ours", quoting(mine), tapdev.FromUplink}, {"error about the host's", quoting(free), tapdev.Nowhere},
			} {
				got := c.handed(t, func() { c.inject(t, p.packet) })
				if p.want == tapdev.Nowhere {
					if len(got) != 0 {
						t.Errorf("%s: Go got %x", p.name, got)
					}
					continue
				}
				if len(got) != 1 {
					t.Errorf("%s: Go got it %d times", p.name, len(got))
					continue
				}
				c.expectHanded(t, p.name, got[0], p.packet, p.want)
			}
		})
	}
}

// whenServed: without an Ethernet header to mark there are no copies, Go has the packet and gives it back.
func (c *carried) whenServed() tapdev.Origin {
	if c.headerless {
		return tapdev.FromUplink
	}
	return tapdev.Copy
}

func (c *carried) expectHanded(t *testing.T, name string, frame, ip []byte, want tapdev.Origin) {
	t.Helper()
	if from, id := c.upcall.Origin(frame); from != want || id != uplinkID {
		t.Errorf("%s: from %v of uplink %d, want %v of %d", name, from, id, want, uplinkID)
	}
	eth := frame[packet.VnetLen:]
	if [6]byte(eth) != upcallMAC || eth[12] != 8 || eth[13] != 0 || !bytes.Equal(eth[packet.EthernetLen:], ip) {
		t.Errorf("%s: Go got\n%x of\n%x", name, eth, ip)
	}
}

// quoting is the answer of a router to a packet that was sent from where ip went to.
func quoting(ip []byte) []byte {
	sent := slices.Clone(ip)
	copy(sent[12:], ip[16:20])
	copy(sent[16:], ip[12:16])
	copy(sent[20:], ip[22:24])
	copy(sent[22:], ip[20:22])
	b := append(slices.Clone(ip[:20]), 3, 1, 0, 0, 0, 0, 0, 0)
	b = append(b, sent...)
	b[9] = packet.ProtoICMP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// arrived is a datagram and how it came.
type arrived struct {
	payload           string
	device, ttl, mark int
}

// listen receives on a UDP port.
func listen(t *testing.T, ns *lab.Namespace, port int) *net.UDPConn {
	t.Helper()
	pc, err := ns.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
	labtest.Must(t, err)
	t.Cleanup(func() { _ = pc.Close() })
	c := pc.(*net.UDPConn)
	labtest.Must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	raw, err := c.SyscallConn()
	labtest.Must(t, err)
	labtest.Must(t, raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTTL}, {unix.SOL_SOCKET, unix.SO_RCVMARK}} {
			labtest.Must(t, unix.SetsockoptInt(int(fd), o[0], o[1], 1))
		}
	}))
	return c
}

func receive(t *testing.T, c *net.UDPConn) (a arrived) {
	t.Helper()
	buf, control := make([]byte, 2000), make([]byte, 200)
	n, cn, _, _, err := c.ReadMsgUDP(buf, control)
	labtest.Must(t, err)
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	labtest.Must(t, err)
	a.payload = string(buf[:n])
	for _, m := range messages {
		value := int(binary.NativeEndian.Uint32(m.Data))
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
			a.device = value
		case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}:
			a.ttl = value
		case [2]int32{unix.SOL_SOCKET, unix.SO_MARK}:
			a.mark = value
		}
	}
	return a
}

func expectArrival(t *testing.T, c *net.UDPConn, want arrived) {
	t.Helper()
	if got := receive(t, c); got != want {
		t.Errorf("received %+v, want %+v", got, want)
	}
}

// TestProgramsGiveBack: what Go gives back is received by the uplink, and does not come round again.
func TestProgramsGiveBack(t *testing.T) {
	for _, headerless := range []bool{false, true} {
		t.Run(fmt.Sprintf("header-less %v", headerless), func(t *testing.T) {
			c := newCarried(t, headerless)
			labtest.Must(t, c.gw.Handle().RouteReplace(&netlink.Route{LinkIndex: c.wan, Scope: unix.RT_SCOPE_LINK, Dst: netlink.NewIPNet(server.AsSlice())}))
			for _, conf := range []string{"all", "wan1"} {
				labtest.Must(t, c.gw.Sysctl("net/ipv4/conf/"+conf+"/rp_filter", "1"))
			}
			socket := listen(t, c.gw, barrier)
			for _, text := range []string{"one", "two"} {
				c.inject(t, datagram(server, wanAddr, barrier, text))
				labtest.Must(t, c.upcall.GiveBack(0, uplinkID, c.next(t)))
				expectArrival(t, socket, arrived{payload: text, device: c.wan, ttl: 64})
			}
			if again := c.handed(t, func() {}); len(again) != 0 {
				t.Errorf("%d frames came round again", len(again))
			}
		})
	}
}

// TestProgramsLeaveAlone: what does not come from Go, or is for nobody, is received by the upcall device itself.
func TestProgramsLeaveAlone(t *testing.T) {
	c := newCarried(t, false)
	addDefault(t, c.gw, "wan1", ispAddr.String()) // even a loose check of sources wants a way to them
	socket := listen(t, c.gw, barrier)
	secret := wire.GiveBackMAC(seed, 0)
	for i, mac := range [][6]byte{
		{secret[0], secret[1], secret[2], secret[3], secret[4] ^ 1, uplinkID},
		{secret[0] ^ 4, secret[1], secret[2], secret[3], secret[4], uplinkID},
		wire.GiveBackMAC(seed+1, uplinkID), wire.GiveBackMAC(seed, uplinkID+1), wire.GiveBackMAC(seed, uplinkID|32), wire.GiveBackMAC(seed, 65),
	} {
		text := fmt.Sprintf("frame %d", i)
		labtest.Must(t, c.upcall.Queues()[0].Write(framed(upcallMAC, mac, datagram(server, wanAddr, barrier, text))))
		expectArrival(t, socket, arrived{payload: text, device: c.upcall.Index(), ttl: 64})
	}
}

// framed adds a virtio and an Ethernet header.
func framed(dst, src [6]byte, ip []byte) []byte {
	return slices.Concat(make([]byte, packet.VnetLen), dst[:], src[:], []byte{8, 0}, ip)
}

// TestProgramsToLAN: the host does not forward, so what a client receives has gone by its hop. All else is the TAP's.
func TestProgramsToLAN(t *testing.T) {
	c := newCarried(t, false)
	labtest.Must(t, c.gw.Sysctl("net/ipv4/ip_forward", "0"))
	lan, err := c.gw.Index("lan0")
	labtest.Must(t, err)
	labtest.Must(t, c.programs.SetHops(uplinks.IPv4, []fastpath.Hop{{Index: lan, MTU: 1000}, {}, {Index: lan, Gateway: lanAddr, MTU: 1500}}))
	client, tap := listen(t, c.lan, service), labtest.Capture(t, c.gw, "tapgw0")
	at, err := c.lan.Index("eth0")
	labtest.Must(t, err)
	behind := netip.MustParseAddr("192.0.2.77") // of the client, for which it does not answer ARP
	labtest.Must(t, c.lan.Sysctl("net/ipv4/conf/all/arp_ignore", "1"))
	labtest.Must(t, c.lan.Handle().RouteAdd(&netlink.Route{
		Dst: netlink.NewIPNet(behind.AsSlice()), LinkIndex: 1, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}))
	for _, p := range []struct {
		name  string
		hop   uint8
		ttl   byte
		size  int
		dst   netip.Addr
		toLAN bool
	}{
		{"by hop", 1, 64, 100, lanAddr, true}, {"last but one", 1, 2, 100, lanAddr, true}, {"most", 1, 255, 100, lanAddr, true},
		{"at the limit", 1, 64, 1000, lanAddr, true}, {"by a gateway", 3, 64, 1500, behind, true}, {"expiring", 1, 1, 100, lanAddr, false},
		{"expired", 1, 0, 100, lanAddr, false}, {"too big", 1, 64, 1001, lanAddr, false}, {"hop that is off", 2, 64, 100, lanAddr, false},
		{"no hop", 0, 64, 100, lanAddr, false}, {"hop without a number", 255, 64, 100, lanAddr, false},
	} {
		text := p.name + strings.Repeat(".", p.size-28-len(p.name))
		ip := datagram(server, p.dst, service, text)
		ip[8] = p.ttl
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(0, ip[:20])))
		frame := framed([6]byte{}, [6]byte{}, ip)
		send := func() error { return c.upcall.ToLAN(0, p.hop, frame) }
		if p.toLAN {
			labtest.Must(t, send())
			expectArrival(t, client, arrived{payload: text, device: at, ttl: int(p.ttl) - 1})
			continue
		}
		seen, err := tap.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return string(p.Payload) == text }, send)
		labtest.Must(t, err)
		if want := framed(tapMAC, gatewayMAC, ip)[packet.VnetLen:]; !bytes.Equal(seen.Data, want) || seen.Outgoing {
			t.Errorf("%s: the TAP received\n%x, want\n%x", p.name, seen.Data, want)
		}
	}
}
