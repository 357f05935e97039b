package fastpath

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
)

// world is a LAN client behind a gateway whose sessions are opened by hand and whose TAP nobody reads: what arrives has
// gone through the programs.
type world struct {
	*rig
	client, gateway, isp *lab.Namespace
}

const deadline = 20 * time.Second

var (
	server = netip.MustParseAddr("203.0.113.9")
	inside = netip.MustParseAddr("10.0.0.2")
)

func newWorld(t *testing.T, connect connector, headerless bool, o *lab.Offloads) *world {
	t.Helper()
	w := &world{client: labtest.Namespace(t, "client"), gateway: labtest.Namespace(t, "gateway"), isp: labtest.Namespace(t, "isp")}
	must, prefix := func(err error) { t.Helper(); labtest.Must(t, err) }, netip.MustParsePrefix
	for path, value := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0"} {
		must(w.gateway.Sysctl(path, value))
	}
	_, err := lab.Connect(lab.End{NS: w.gateway, Device: "lan0", Prefix: prefix("10.0.0.1/24")},
		lab.End{NS: w.client, Device: "eth0", Prefix: prefix("10.0.0.2/24")}, 0)
	must(err)
	link, err := connect(lab.End{NS: w.gateway, Device: "up0", Prefix: prefix("198.51.100.7/24")},
		lab.End{NS: w.isp, Device: "eth0", Prefix: prefix("198.51.100.1/24")}, 0)
	must(err)
	t.Cleanup(func() { labtest.Must(t, link.Unplug()) })
	tap := w.tap(t)
	addServer(t, w.isp)
	addDefault(t, w.client, "10.0.0.1", "eth0")
	addDefault(t, w.gateway, "198.18.73.2", "tapgw0")
	if o != nil {
		must(w.gateway.SetOffloads("lan0", *o))
		must(w.gateway.SetOffloads("up0", *o))
	}
	w.rig = newRig(t)
	w.attach(t, tap, headerless)
	return w
}

func (w *world) tap(t *testing.T) (index int) {
	t.Helper()
	var tap *tapdev.Device
	labtest.Must(t, w.gateway.Do(func() (err error) {
		tap, err = tapdev.Create(tapdev.Config{
			Name: "tapgw0", Address: netip.MustParsePrefix("198.18.73.1/30"), Gateway: netip.MustParseAddr("198.18.73.2"),
			MAC: tapMAC, GatewayMAC: gatewayMAC, MTU: 1500, Queues: 1,
		})
		return err
	}))
	t.Cleanup(func() { labtest.Must(t, tap.Close()) })
	return tap.Index()
}

func (w *world) attach(t *testing.T, tap int, headerless bool) {
	t.Helper()
	up, err := w.gateway.Index("up0")
	labtest.Must(t, err)
	u := usable
	u.Index, u.MTU, u.HeaderLess = up, 1500, headerless
	w.set(t, u)
	if w.family == uplinks.IPv6 {
		u.Gateway = netip.MustParseAddr("fd01::1")
		labtest.Must(t, w.SetUplink(uplinkID, w.family, u))
	}
	labtest.Must(t, w.gateway.Do(func() error {
		if err := w.AttachTAP(tap); err != nil {
			return err
		}
		return w.AttachUplink(uplinkID, up, headerless)
	}))
}

func addServer(t *testing.T, isp *lab.Namespace) {
	t.Helper()
	lo, err := isp.Handle().LinkByName("lo")
	labtest.Must(t, err)
	addr, err := netlink.ParseAddr(server.String() + "/32")
	labtest.Must(t, err)
	labtest.Must(t, isp.Handle().AddrAdd(lo, addr))
}

func addDefault(t *testing.T, ns *lab.Namespace, via, device string) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().RouteAdd(&netlink.Route{LinkIndex: index, Gw: net.ParseIP(via)}))
}

