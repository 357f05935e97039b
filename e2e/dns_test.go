package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// resolverOf is the address of a provider's resolver, somewhere in its network.
func resolverOf(u *lab.Uplink) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(u.Number)}) }

// resolver is a provider's, which ignores everybody but its own customers.
type resolver struct {
	conn  net.PacketConn
	mu    sync.Mutex
	asked map[netip.Addr]int // questions by client
}

// serveNames starts the resolver of an uplink's provider, which everybody can reach.
func (w world) serveNames(u *lab.Uplink) *resolver {
	w.t.Helper()
	a := resolverOf(u)
	labtest.Must(w.t, u.AddService(a))
	r := &resolver{asked: make(map[netip.Addr]int)}
	conn, err := listenUDP(u.ISP, netip.AddrPortFrom(a, 53))
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	r.conn = conn
	go r.serve(u.Link.Near.Prefix.Masked())
	return r
}

func (r *resolver) serve(customers netip.Prefix) {
	for buf := make([]byte, 1500); ; {
		n, from, err := r.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		client := addrPortOf(from).Addr().Unmap()
		r.mu.Lock()
		r.asked[client]++
		r.mu.Unlock()
		if answer := answerName(buf[:n]); answer != nil && customers.Contains(client) {
			_, _ = r.conn.WriteTo(answer, from) // lost answers are the client's to notice
		}
	}
}

// askedBy is how often a client has asked.
func (r *resolver) askedBy(client netip.Addr) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[client]
}

// answerName answers a question for an IPv4 address with 203.0.113.7, others with nothing.
func answerName(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{203, 0, 113, 7}},
		}}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

// lookUp has the C library find an address by the resolvers that a resolv.conf names, and says how long that took.
func lookUp(t testing.TB, ns *lab.Namespace, resolvConf string) (time.Duration, error) {
	t.Helper()
	begun := time.Now()
	script := fmt.Sprintf("mount --bind %s /etc/resolv.conf && exec getent ahostsv4 service%d.example", resolvConf, begun.UnixNano())
	out, err := ns.Command(labtest.Context(t), "unshare", "--mount", "sh", "-c", script).CombinedOutput()
	if err == nil && !contains(string(out), "203.0.113.7") {
		err = errors.New("no address")
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return time.Since(begun), err
}

// resolvConf is a file that names the resolvers of all providers, the last one's first.
func (w world) resolvConf() string {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "resolv.conf")
	var text strings.Builder
	for i := range w.Uplinks {
		fmt.Fprintf(&text, "nameserver %s\n", resolverOf(w.Uplinks[len(w.Uplinks)-1-i]))
	}
	labtest.Must(w.t, os.WriteFile(file, []byte(text.String()), 0o644))
	return file
}

// answeredSoon is the most that a lookup may take when no resolver is waited for: the C library gives each 5 s.
const answeredSoon = 2 * time.Second

// TestHostResolversOfISPs: names are resolved by the providers' resolvers, each of which is asked by its own uplink alone, and not at
// all while that is dead, wherever it stands in resolv.conf. It makes no difference whether the configuration names them or a DHCP
// client has told resolvconf.
func TestHostResolversOfISPs(t *testing.T) {
	t.Run("configured", func(t *testing.T) {
		t.Parallel()
		topology := labtest.Build(t, lab.Options{})
		labtest.Servers(t, topology)
		g := start(t, topology.Gateway, inTurn+fmt.Sprintf("uplinks: [{interface: wan1, dns: [%s]}, {interface: wan2, dns: [%s]}]\n",
			resolverOf(topology.Uplinks[0]), resolverOf(topology.Uplinks[1])))
		testResolvers(t, g, topology)
	})
	t.Run("learned", func(t *testing.T) {
		t.Parallel()
		topology := labtest.Build(t, lab.Options{})
		labtest.Servers(t, topology)
		g := newGateway(t, topology.Gateway, datapath(t))
		g.write(inTurn)
		g.execWithLeases(topology)
		t.Cleanup(g.stop)
		g.await()
		testResolvers(t, g, topology)
	})
}

// execWithLeases starts the process with a /run of its own, where a DHCP client has told resolvconf of the resolvers.
func (g *gateway) execWithLeases(topology *lab.Topology) {
	g.t.Helper()
	script := "mount -t tmpfs none /run && mkdir -p /run/resolvconf/interface\n"
	for _, u := range topology.Uplinks {
		script += fmt.Sprintf("echo nameserver %s >/run/resolvconf/interface/%s.dhclient\n", resolverOf(u), u.Device)
	}
	script += fmt.Sprintf("exec %s run --socket %s --config %s", binary(g.t), g.socket(), g.file())
	if g.datapath == api.DatapathUserspace {
		script += " --datapath " + g.datapath
	}
	var err error
	g.daemon, err = g.ns.StartDaemon(g.hear, "unshare", "--mount", "sh", "-ec", script)
	labtest.Must(g.t, err)
}

func testResolvers(t *testing.T, g *gateway, topology *lab.Topology) {
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	first, second := w.serveNames(w.Uplinks[0]), w.serveNames(w.Uplinks[1])
	file := w.resolvConf()
	resolve := func(when string) {
		t.Helper()
		for range 3 {
			for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
				if took, err := lookUp(t, ns, file); err != nil || took > answeredSoon {
					t.Errorf("%s, %s: %s (%v)", ns.Name(), when, took, err)
				}
			}
		}
	}
	resolve("with all uplinks")
	begun := time.Now()
	labtest.Must(t, w.Uplinks[1].Silence(true))
	w.events.state("wan2", api.StateDown, begun)
	took, err := lookUp(t, w.lan, file)
	t.Logf("right after the first resolver's uplink is seen to be dead a lookup takes %s (%v)", took, err)
	resolve("with the first resolver's uplink dead")
	labtest.Must(t, w.Uplinks[1].Silence(false))
	healed := time.Now()
	w.events.state("wan2", api.StateUp, healed)
	before := second.askedBy(w.Uplinks[1].Addr())
	resolve("with all uplinks again")
	if second.askedBy(w.Uplinks[1].Addr()) == before {
		t.Error("the first resolver is not asked any more")
	}
	if n, m := first.askedBy(w.Uplinks[1].Addr()), second.askedBy(w.Uplinks[0].Addr()); n+m > 0 {
		t.Errorf("a provider's resolver was asked by the other's uplink %d times", n+m)
	}
	if first.askedBy(w.Uplinks[0].Addr()) == 0 {
		t.Error("the other resolver was never asked")
	}
}
