package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/policy"
)

// portHTTPS is where the web servers of these tests listen, without encryption.
const portHTTPS = 443

// sites are in the zone of these tests: one by two addresses that lie apart, one beside the first of these, one for itself.
var sites = lab.Zone{
	"www.bank.example": {"192.0.2.10"}, "img.bank.example": {"edge.cdn.test"}, "edge.cdn.test": {"198.18.4.10"},
	"shop.example": {"192.0.2.11"}, "video.example": {"198.18.4.20"}, "cdn.video.example": {"198.18.4.21"},
}

// flooded is how many names a host asks for in a flood, and manySites the zone of these: more addresses than are remembered.
const flooded = 1200

var manySites = func() lab.Zone {
	z := maps.Clone(sites)
	for i := range flooded {
		for j := range 8 {
			name := fmt.Sprintf("host-with-a-long-name-%d.example", i)
			z[name] = append(z[name], fmt.Sprintf("11.%d.%d.%d", i>>8, i&255, j+1))
		}
	}
	return z
}()

// web is a world with web servers and a server of names.
type web struct{ world }

func browse(t testing.TB, o lab.Options, config string) web {
	t.Helper()
	w := web{begin(t, o, config)}
	for _, p := range []string{"192.0.2.1/24", "198.18.4.1/24"} {
		labtest.Must(t, w.AddServers(netip.MustParsePrefix(p)))
	}
	names, err := lab.StartNames(w.Internet, lab.ServerAddrs[0], manySites)
	labtest.Must(t, err)
	t.Cleanup(func() { names.Close() })
	servers, err := lab.StartHTTP(w.Internet, portHTTPS, lab.NewHandler())
	labtest.Must(t, err)
	t.Cleanup(func() { servers.Close() })
	return w
}

// resolve returns the address of a name as a host finds it out.
func (w web) resolve(from *lab.Namespace, name string) netip.Addr {
	w.t.Helper()
	list, err := from.Resolve(labtest.Context(w.t), lab.ServerAddrs[0], "ip4", name)
	labtest.Must(w.t, err)
	return list[0]
}

// visit opens a connection and returns the device of its uplink.
func (w web) visit(from *lab.Namespace, to netip.Addr) (device string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(labtest.Context(w.t), http.MethodGet, fmt.Sprintf("http://%s/whoami", netip.AddrPortFrom(to, portHTTPS)), nil)
	labtest.Must(w.t, err)
	answer, err := from.HTTPClient().Do(r)
	labtest.Must(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 100))
	labtest.Must(w.t, err)
	outside, err := netip.ParseAddrPort(string(text))
	labtest.Must(w.t, err)
	for _, u := range w.Uplinks {
		if u.Addr() == outside.Addr() {
			return u.Device
		}
	}
	w.t.Fatalf("seen as %s", text)
	return ""
}

// stays fails unless many connections to some addresses take one uplink, which it returns.
func (w web) stays(from *lab.Namespace, to ...netip.Addr) (device string) {
	w.t.Helper()
	device = w.visit(from, to[0])
	for i := range 12 {
		if got := w.visit(from, to[i%len(to)]); got != device {
			w.t.Errorf("%s by %s, not %s", to[i%len(to)], got, device)
		}
	}
	return device
}

// TestMW2_Sites: many connections of one client with one site take one uplink, also when that has several addresses; other sites
// and other clients use the other uplink too, and the host itself is a client like any other.
func TestMW2_Sites(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{LANHosts: 2}, inTurn)
	for _, from := range []*lab.Namespace{w.lan, w.Gateway} {
		www, img, shop := w.resolve(from, "www.bank.example"), w.resolve(from, "img.bank.example"), w.resolve(from, "shop.example")
		if a, b := w.visit(from, www), w.visit(from, shop); a == b { // in turn
			t.Errorf("bank and shop both by %s", a)
		}
		bank := w.stays(from, www, img)
		if other := w.stays(from, shop); other == bank {
			t.Errorf("bank and shop both by %s", bank)
		}
	}
	www := w.resolve(w.lan, "www.bank.example")
	list, err := w.client.Sessions(t.Context(), api.Filter{Proto: "tcp"})
	labtest.Must(t, err)
	if !slices.ContainsFunc(list, func(s api.Session) bool { return s.Remote.Addr() == www && s.Reason == policy.ReasonSticky.String() }) {
		t.Errorf("no session tells that it sticks: %+v", list)
	}
	if a, b := w.visit(w.Hosts[1].Namespace, www), w.visit(w.Hosts[1].Namespace, netip.MustParseAddr("198.18.4.99")); a == b {
		t.Errorf("another client's sites all by %s", a)
	}
}

