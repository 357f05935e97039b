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

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// resolverOf is the address of a provider's resolver, somewhere in its network.
func resolverOf(u *lab.Uplink) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(u.Number)}) }

// resolver is a provider's, which ignores everybody but its own customers.
type resolver struct {
	conn  net.PacketConn
	mu    sync.Mutex
	asked map[netip.Addr]int // questions by client
}

// serveNames starts the resolver of an uplink's provider, which everybody can reach unless it is the provider's end of the link.
func (w world) serveNames(u *lab.Uplink, a netip.Addr) *resolver {
	w.t.Helper()
	if a != familyOf(a).provider(u) {
		labtest.Must(w.t, u.AddService(a))
	}
	own := familyOf(a).own(u)
	return w.serveNamesTo(netip.PrefixFrom(own, own.BitLen()), u.ISP, a)
}

// serveNamesTo starts a resolver that answers some clients.
func (w world) serveNamesTo(clients netip.Prefix, ns *lab.Namespace, a netip.Addr) *resolver {
	w.t.Helper()
	conn, err := listenUDP(ns, netip.AddrPortFrom(a, 53))
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	r := &resolver{conn: conn, asked: make(map[netip.Addr]int)}
	go r.serve(clients)
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
func (w world) resolvConf(of func(*lab.Uplink) netip.Addr) string {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "resolv.conf")
	var text strings.Builder
	for i := range w.Uplinks {
		fmt.Fprintf(&text, "nameserver %s\n", of(w.Uplinks[len(w.Uplinks)-1-i]))
	}
	labtest.Must(w.t, os.WriteFile(file, []byte(text.String()), 0o644))
	return file
}

// answeredSoon is the most that a lookup may take when no resolver is waited for: the C library gives each 5 s.
const answeredSoon = 2 * time.Second

// TestHostResolversOfISPs: names are resolved by the providers' resolvers, each of which is asked by its own uplink alone, and not at
// all while that is dead, wherever it stands in resolv.conf. It makes no difference whether the configuration names them or a DHCP
// client has told resolvconf, nor whether they are behind the providers' routers or those themselves.
func TestHostResolversOfISPs(t *testing.T) {
	t.Parallel()
	silence := (*lab.Uplink).Silence
	t.Run("configured", func(t *testing.T) {
		t.Parallel()
		topology, config := resolving(t, lab.Options{}, resolverOf)
		testResolvers(t, start(t, topology.Gateway, config), topology, resolverOf, silence)
	})
	t.Run("learned", func(t *testing.T) {
		t.Parallel()
		topology, _ := resolving(t, lab.Options{}, resolverOf)
		run := t.TempDir()
		for _, u := range topology.Uplinks {
			writeBelow(t, run, "resolvconf/interface/"+u.Device+".dhclient", fmt.Sprintf("nameserver %s\n", resolverOf(u)))
		}
		g := startWithRun(t, topology.Gateway, run)
		testResolvers(t, g, topology, resolverOf, silence)
	})
	t.Run("IPv6", func(t *testing.T) {
		t.Parallel()
		topology, config := resolving(t, lab.Options{IPv6: true}, overIPv6.provider)
		testResolvers(t, start(t, topology.Gateway, config), topology, overIPv6.provider, silence)
	})
	for name, fail := range map[string]func(*lab.Uplink, bool) error{"dead router": silence, "router that answers": blackhole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology, config := resolving(t, lab.Options{}, (*lab.Uplink).NextHop)
			testResolvers(t, start(t, topology.Gateway, config), topology, (*lab.Uplink).NextHop, fail)
		})
	}
}

// blackhole has a provider forward nothing, while its router answers.
func blackhole(u *lab.Uplink, on bool) error {
	if on {
		return u.SetFaults(lab.Blackhole)
	}
	return u.SetFaults()
}

// resolving is a topology, and a configuration that names the resolver of each provider.
func resolving(t testing.TB, o lab.Options, of func(*lab.Uplink) netip.Addr) (topology *lab.Topology, config string) {
	t.Helper()
	topology = labtest.Build(t, o)
	labtest.Servers(t, topology)
	config = inTurn + "uplinks:\n"
	for _, u := range topology.Uplinks {
		config += fmt.Sprintf("  - {interface: %s, dns: [%s]}\n", u.Device, of(u))
	}
	return topology, config
}

// writeBelow writes a file in a folder below another.
func writeBelow(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	labtest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	labtest.Must(t, os.WriteFile(path, []byte(text), 0o644))
}

// startWithRun is start, uplinks taking turns, with a folder in the place of /run. What is there of links by their number counts, as
// the daemon does not see that the first process of the system has others.
func startWithRun(t testing.TB, ns *lab.Namespace, run string) *gateway {
	t.Helper()
	g := newGateway(t, ns, datapath(t))
	g.write(inTurn)
	g.execIn(fmt.Sprintf("mount --bind %s /run && mount -t tmpfs none /proc/1", run))
	t.Cleanup(g.stop)
	g.await()
	return g
}

// execIn starts the process with mounts of its own, which a shell makes.
func (g *gateway) execIn(mounts string) {
	g.t.Helper()
	script := fmt.Sprintf("%s\nexec %s run --socket %s --config %s", mounts, binary(g.t), g.socket(), g.file())
	if g.datapath == api.DatapathUserspace {
		script += " --datapath " + g.datapath
	}
	var err error
	g.daemon, err = g.ns.StartDaemon(g.hear, "unshare", "--mount", "sh", "-ec", script)
	labtest.Must(g.t, err)
}

