package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pion/stun/v3"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// stunServer is a server with two addresses and two ports, as the discovery of RFC 5780 needs one.
type stunServer struct {
	addrs [2]netip.Addr
	ports [2]uint16
	conns [2][2]net.PacketConn // by address and port
}

// startSTUN serves until the test ends.
func startSTUN(t testing.TB, ns *lab.Namespace) *stunServer {
	t.Helper()
	s := &stunServer{addrs: [2]netip.Addr(lab.ServerAddrs), ports: [2]uint16{3478, 3479}}
	for a := range s.conns {
		for p := range s.conns[a] {
			conn, err := listenUDP(ns, netip.AddrPortFrom(s.addrs[a], s.ports[p]))
			labtest.Must(t, err)
			t.Cleanup(func() { conn.Close() })
			s.conns[a][p] = conn
		}
	}
	for a := range s.conns {
		for p := range s.conns[a] {
			go s.serve(a, p)
		}
	}
	return s
}

// serve answers binding requests with what their source looks like from here, by the socket that they ask for.
func (s *stunServer) serve(a, p int) {
	const changePort, changeAddress = 2, 4 // RFC 5780 §7.2
	for buf := make([]byte, 1500); ; {
		n, from, err := s.conns[a][p].ReadFrom(buf)
		if err != nil {
			return
		}
		request := &stun.Message{Raw: buf[:n]}
		if request.Decode() != nil || request.Type != stun.BindingRequest {
			continue
		}
		byA, byP := a, p
		if change, err := request.Get(stun.AttrChangeRequest); err == nil && len(change) == 4 {
			byA, byP = a^int(change[3]&changeAddress)/changeAddress, p^int(change[3]&changePort)/changePort
		}
		source := from.(*net.UDPAddr)
		answer, err := stun.Build(request, stun.BindingSuccess,
			&stun.XORMappedAddress{IP: source.IP, Port: source.Port},
			&stun.MappedAddress{IP: source.IP, Port: source.Port},
			&stun.ResponseOrigin{IP: s.addrs[byA].AsSlice(), Port: int(s.ports[byP])},
			&stun.OtherAddress{IP: s.addrs[1-a].AsSlice(), Port: int(s.ports[1-p])})
		if err == nil {
			_, _ = s.conns[byA][byP].WriteTo(answer.Raw, from) // a lost answer is the client's to notice
		}
	}
}

// discovery is the program that discovers what NAT it is behind; `make peers` builds it.
func discovery(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../bin/stun-nat-behaviour")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("a peer of the tests is missing, run `make peers`: %v", err)
	}
	return path
}

// expectBehaviour runs the discovery once for each uplink, each time from a new endpoint.
func (w world) expectBehaviour(ns *lab.Namespace, filtering string) {
	w.t.Helper()
	server := netip.AddrPortFrom(lab.ServerAddrs[0], 3478).String()
	for range w.Uplinks {
		out, err := ns.Command(labtest.Context(w.t), discovery(w.t), "-server", server, "-timeout", "1").CombinedOutput()
		labtest.Must(w.t, err)
		for _, want := range []string{"mapping behavior: endpoint independent\n", "filtering behavior: " + filtering + "\n"} {
			if !contains(string(out), want) {
				w.t.Errorf("%s: no %q in\n%s", ns.Name(), want, out)
			}
		}
	}
}

// TestRFC5780_NATBehaviourDiscovery: a client of STUN, from the LAN and from the host, finds endpoint-independent mapping while
// uplinks are taken in turn, and the filtering that is configured.
func TestRFC5780_NATBehaviourDiscovery(t *testing.T) {
	t.Parallel()
	w := placing{begin(t, lab.Options{}, inTurn), nil}
	startSTUN(t, w.Internet)
	w.expectBehaviour(w.lan, "endpoint independent")
	w.expectBehaviour(w.Gateway, "endpoint independent")
	for _, filtering := range []string{"address dependent", "address and port dependent"} {
		w.use(inTurn + "nat: {filtering: {udp: " + strings.ReplaceAll(filtering, " ", "_") + "}}\n")
		w.expectBehaviour(w.lan, filtering)
	}
}