// session opens one from the client's port to the server's.
func (w *world) session(t *testing.T, proto uint8, port, remotePort uint16) (ref nat.Ref, outsideEnd netip.AddrPort) {
	t.Helper()
	s := sample{family: w.family, src: 0x0a000002, dst: 0xcb007109, sport: port, dport: remotePort, proto: proto}
	ref = w.open(t, s.key())
	return ref, w.end(outside, w.table.Translation(ref).OutsidePort)
}

// end is an endpoint as sockets have it.
func (w *world) end(addr uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(w.addr(addr).Netip(), port)
}

// TestOnTheWire sends super-packets with unfinished checksums through both programs, finished before them or behind them.
func TestOnTheWire(t *testing.T) { eachWire(t, newWorld, checkNoBadChecksums) }

// connector joins two namespaces by a link.
type connector = func(near, far lab.End, mtu int) (*lab.Link, error)

// eachWire moves traffic over uplinks of each kind, after which check looks at every host.
func eachWire(t *testing.T, build func(*testing.T, connector, bool, *lab.Offloads) *world, check func(*testing.T, *lab.Namespace)) {
	all := lab.Offloads{TxChecksum: true, RxChecksum: true, TSO: true, GSO: true, GRO: true}
	for _, c := range []struct {
		name       string
		connect    connector
		headerless bool
		offloads   *lab.Offloads // of the gateway's devices: what they do not do is done behind our programs
	}{
		{"Ethernet with offloads", lab.Connect, false, &all},
		{"Ethernet without", lab.Connect, false, &lab.Offloads{RxChecksum: true}},
		{"header-less", lab.ConnectTUN, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := build(t, c.connect, c.headerless, c.offloads)
			w.bulk(t)
			w.datagrams(t)
			for _, ns := range []*lab.Namespace{w.client, w.gateway, w.isp} {
				check(t, ns)
			}
		})
	}
}

// datagrams sends super-packets of datagrams there and back.
func (w *world) datagrams(t *testing.T) {
	const size, each, rounds = 1200, 8, 50
	ref, outside := w.session(t, packet.ProtoUDP, 5000, 53)
	here := udp(t, w.client, w.end(0x0a000002, 5000), w.end(0xcb007109, 53), size)
	there := udp(t, w.isp, w.end(0xcb007109, 53), outside, size)
	for i := range rounds {
		for _, pair := range [][2]net.Conn{{here, there}, {there, here}} {
			data := bytes.Repeat([]byte{byte(i), 1, 2, 3, 4, 5, 6, 7}, size*each/8)
			if _, err := pair[0].Write(data); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size+1)
			for n := range each {
				if l, err := pair[1].Read(got); err != nil || !bytes.Equal(got[:l], data[:size]) {
					t.Fatalf("round %d, datagram %d: %d bytes, error %v", i, n, l, err)
				}
			}
		}
	}
	w.mustHaveCounted(t, ref, rounds*each*size)
}

// bulk sends a stream each way at the same time.
func (w *world) bulk(t *testing.T) {
	const length = 32 << 20
	ref, outside := w.session(t, packet.ProtoTCP, 6000, 80)
	a := established(t, w.client, w.end(0x0a000002, 6000), w.end(0xcb007109, 80), 1000, 2000)
	b := established(t, w.isp, w.end(0xcb007109, 80), outside, 2000, 1000)
	here, there := a(), b()
	ended := make(chan error, 4)
	for _, conn := range []net.Conn{here, there} {
		go func() { _, err := io.CopyN(conn, &stream{}, length); ended <- err }()
		go func() { ended <- (&stream{}).check(conn, length) }()
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	w.mustHaveCounted(t, ref, length)
}

func (w *world) mustHaveCounted(t *testing.T, ref nat.Ref, least uint64) {
	t.Helper()
	for info := range w.table.Sessions {
		if info.Key != w.table.Translation(ref).Key {
			continue
		}
		if info.BytesOut < least || info.BytesIn < least {
			t.Errorf("counted %d bytes out and %d in, want at least %d", info.BytesOut, info.BytesIn, least)
		}
	}
}

// stream is an endless sequence of bytes whose period is no power of two.
type stream struct{ at int }

func (s *stream) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.at % 251)
		s.at++
	}
	return len(b), nil
}