// TestMW2_Networks: where nobody knows the name, the network counts.
func TestMW2_Networks(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{}, inTurn)
	a, b := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("198.18.4.77")
	if one, two := w.visit(w.lan, a), w.visit(w.lan, b); one == two { // in turn
		t.Errorf("both networks by %s", one)
	}
	if one, two := w.stays(w.lan, a, a.Next(), a.Prev()), w.stays(w.lan, b, b.Next()); one == two {
		t.Errorf("both networks by %s", one)
	}
}

// TestMW2_StickyFailover: when its uplink dies all that a client does with a site moves, and stays when that uplink returns.
func TestMW2_StickyFailover(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{}, inTurn)
	www, img := w.resolve(w.lan, "www.bank.example"), w.resolve(w.lan, "img.bank.example")
	first := w.stays(w.lan, www, img)
	dying := w.Uplinks[0]
	if dying.Device != first {
		dying = w.Uplinks[1]
	}
	cut := time.Now()
	labtest.Must(t, dying.Link.Cut())
	w.events.state(first, api.StateDown, cut)
	second := w.stays(w.lan, www, img)
	if second == first {
		t.Fatalf("still by %s", first)
	}
	mended := time.Now()
	labtest.Must(t, dying.Link.Mend())
	w.events.state(first, api.StateUp, mended)
	if got := w.stays(w.lan, www, img); got != second {
		t.Errorf("back to %s", got)
	}
}

// TestMW2_Flood: a host that asks for names without end takes little memory, and nobody else's sites.
func TestMW2_Flood(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{LANHosts: 2}, inTurn)
	other := w.Hosts[1].Namespace
	www, img := w.resolve(other, "www.bank.example"), w.resolve(other, "img.bank.example")
	bank := w.stays(other, www)
	before := w.resources().memory
	var asking errgroup.Group
	asking.SetLimit(8)
	for i := range flooded {
		asking.Go(func() error {
			_, err := w.lan.Resolve(labtest.Context(t), lab.ServerAddrs[0], "ip4", fmt.Sprintf("host-with-a-long-name-%d.example", i))
			return err
		})
	}
	labtest.Must(t, asking.Wait())
	if got := w.stays(other, img, www); got != bank {
		t.Errorf("the bank by %s, not %s", got, bank)
	}
	after := w.resources().memory
	t.Logf("%d KiB more", (after-before)>>10)
	if after > before+24<<20 {
		t.Errorf("the daemon has grown from %d to %d bytes", before, after)
	}
}

// TestMW2_ByRule: what sticks is as rules say.
func TestMW2_ByRule(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{}, inTurn+`
rules:
  - {name: all-of-a-client, to: [192.0.2.0/25, 198.18.4.0/25], use: all, stickiness: client}
  - {name: nothing, to: [192.0.2.128/25], use: all, stickiness: session}
`)
	w.stays(w.lan, netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("198.18.4.10"))
	free := netip.MustParseAddr("192.0.2.200")
	if a, b := w.visit(w.lan, free), w.visit(w.lan, free); a == b { // in turn
		t.Errorf("twice by %s", a)
	}
}

// TestRulesByDomain: a rule finds the sessions with a domain and all below it by what the client, or the host itself, has asked a
// server of names; others, and its neighbours by address, go their own way.
func TestRulesByDomain(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{LANHosts: 2}, preferFirst+`
groups: {second: {uplinks: [wan2], when_down: refuse}}
rules:
  - {name: video, domains: [video.example], use: second}
`)
	for _, from := range []*lab.Namespace{w.lan, w.Gateway} {
		for name, want := range map[string]string{
			"video.example": "wan2", "cdn.video.example": "wan2", "img.bank.example": "wan1", "shop.example": "wan1",
		} {
			if got := w.visit(from, w.resolve(from, name)); got != want {
				t.Errorf("%s by %s, not %s", name, got, want)
			}
		}
	}
	video := w.resolve(w.lan, "video.example")
	if got := w.visit(w.Hosts[1].Namespace, video); got != "wan2" {
		t.Errorf("who has not asked himself goes by %s", got)
	}
	list, err := w.client.Sessions(t.Context(), api.Filter{Proto: "tcp"})
	labtest.Must(t, err)
	if !slices.ContainsFunc(list, func(s api.Session) bool { return s.Remote.Addr() == video && s.Rule == "video" }) {
		t.Errorf("no session tells of the rule: %+v", list)
	}
	w.use(preferFirst + `
groups: {second: {uplinks: [wan2], when_down: refuse}}
rules:
  - {name: other, domains: [shop.example], use: second}
`)
	if got := w.visit(w.lan, video); got != "wan1" {
		t.Errorf("after the reload by %s", got)
	}
	if got := w.visit(w.lan, w.resolve(w.lan, "shop.example")); got != "wan2" {
		t.Errorf("after the reload the shop by %s", got)
	}
}
