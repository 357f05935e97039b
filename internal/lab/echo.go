package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// packetConn is a socket of one family that tells to which address a datagram was sent, and answers from there.
type packetConn interface {
	read(b []byte) (n int, at net.IP, from net.Addr, err error)
	answer(b []byte, at net.IP, to net.Addr)
}

type packetConnV4 struct{ *ipv4.PacketConn }

func (c packetConnV4) read(b []byte) (int, net.IP, net.Addr, error) {
	n, cm, from, err := c.ReadFrom(b)
	if cm == nil {
		return n, nil, from, err
	}
	return n, cm.Dst, from, err
}

func (c packetConnV4) answer(b []byte, at net.IP, to net.Addr) {
	_, _ = c.WriteTo(b, &ipv4.ControlMessage{Src: at}, to) // lost answers are the client's to notice
}

type packetConnV6 struct{ *ipv6.PacketConn }

func (c packetConnV6) read(b []byte) (int, net.IP, net.Addr, error) {
	n, cm, from, err := c.ReadFrom(b)
	if cm == nil {
		return n, nil, from, err
	}
	return n, cm.Dst, from, err
}

func (c packetConnV6) answer(b []byte, at net.IP, to net.Addr) {
	_, _ = c.WriteTo(b, &ipv6.ControlMessage{Src: at}, to)
}

// newPacketConn prepares a socket of a network, udp4 or udp6.
func newPacketConn(conn net.PacketConn, network string) (packetConn, error) {
	if network == "udp6" {
		c := ipv6.NewPacketConn(conn)
		return packetConnV6{c}, c.SetControlMessage(ipv6.FlagDst, true)
	}
	c := ipv4.NewPacketConn(conn)
	return packetConnV4{c}, c.SetControlMessage(ipv4.FlagDst, true)
}

// startUDPEcho answers each datagram, from the address it was sent to, with its source ("ip:port"), a space and itself. It does
// nothing for IPv6 where the kernel has none.
func (s *Servers) startUDPEcho(n *Namespace, network string, port int) error {
	if _, err := n.ReadSysctl("net/ipv6/conf/all/disable_ipv6"); network == "udp6" && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	conn, err := n.ListenPacket(network, ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("start UDP echo: %w", err)
	}
	s.closers = append(s.closers, conn)
	p, err := newPacketConn(conn, network)
	if err != nil {
		return fmt.Errorf("start UDP echo: %w", err)
	}
	s.tasks.Go(func() { echoDatagrams(p) })
	return nil
}

func echoDatagrams(p packetConn) {
	buf := make([]byte, maxPacket)
	for {
		n, at, from, err := p.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && at != nil { // else an ICMP error about an earlier answer
			p.answer(append([]byte(from.String()+" "), buf[:n]...), at, from)
		}
	}
}