func (s *stream) check(r io.Reader, length int) error {
	got, want := make([]byte, 1<<16), make([]byte, 1<<16)
	for read := 0; read < length; {
		n, err := r.Read(got)
		if err != nil {
			return err
		}
		_, _ = s.Read(want[:n])
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("the stream differs near byte %d", read)
		}
		read += n
	}
	return nil
}

func checkNoBadChecksums(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	var snmp []byte
	labtest.Must(t, ns.Do(func() (err error) { snmp, err = os.ReadFile("/proc/thread-self/net/snmp"); return err }))
	lines, found := strings.Split(string(snmp), "\n"), 0
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j, name := range names {
			if name != "InCsumErrors" && name != "InHdrErrors" {
				continue
			}
			if found++; values[j] != "0" {
				t.Errorf("%s: %s %s is %s", ns.Name(), names[0], name, values[j])
			}
		}
	}
	if found < 3 {
		t.Errorf("%s: cannot read the counters of bad checksums", ns.Name())
	}
}

// socket makes a connected one in a namespace; prepare runs between bind and connect.
func socket(t *testing.T, ns *lab.Namespace, kind int, local, remote netip.AddrPort, prepare func(fd int) error) (fd int) {
	t.Helper()
	domain, address := unix.AF_INET, func(a netip.AddrPort) unix.Sockaddr {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	if local.Addr().Is6() {
		domain, address = unix.AF_INET6, func(a netip.AddrPort) unix.Sockaddr {
			return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
		}
	}
	labtest.Must(t, ns.Do(func() (err error) {
		if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = prepare(fd); err == nil {
			err = unix.Bind(fd, address(local))
		}
		if err == nil {
			err = unix.Connect(fd, address(remote))
		}
		return err
	}))
	return fd
}

// conn hands a socket to Go; it is closed with the test.
func conn(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "")
	c, err := net.FileConn(f)
	labtest.Must(t, err)
	labtest.Must(t, f.Close())
	t.Cleanup(func() { c.Close() })
	labtest.Must(t, c.SetDeadline(time.Now().Add(deadline)))
	return c
}

func udp(t *testing.T, ns *lab.Namespace, local, remote netip.AddrPort, segment int) net.Conn {
	t.Helper()
	return conn(t, socket(t, ns, unix.SOCK_DGRAM, local, remote, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment)
	}))
}

// established makes one end of a TCP connection that needed no handshake, as programs that move connections between
// machines do; the function it returns lets it go.
func established(t *testing.T, ns *lab.Namespace, local, remote netip.AddrPort, seq, ack int) func() net.Conn {
	t.Helper()
	const mssOption, scaleOption, sackOption, receive, transmit = 2, 3, 4, 1, 2
	set := func(fd, option, value int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value) }
	fd := socket(t, ns, unix.SOCK_STREAM, local, remote, func(fd int) error {
		for _, o := range [][2]int{
			{unix.TCP_REPAIR, 1}, {unix.TCP_REPAIR_QUEUE, transmit}, {unix.TCP_QUEUE_SEQ, seq},
			{unix.TCP_REPAIR_QUEUE, receive}, {unix.TCP_QUEUE_SEQ, ack},
		} {
			if err := set(fd, o[0], o[1]); err != nil {
				return err
			}
		}
		return nil
	})
	options := [3][2]uint32{{mssOption, 1460}, {scaleOption, 7<<16 | 7}, {sackOption, 0}}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&options)), unsafe.Sizeof(options))
	labtest.Must(t, unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(raw)))
	return func() net.Conn {
		t.Helper()
		labtest.Must(t, set(fd, unix.TCP_REPAIR, 0))
		return conn(t, fd)
	}
}
