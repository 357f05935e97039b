package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/net/ipv6"
)

// startUDPEchoV6 is startUDPEcho over IPv6; it does nothing where the kernel has none.
func (s *Servers) startUDPEchoV6(n *Namespace, port int) error {
	if _, err := n.ReadSysctl("net/ipv6/conf/all/disable_ipv6"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	conn, err := n.ListenPacket("udp6", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("start UDP echo over IPv6: %w", err)
	}
	p := ipv6.NewPacketConn(conn)
	s.closers = append(s.closers, conn)
	if err := p.SetControlMessage(ipv6.FlagDst, true); err != nil {
		return fmt.Errorf("start UDP echo over IPv6: %w", err)
	}
	s.tasks.Go(func() { echoDatagramsV6(p) })
	return nil
}

func echoDatagramsV6(p *ipv6.PacketConn) {
	buf := make([]byte, maxPacket)
	for {
		n, cm, src, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || cm == nil {
			continue // an ICMP error about an earlier answer
		}
		answer := append([]byte(src.String()+" "), buf[:n]...)
		_, _ = p.WriteTo(answer, &ipv6.ControlMessage{Src: cm.Dst}, src) // lost answers are the client's to notice
	}
}
