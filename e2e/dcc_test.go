package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// TestMW3_DirectConnections: clients of IRC on the LAN offer files, and who is told connects to the address and port of the
// offer, which are those of the connection to the server. Without the helper they hear of an address nobody can reach.
func TestMW3_DirectConnections(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn+helping("irc"))
	server := acceptAt(t, w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], 6667))
	used := make(map[netip.Addr]bool)
	for range 4 {
		control := dialPair(t, w.lan, server)
		files := acceptAt(t, w.lan, netip.AddrPortFrom(w.Hosts[0].Addr, 0))
		at := control.offer(t, files)
		if at.Addr() != control.outside().Addr() {
			t.Errorf("the connection comes by %s and offers %s", control.outside(), at)
		}
		download(t, w.Internet, files, at)
		used[at.Addr()] = true
	}
	expectAllUplinks(t, w, used)

	w.use(inTurn)
	control := dialPair(t, w.lan, server)
	files := acceptAt(t, w.lan, netip.AddrPortFrom(w.Hosts[0].Addr, 0))
	if at := control.offer(t, files); at != addrPort(files.Addr()) {
		t.Errorf("without the helper %s is offered as %s", files.Addr(), at)
	}
}

// helping is the configuration that switches helpers on.
func helping(names ...string) string {
	return "helpers: {" + strings.Join(names, ": {enabled: true}, ") + ": {enabled: true}}\n"
}

// acceptAt listens until the test ends.
func acceptAt(t testing.TB, ns *lab.Namespace, at netip.AddrPort) net.Listener {
	t.Helper()
	l, err := ns.Listen("tcp4", at.String())
	labtest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func addrPort(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// controlPair is both ends of a connection through the gateway.
type controlPair struct{ client, server net.Conn }

// dialPair connects to a listener; both ends are closed when the test ends.
func dialPair(t testing.TB, ns *lab.Namespace, l net.Listener) (p controlPair) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	var err error
	p.client, err = ns.Dial(labtest.Context(t), "tcp4", l.Addr().String())
	labtest.Must(t, err)
	p.server = <-accepted
	if p.server == nil {
		t.Fatalf("no connection to %s", l.Addr())
	}
	for _, c := range []net.Conn{p.client, p.server} {
		t.Cleanup(func() { c.Close() })
		labtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
	}
	return p
}

// outside is where the server sees the client.
func (p controlPair) outside() netip.AddrPort { return addrPort(p.server.RemoteAddr()) }

// offer offers what a listener serves, twice in a row and among other lines, and returns where the server is told to get it.
func (p controlPair) offer(t testing.TB, files net.Listener) (at netip.AddrPort) {
	t.Helper()
	inside := addrPort(files.Addr())
	offer := fmt.Sprintf("PRIVMSG bob :\x01DCC SEND file %d %d 7\x01\r\n", packet.HostOrder(inside.Addr()), inside.Port())
	_, err := io.WriteString(p.client, "NICK al\r\n"+offer+offer+"QUIT :bye\r\n")
	labtest.Must(t, err)
	lines := bufio.NewReader(p.server)
	for i, want := range []string{"NICK al\r\n", "", "", "QUIT :bye\r\n"} {
		line, err := lines.ReadString('\n')
		labtest.Must(t, err)
		if want != "" {
			if line != want {
				t.Errorf("line %d is %q", i, line)
			}
			continue
		}
		var address uint32
		var port uint16
		if _, err := fmt.Sscanf(line, "PRIVMSG bob :\x01DCC SEND file %d %d 7\x01\r\n", &address, &port); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		at = netip.AddrPortFrom(packet.IPv4(address).Netip(), port)
	}
	return at
}

// download connects to where files are offered, and reads one.
func download(t testing.TB, ns *lab.Namespace, files net.Listener, at netip.AddrPort) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		c, err := files.Accept()
		if err == nil {
			_, err = io.WriteString(c, "content")
			c.Close()
		}
		sent <- err
	}()
	c, err := ns.Dial(labtest.Context(t), "tcp4", at.String())
	labtest.Must(t, err)
	defer c.Close()
	labtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	labtest.Must(t, <-sent)
}
