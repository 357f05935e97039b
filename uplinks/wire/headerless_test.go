package wire_test

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks/wire"
)

// openTUN makes a header-less device ppp0 in a namespace of its own; the file is its other end, with a virtio header.
func openTUN(t *testing.T) (*wire.Port, *os.File) {
	t.Helper()
	ns := newPair(t).gw
	var f *os.File
	labtest.Must(t, ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		labtest.Must(t, err)
		req, err := unix.NewIfreq("ppp0")
		labtest.Must(t, err)
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		labtest.Must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
		f = os.NewFile(uintptr(fd), "ppp0")
		return nil
	}))
	t.Cleanup(func() { _ = f.Close() })
	link, err := ns.Handle().LinkByName("ppp0")
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().LinkSetUp(link))
	labtest.Must(t, ns.Silence("ppp0", true))
	port := openPort(t, ns, "ppp0", wire.Config{MAC: wanMAC, HeaderLess: true})
	labtest.Must(t, port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Ports: []wire.PortRange{{First: 1024, Last: 32767}}, Secret: secret}))
	return port, f
}

// TestHeaderLessSend: segments come out of the device with right checksums and nothing of Ethernet.
func TestHeaderLessSend(t *testing.T) {
	const length = 30000
	port, far := openTUN(t)
	s := port.Sender()
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "small enough to need no padding"))
	s.Queue(superSegment(t, wanAddr, ispAddr, length, 1460))
	labtest.Must(t, s.Flush())
	udp := readIP(t, far, layers.LayerTypeUDP)
	if !bytes.HasSuffix(udp.Data(), []byte("no padding")) {
		t.Errorf("received %q", udp.Data())
	}
	var payload []byte
	for len(payload) < length {
		p := readIP(t, far, layers.LayerTypeTCP)
		payload = append(payload, p.TransportLayer().LayerPayload()...)
	}
	if !bytes.Equal(payload, pattern(length)) {
		t.Error("payload differs")
	}
}

// readIP returns the next packet of the kind, with right checksums, behind an invented Ethernet header.
func readIP(t *testing.T, f *os.File, kind gopacket.LayerType) gopacket.Packet {
	t.Helper()
	_ = f.SetReadDeadline(time.Now().Add(10 * time.Second))
	for buf := make([]byte, 1<<16); ; {
		n, err := f.Read(buf)
		labtest.Must(t, err)
		eth := append(append(append(append([]byte(nil), ispMAC[:]...), wanMAC[:]...), 8, 0), buf[packet.VnetLen:n]...)
		if p := gopacket.NewPacket(eth, layers.LayerTypeEthernet, gopacket.Default); p.Layer(kind) != nil {
			return checkSums(t, eth)
		}
	}
}

// TestHeaderLessReceive: a frame gets an Ethernet header, and the virtio offsets count from it.
func TestHeaderLessReceive(t *testing.T) {
	port, far := openTUN(t)
	frames := reader(port)
	for _, want := range [][]byte{
		udpFrame(t, ispAddr, wanAddr, 2000, "x"),
		superSegment(t, ispAddr, wanAddr, 30000, 1460),
	} {
		ip := int(want[packet.VnetLen+packet.EthernetLen+2])<<8 | int(want[packet.VnetLen+packet.EthernetLen+3])
		want = want[:packet.VnetLen+packet.EthernetLen+ip] // without Ethernet's padding
		copy(want[packet.VnetLen:], wanMAC[:])
		copy(want[packet.VnetLen+6:], make([]byte, 6))
		sent := append([]byte(nil), want[packet.EthernetLen:]...)
		copy(sent, want[:packet.VnetLen])
		if h := packet.VnetHeader(sent); h.NeedsCsum() {
			h.SetCsumStart(h.CsumStart() - packet.EthernetLen)
			h.SetHdrLen(h.HdrLen() - packet.EthernetLen)
		}
		_, err := far.Write(sent)
		labtest.Must(t, err)
		if got := next(t, frames); !bytes.Equal(got, want) {
			t.Errorf("received % x, expected % x", got[:44], want[:44])
		}
	}
}

func TestHeaderLessFilter(t *testing.T) {
	port, far := openTUN(t)
	frames := reader(port)
	for _, f := range [][]byte{
		udpFrame(t, ispAddr, wanAddr, 1023, "refused"), udpFrame(t, ispAddr, ispAddr, 2000, "refused"),
		udpFrame(t, ispAddr, wanAddr, 2000, "ours"),
	} {
		_, err := far.Write(append(make([]byte, packet.VnetLen), f[packet.VnetLen+packet.EthernetLen:]...))
		labtest.Must(t, err)
	}
	if got := next(t, frames); !bytes.Contains(got, []byte("ours")) {
		t.Errorf("received %q", got)
	}
}