func testResolvers(t *testing.T, g *gateway, topology *lab.Topology, of func(*lab.Uplink) netip.Addr, fail func(*lab.Uplink, bool) error) {
	g.awaitUp(topology)
	g.family = familyOf(of(topology.Uplinks[0]))
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	for _, u := range w.Uplinks {
		w.familyIs(u, api.StateUp, time.Time{})
	}
	w.meetLAN()
	first, second := w.serveNames(w.Uplinks[0], of(w.Uplinks[0])), w.serveNames(w.Uplinks[1], of(w.Uplinks[1]))
	file, own := w.resolvConf(of), w.family.own
	w.resolves("with all uplinks", file, w.lan, w.Gateway)
	begun := time.Now()
	labtest.Must(t, fail(w.Uplinks[1], true))
	w.familyIs(w.Uplinks[1], api.StateDown, begun)
	took, err := lookUp(t, w.lan, file)
	t.Logf("right after the first resolver's uplink is seen to be dead a lookup takes %s (%v)", took, err)
	before := second.askedBy(own(w.Uplinks[1]))
	w.resolves("with the first resolver's uplink dead", file, w.lan, w.Gateway)
	if second.askedBy(own(w.Uplinks[1])) != before {
		t.Error("the resolver of a dead uplink is asked")
	}
	w.events.none(0, begun, isRepair)
	healed := time.Now()
	labtest.Must(t, fail(w.Uplinks[1], false))
	w.familyIs(w.Uplinks[1], api.StateUp, healed)
	eventually(t, "the first resolver being asked again", func() bool { // the status names the new state before the rules follow
		w.resolves("with all uplinks again", file, w.lan, w.Gateway)
		return second.askedBy(own(w.Uplinks[1])) > before
	})
	if n, m := first.askedBy(own(w.Uplinks[1])), second.askedBy(own(w.Uplinks[0])); n+m > 0 {
		t.Errorf("a provider's resolver was asked by the other's uplink %d times", n+m)
	}
	if first.askedBy(own(w.Uplinks[0])) == 0 {
		t.Error("the other resolver was never asked")
	}
}

// familyIs waits until an uplink is in a state to the family of the test.
func (w world) familyIs(u *lab.Uplink, state string, since time.Time) {
	w.t.Helper()
	if w.family == overIPv6 {
		w.ipv6Is(u.Device, state, since)
	} else {
		w.awaitState(u.Device, state)
	}
}

// TestHostResolverOfTwins: where both providers' routers have the same address, that of the uplink which works is asked, and once the
// daemon is dead the one that is asked without it. Sockets that are bound to an uplink ask by it, dead or not.
func TestHostResolverOfTwins(t *testing.T) {
	t.Parallel()
	topology, config := resolving(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {Twin: 1}}}, (*lab.Uplink).NextHop)
	g := start(t, topology.Gateway, config)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	one, other := w.Uplinks[0], w.Uplinks[1]
	first, second := w.serveNames(one, one.NextHop()), w.serveNames(other, other.NextHop())
	file := w.resolvConf((*lab.Uplink).NextHop)
	begun := time.Now()
	labtest.Must(t, blackhole(one, true))
	w.events.state("wan1", api.StateDown, begun)
	w.awaitQuestionsCaptured()
	before := first.askedBy(one.Addr())
	w.resolves("with one uplink dead", file, w.lan, w.Gateway)
	if first.askedBy(one.Addr()) != before || second.askedBy(other.Addr()) == 0 {
		t.Error("the resolver of a dead uplink is asked, or not the other")
	}
	asked := func() bool { return first.askedBy(one.Addr()) > before }
	conn, err := w.Gateway.DialWith(labtest.Context(t), &net.Dialer{Control: boundTo("wan1")}, "udp4", netip.AddrPortFrom(one.NextHop(), 53).String())
	labtest.Must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("a probe"))
	labtest.Must(t, err)
	eventually(t, "a question of a bound socket", asked)
	before = first.askedBy(one.Addr())
	w.kill()
	w.resolves("without the daemon", file, w.lan, w.Gateway)
	if !asked() {
		t.Error("what the daemon led elsewhere is still led there")
	}
}

// awaitQuestionsCaptured waits until the kernel leads into the TAP what is asked of a resolver on the link of a dead uplink: events name
// the new state before the rules follow.
func (w world) awaitQuestionsCaptured() {
	w.t.Helper()
	eventually(w.t, "the capture of questions", func() bool {
		h := w.Gateway.Handle()
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: uplinks.ResolverTable}, netlink.RT_FILTER_TABLE)
		labtest.Must(w.t, err)
		rules, err := h.RuleListFiltered(netlink.FAMILY_V4, &netlink.Rule{Priority: uplinks.ResolverRule}, netlink.RT_FILTER_PRIORITY)
		labtest.Must(w.t, err)
		return len(routes) > 0 && len(rules) > 1 // in the clear, and by TLS or QUIC
	})
}

// resolves fails the test unless these find addresses soon.
func (w world) resolves(when, resolvConf string, from ...*lab.Namespace) {
	w.t.Helper()
	for range 3 {
		for _, ns := range from {
			if took, err := lookUp(w.t, ns, resolvConf); err != nil || took > answeredSoon {
				w.t.Errorf("%s, %s: %s (%v)", ns.Name(), when, took, err)
			}
		}
	}
}
