package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// oddSizes are payloads of datagrams: empty, odd, just whole, and in pieces.
var oddSizes = []int{0, 1, 7, 511, 1371, 1372, 1373, 1472, 1473, 2999, 8000}

// noise is n bytes.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// listened is a UDP socket that tells the TTL of what arrives.
type listened struct{ *ipv4.PacketConn }

func listen(ns *lab.Namespace, at netip.AddrPort) (l listened, err error) {
	conn, err := listenUDP(ns, at)
	if err != nil {
		return l, err
	}
	l = listened{ipv4.NewPacketConn(conn)}
	return l, errors.Join(l.SetControlMessage(ipv4.FlagTTL, true), mayCut(conn.(*net.UDPConn)))
}

// mayCut has the kernel send datagrams without DF, and cut them to the MTU of its own device only.
func mayCut(conn *net.UDPConn) error {
	return onSocket(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	})
}

// receive tells what arrives, and from whom.
func (l listened) receive() (seen string, from net.Addr, err error) {
	if err := l.SetReadDeadline(time.Now().Add(lossLimit)); err != nil {
		return "", nil, err
	}
	buf := make([]byte, 1<<16)
	n, cm, from, err := l.ReadFrom(buf)
	if err != nil {
		return kind(err), nil, err
	}
	return fmt.Sprintf("%d bytes %08x TTL %d from %s", n, crc32.ChecksumIEEE(buf[:n]), cm.TTL, from.(*net.UDPAddr).IP), from, nil
}

// pair is a UDP socket of the LAN host and one of a server that has received its first datagram.
type pair struct {
	inside, server listened
	outside        net.Addr // of the inside one, as the server sees it
}

func newPair(s half) (p pair, err error) {
	if p.inside, err = listen(s.lan, anyPort(s.Hosts[0].Addr)); err != nil {
		return p, err
	}
	if p.server, err = listen(s.Internet, anyPort(lab.ServerAddrs[0])); err != nil {
		return p, errors.Join(err, p.inside.Close())
	}
	if _, err = p.inside.WriteTo([]byte("hello"), nil, p.server.LocalAddr()); err == nil {
		_, p.outside, err = p.server.receive()
	}
	if err != nil {
		p.close()
	}
	return p, err
}

func (p pair) close() { _ = errors.Join(p.inside.Close(), p.server.Close()) }

// pairStep is a step of a pair of sockets.
func pairStep(name string, do func(s half, p pair) (seen string, err error)) step {
	return step{name, func(s half) (string, error) {
		p, err := newPair(s)
		if err != nil {
			return "", err
		}
		defer p.close()
		return do(s, p)
	}}
}

// errorStep is one where a host gets ICMP errors, too.
func errorStep(name string, host func(half) *lab.Namespace, do func(s half, p pair, errs errorsOf) (seen string, err error)) step {
	return pairStep(name, func(s half, p pair) (string, error) {
		errs, err := listenErrors(host(s))
		if err != nil {
			return "", err
		}
		defer errs.Close()
		return do(s, p, errs)
	})
}

func insideHost(s half) *lab.Namespace  { return s.lan }
func outsideHost(s half) *lab.Namespace { return s.Internet }

// datagramStep sends datagrams of odd sizes both ways.
func datagramStep(r *rand.Rand) step {
	out, in := noise(r, oddSizes[r.IntN(len(oddSizes))]), noise(r, oddSizes[r.IntN(len(oddSizes))])
	return pairStep(fmt.Sprintf("UDP, %d bytes out, %d in", len(out), len(in)), func(_ half, p pair) (string, error) {
		_, err := p.inside.WriteTo(out, nil, p.server.LocalAddr())
		there, _, _ := p.server.receive() // tells a loss itself
		_, also := p.server.WriteTo(in, nil, p.outside)
		back, _, _ := p.inside.receive()
		return there + "; " + back, errors.Join(err, also)
	})
}

// fragmentStep sends a datagram whose pieces come in any order, one of them twice.
func fragmentStep(r *rand.Rand) step {
	order, id := r.Perm(3), uint16(r.Uint32())
	order = append(order, order[0])
	payload := strings.Repeat(string(rune('a'+r.IntN(26))), 3500+r.IntN(600))
	return pairStep(fmt.Sprint("pieces in the order ", order), func(s half, p pair) (string, error) {
		source, server := udpAddr(p.inside.LocalAddr()), udpAddr(p.server.LocalAddr())
		pieces, err := split(source, server, id, payload)
		for _, i := range order {
			err = errors.Join(err, sendIP(s.lan, server.Addr(), pieces[i]))
		}
		seen, _, _ := p.server.receive()
		return seen, err
	})
}

