package e2e

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// portIPsec is where IKE and ESP in UDP go.
const portIPsec = 4500

// ipsecMessages are what goes through that port (RFC 3948 §2): a negotiation, ESP, also in pieces, and what keeps the way open.
var ipsecMessages = []string{
	"\x00\x00\x00\x00" + strings.Repeat("IKE ", 100),
	"\x12\x34\x56\x78\x00\x00\x00\x01" + strings.Repeat("ESP ", 100),
	"\x12\x34\x56\x78\x00\x00\x00\x02" + strings.Repeat("ESP ", 1000),
	"\xff",
}

// TestRFC3948_IPsecInUDP: two hosts speak with one peer, both from its own port and by the same address. The peer tells them
// apart by their outside ports, each gets its own answers, nothing is changed in it, and checksums that were left out stay so.
func TestRFC3948_IPsecInUDP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 2, Uplinks: make([]lab.UplinkOptions, 1)}, "")
	for _, device := range []string{w.Uplinks[0].Device, lab.DeviceLAN} {
		watch(t, w.Gateway, device, "with a checksum", func(p *lab.Packet) bool {
			return p.UDP != nil && (p.Src.Port() == portIPsec || p.Dst.Port() == portIPsec) && p.UDP.Checksum != 0
		})
	}
	peer := openIPsec(t, w.Internet, lab.ServerAddrs[0])
	hosts := []*net.UDPConn{openIPsec(t, w.lan, w.Hosts[0].Addr), openIPsec(t, w.Hosts[1].Namespace, w.Hosts[1].Addr)}
	var outside [2]*net.UDPAddr
	for _, message := range ipsecMessages {
		for i, h := range hosts {
			labtest.Must(t, write(h, addrPort(peer.LocalAddr()), message))
			got, from := receiveFrom(t, peer)
			if string(got) != message {
				t.Errorf("%d bytes of host %d became %d", len(message), i, len(got))
			}
			if outside[i] == nil {
				outside[i] = from
			}
			if from.String() != outside[i].String() {
				t.Errorf("host %d was %s, is %s", i, outside[i], from)
			}
		}
		for _, i := range []int{1, 0} {
			answer := message + w.Hosts[i].Addr.String()
			labtest.Must(t, write(peer, outside[i].AddrPort(), answer))
			if got, _ := receiveFrom(t, hosts[i]); string(got) != answer {
				t.Errorf("an answer of %d bytes to host %d became %d", len(answer), i, len(got))
			}
		}
	}
	if !outside[0].IP.Equal(outside[1].IP) || outside[0].Port == outside[1].Port {
		t.Errorf("the hosts are %s and %s", outside[0], outside[1])
	}
}

// openIPsec opens the port, without checksums (RFC 3948 §2.1), until the test ends.
func openIPsec(t testing.TB, ns *lab.Namespace, at netip.Addr) *net.UDPConn {
	t.Helper()
	conn, err := listenUDP(ns, netip.AddrPortFrom(at, portIPsec))
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	udp := conn.(*net.UDPConn)
	labtest.Must(t, withoutChecksums(udp))
	return udp
}

// TestRFC3948_Keepalives: a packet of one byte now and then, which nobody answers, keeps the way from the peer open (§4).
func TestRFC3948_Keepalives(t *testing.T) {
	t.Parallel()
	const life, interval = 2 * time.Second, 500 * time.Millisecond
	w := begin(t, lab.Options{}, "nat: {timeouts: {udp: 2s}}\n")
	host, peer := openIPsec(t, w.lan, w.Hosts[0].Addr), openIPsec(t, w.Internet, lab.ServerAddrs[0])
	to := addrPort(peer.LocalAddr())
	labtest.Must(t, write(host, to, ipsecMessages[0]))
	_, outside := receiveFrom(t, peer)
	pace := time.NewTicker(interval)
	defer pace.Stop()
	for begun := time.Now(); time.Since(begun) < life+2*interval; <-pace.C {
		labtest.Must(t, write(host, to, "\xff"))
		if _, from := receiveFrom(t, peer); from.String() != outside.String() {
			t.Fatalf("the host was %s, is %s", outside, from)
		}
	}
	labtest.Must(t, write(peer, outside.AddrPort(), ipsecMessages[1]))
	if got, _ := receiveFrom(t, host); string(got) != ipsecMessages[1] {
		t.Errorf("%d bytes became %d", len(ipsecMessages[1]), len(got))
	}
}
