package e2e

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestMW3_PPTPCalls: two clients call the same server with the same call identifier by the same uplink, and each gets its own
// packets. On two uplinks the GRE of a call goes by that of its control connection.
func TestMW3_PPTPCalls(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{"one uplink": "policy: {scheduler: failover}\n", "both in turn": inTurn} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{LANHosts: 2}, config+helping("pptp"))
			calls := placeCalls(t, w)
			seen := make(map[netip.AddrPort]bool)
			for _, c := range calls {
				seen[netip.AddrPortFrom(c.outside().Addr(), c.told)] = true
			}
			if len(seen) != len(calls) {
				t.Errorf("the server cannot tell %d calls apart: %v", len(calls), seen)
			}
			for range 2 {
				for _, c := range calls {
					c.exchange(t, "packet of "+c.client.LocalAddr().String())
				}
			}
			for _, c := range calls {
				c.client.Close()
			}
		})
	}
}

// TestPPTPWithoutHelper: the server is told the same identifier by both clients.
func TestPPTPWithoutHelper(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 2}, "policy: {scheduler: failover}\n")
	for _, c := range placeCalls(t, w) {
		if c.told != callID {
			t.Errorf("identifier %d arrived as %d", callID, c.told)
		}
	}
}

// callID is the identifier that every client chooses.
const callID = 7

// pptpCall is one call: its control connection and the GRE sockets of both ends.
type pptpCall struct {
	controlPair
	raw, serverRaw net.PacketConn
	told, served   uint16 // identifiers that the server was told and that it chose
}

// placeCalls has each LAN host call the server.
func placeCalls(t testing.TB, w world) (calls []pptpCall) {
	t.Helper()
	server := acceptAt(t, w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], 1723))
	serverRaw := listenGRE(t, w.Internet, lab.ServerAddrs[0])
	for i, h := range w.Hosts {
		c := pptpCall{dialPair(t, h.Namespace, server), listenGRE(t, h.Namespace, h.Addr), serverRaw, 0, uint16(100 + i)}
		c.place(t)
		calls = append(calls, c)
	}
	return calls
}

func listenGRE(t testing.TB, ns *lab.Namespace, at netip.Addr) (conn net.PacketConn) {
	t.Helper()
	labtest.Must(t, ns.Do(func() (err error) {
		conn, err = net.ListenIP("ip4:47", &net.IPAddr{IP: at.AsSlice()})
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// pptpMessage is a control message of a kind (RFC 2637 §2), with the words that follow its header.
func pptpMessage(kind uint16, length int, words ...uint16) []byte {
	b := make([]byte, length)
	for i, w := range append([]uint16{uint16(length), 1, 0x1a2b, 0x3c4d, kind, 0}, words...) {
		b[2*i], b[2*i+1] = byte(w>>8), byte(w)
	}
	return b
}

// place sends Outgoing-Call-Request and answers it.
func (c *pptpCall) place(t testing.TB) {
	t.Helper()
	_, err := c.client.Write(pptpMessage(7, 168, callID, 1))
	labtest.Must(t, err)
	asked := make([]byte, 168)
	_, err = io.ReadFull(c.server, asked)
	labtest.Must(t, err)
	c.told = be16(asked[12:])
	if want := pptpMessage(7, 168, c.told, 1); !bytes.Equal(asked, want) {
		t.Errorf("asked for % x", asked)
	}
	_, err = c.server.Write(pptpMessage(8, 32, c.served, c.told, 1<<8))
	labtest.Must(t, err)
	answer := make([]byte, 32)
	_, err = io.ReadFull(c.client, answer)
	labtest.Must(t, err)
	if want := pptpMessage(8, 32, c.served, callID, 1<<8); !bytes.Equal(answer, want) {
		t.Errorf("answered % x", answer)
	}
}

// gre is an enhanced GRE packet (RFC 2637 §4.1) for the receiver's identifier.
func gre(id uint16, text string) []byte {
	b := []byte{0x30, 1, 0x88, 0x0b, 0, byte(len(text)), byte(id >> 8), byte(id), 0, 0, 0, 1}
	return append(b, text...)
}

// exchange sends a packet of the call each way, the server first.
func (c *pptpCall) exchange(t testing.TB, text string) {
	t.Helper()
	outside := c.outside().Addr()
	from := deliverGRE(t, c.serverRaw, outside, gre(c.told, text), c.raw, gre(callID, text))
	if from != lab.ServerAddrs[0] {
		t.Errorf("the client's packet comes from %s", from)
	}
	from = deliverGRE(t, c.raw, lab.ServerAddrs[0], gre(c.served, text), c.serverRaw, gre(c.served, text))
	if from != outside {
		t.Errorf("the call comes from %s, its control connection from %s", from, outside)
	}
}

// deliverGRE sends a packet and waits until the other socket has what it should become; says from where.
func deliverGRE(t testing.TB, from net.PacketConn, to netip.Addr, b []byte, other net.PacketConn, want []byte) netip.Addr {
	t.Helper()
	_, err := from.WriteTo(b, &net.IPAddr{IP: to.AsSlice()})
	labtest.Must(t, err)
	labtest.Must(t, other.SetReadDeadline(time.Now().Add(patience)))
	got := make([]byte, 1500)
	n, sender, err := other.ReadFrom(got)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("% x became % x, %v", b, got[:n], err)
	}
	return netip.MustParseAddr(sender.String())
}