func udpAddr(a net.Addr) netip.AddrPort { return a.(*net.UDPAddr).AddrPort() }

// split makes a datagram in pieces that fit the uplink.
func split(src, dst netip.AddrPort, id uint16, payload string) (list [][]byte, err error) {
	const room = 1376
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	whole, err := packetOf(src.Addr(), dst.Addr(), &layers.IPv4{}, udp, gopacket.Payload(payload))
	for data := whole[20:]; err == nil && len(data) > 0; {
		n := min(room, len(data))
		h := &layers.IPv4{Id: id, Protocol: layers.IPProtocolUDP, FragOffset: uint16(len(list) * room / 8)}
		if n < len(data) {
			h.Flags = layers.IPv4MoreFragments
		}
		var one []byte
		one, err = packetOf(src.Addr(), dst.Addr(), h, gopacket.Payload(data[:n]))
		list, data = append(list, one), data[n:]
	}
	return list, err
}

// packetOf makes an IPv4 packet.
func packetOf(src, dst netip.Addr, h *layers.IPv4, body ...gopacket.SerializableLayer) ([]byte, error) {
	h.Version, h.TTL, h.SrcIP, h.DstIP = 4, 64, src.AsSlice(), dst.AsSlice()
	var err error
	switch l := body[0].(type) {
	case *layers.UDP:
		h.Protocol, err = layers.IPProtocolUDP, l.SetNetworkLayerForChecksum(h)
	case *layers.ICMPv4:
		h.Protocol = layers.IPProtocolICMPv4
	}
	buf := gopacket.NewSerializeBuffer()
	err = errors.Join(err, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{h}, body...)...))
	return bytes.Clone(buf.Bytes()), err
}

// sendIP sends a packet with its header, whatever is known of the path's MTU.
func sendIP(ns *lab.Namespace, to netip.Addr, b []byte) error {
	fd, err := rawSocket(ns, unix.AF_INET)
	if err != nil {
		return err
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	return errors.Join(err, unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: to.As4()}), unix.Close(fd))
}

// errorsOf listens to the ICMP errors that a host gets.
type errorsOf struct{ net.PacketConn }

func listenErrors(ns *lab.Namespace) (errorsOf, error) {
	conn, err := ns.ListenPacket("ip4:icmp", "0.0.0.0")
	return errorsOf{conn}, err
}

// next tells of the next ICMP message with a quote that match accepts.
func (e errorsOf) next(match func(quoted []byte) bool) string {
	if err := e.SetReadDeadline(time.Now().Add(lossLimit)); err != nil {
		return kind(err)
	}
	for buf := make([]byte, 1500); ; {
		n, from, err := e.ReadFrom(buf)
		if err != nil {
			return kind(err)
		}
		if n < 8+20 || !match(buf[8:n]) {
			continue
		}
		q := buf[8:n]
		return fmt.Sprintf("type %d code %d MTU %d from %s about %v → %v TTL %d", buf[0], buf[1], be16(buf[6:]), from,
			net.IP(q[12:16]), net.IP(q[16:20]), q[8])
	}
}

// quotesPorts accepts a quote of a transport packet with a port at an offset of its header.
func quotesPorts(at int, port uint16) func([]byte) bool {
	return func(q []byte) bool {
		n := int(q[0]&15) * 4
		return len(q) >= n+4 && be16(q[n+at:]) == port
	}
}

// pingStep sends an echo request of some size.
func pingStep(r *rand.Rand) step {
	size := 8 + oddSizes[r.IntN(len(oddSizes))]
	return step{fmt.Sprint("echo of ", size), func(s half) (string, error) {
		ctx, cancel := context.WithTimeout(s.t.Context(), lossLimit)
		defer cancel()
		return "", pingLarge(ctx, s.lan, lab.ServerAddrs[0], size)
	}}
}

// expiringStep sends a datagram or an echo request that lives for few hops.
func expiringStep(r *rand.Rand) step {
	ttl, echo, id := 1+r.IntN(2), r.IntN(2) == 0, 1+r.IntN(1<<15)
	return step{fmt.Sprintf("TTL %d, echo %t", ttl, echo), func(s half) (string, error) {
		errs, err := listenErrors(s.lan)
		if err != nil {
			return "", err
		}
		defer errs.Close()
		if echo {
			request := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: 1}}
			b, err := request.Marshal(nil)
			p := ipv4.NewPacketConn(errs.PacketConn)
			err = errors.Join(err, p.SetTTL(ttl))
			_, also := p.WriteTo(b, nil, &net.IPAddr{IP: lab.ServerAddrs[0].AsSlice()})
			return errs.next(quotesPorts(4, uint16(id))), errors.Join(err, also)
		}
		conn, err := s.lan.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			return "", err
		}
		defer conn.Close()
		err = ipv4.NewPacketConn(conn).SetTTL(ttl)
		_, also := conn.WriteTo([]byte("short life"), &net.UDPAddr{IP: lab.ServerAddrs[0].AsSlice(), Port: 33434})
		return errs.next(quotesPorts(0, udpAddr(conn.LocalAddr()).Port())), errors.Join(err, also)
	}}
}

// tooBigStep sends a packet that must not be cut, about as large as the uplink takes.
func tooBigStep(r *rand.Rand) step {
	size := 1370 + r.IntN(60) - 28
	return errorStep(fmt.Sprint("DF with ", size), insideHost, func(s half, p pair, errs errorsOf) (string, error) {
		source, server := udpAddr(p.inside.LocalAddr()), udpAddr(p.server.LocalAddr())
		udp := &layers.UDP{SrcPort: layers.UDPPort(source.Port()), DstPort: layers.UDPPort(server.Port())}
		h := &layers.IPv4{Flags: layers.IPv4DontFragment}
		b, err := packetOf(source.Addr(), server.Addr(), h, udp, gopacket.Payload(make([]byte, size)))
		err = errors.Join(err, sendIP(s.lan, server.Addr(), b))
		if size+28 > 1400 {
			return errs.next(quotesPorts(0, source.Port())), err
		}
		seen, _, _ := p.server.receive()
		return seen, err
	})
}

// outsideErrorStep has the server, or a router on the way, complain about a datagram.
func outsideErrorStep(r *rand.Rand) step {
	codes := [][2]uint8{{3, 0}, {3, 1}, {3, 2}, {3, 3}, {3, 9}, {3, 13}, {11, 0}, {11, 1}, {12, 0}}
	c, quote := codes[r.IntN(len(codes))], 28+r.IntN(40)
	from := lab.ServerAddrs[r.IntN(2)]
	name := fmt.Sprintf("an error %v of %s quoting %d bytes", c, from, quote)
	return errorStep(name, insideHost, func(s half, p pair, errs errorsOf) (string, error) {
		outside, server := udpAddr(p.outside), udpAddr(p.server.LocalAddr())
		udp := &layers.UDP{SrcPort: layers.UDPPort(outside.Port()), DstPort: layers.UDPPort(server.Port())}
		quoted, err := packetOf(outside.Addr(), server.Addr(), &layers.IPv4{Id: 7}, udp, gopacket.Payload(make([]byte, 40)))
		complaint := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(c[0], c[1])}
		b, also := packetOf(from, outside.Addr(), &layers.IPv4{}, complaint, gopacket.Payload(quoted[:quote]))
		err = errors.Join(err, also, sendIP(s.Internet, outside.Addr(), b))
		seen := errs.next(quotesPorts(0, udpAddr(p.inside.LocalAddr()).Port()))
		_, also = p.server.WriteTo([]byte("still there"), nil, p.outside)
		back, _, _ := p.inside.receive()
		return seen + "; " + back, errors.Join(err, also)
	})
}

// insideErrorStep has the server send to an endpoint whose socket is closed by now.
func insideErrorStep(*rand.Rand) step {
	return errorStep("a socket inside is closed", outsideHost, func(_ half, p pair, errs errorsOf) (string, error) {
		err := p.inside.Close()
		_, also := p.server.WriteTo([]byte("too late"), nil, p.outside)
		return errs.next(quotesPorts(2, udpAddr(p.outside).Port())), errors.Join(err, also)
	})
}
