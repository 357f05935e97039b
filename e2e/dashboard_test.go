package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// dashboard opens the page as somebody who may only look.
func (g *gateway) dashboard() *tab {
	g.t.Helper()
	address, err := g.client.DashboardURL(g.t.Context())
	labtest.Must(g.t, err)
	b := openTab(g.t, g.ns, address)
	b.await("the verdict", `document.querySelector('h1')?.innerText.startsWith('Internet')`)
	return b
}

// signIn opens what `tapgw web` prints.
func (b *tab) signIn(g *gateway) {
	b.t.Helper()
	out, status := g.tapgw("web")
	at := strings.Index(out, "http://")
	if status != 0 || at < 0 {
		b.t.Fatalf("tapgw web: status %d, %s", status, out)
	}
	b.do(chromedp.Navigate(strings.TrimSpace(out[at:])))
	b.await("the buttons", `document.querySelectorAll('.controls button').length > 1`)
}

// card is an expression for a part of an uplink's card.
func card(uplink, part string) string {
	return fmt.Sprintf(`document.querySelector('[data-uplink=%q] %s')`, uplink, part)
}

// busy has hosts of the LAN load pages of sites with names until the test ends.
func (w world) busy() (done func()) {
	w.t.Helper()
	zone, sites := lab.Zone{}, []string{"video.example.com", "mail.example.org", "updates.example.net", "photos.example.com"}
	for i, name := range sites {
		zone[name] = []string{netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)}).String()}
	}
	labtest.Must(w.t, w.AddServers(netip.MustParsePrefix("203.0.113.0/27")))
	names, err := lab.StartNames(w.Internet, lab.ServerAddrs[0], zone)
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { labtest.Must(w.t, names.Close()) })
	ctx, stop := context.WithCancel(w.t.Context())
	var loads sync.WaitGroup
	for i, host := range w.Hosts {
		for j, name := range sites {
			loads.Go(func() {
				for seed := uint64(i*len(sites) + j); ctx.Err() == nil; seed++ {
					addrs, err := host.Resolve(ctx, lab.ServerAddrs[0], "ip4", name)
					if err == nil {
						_, err = host.BulkDownload(ctx, addrs[0], seed, 1<<20<<j)
					}
					if err != nil && ctx.Err() == nil {
						time.Sleep(100 * time.Millisecond) // while an uplink is away
					}
				}
			})
		}
	}
	done = sync.OnceFunc(func() { stop(); loads.Wait() })
	w.t.Cleanup(done)
	return done
}

var twoShaped = lab.Options{LANHosts: 3, Uplinks: []lab.UplinkOptions{{Down: 40e6, Up: 10e6}, {Down: 20e6, Up: 5e6}}}

const named = `uplinks:
  - {name: fibre, interface: wan1, capacity: {down: 40Mbit, up: 10Mbit}}
  - {name: cable, interface: wan2, capacity: {down: 20Mbit, up: 5Mbit}, metered: {cap: 20GB}, tier: 0}
`

// beginNamed starts a gateway with the uplinks fibre and cable, both up, and a LAN.
func beginNamed(t *testing.T) world {
	t.Helper()
	topology := labtest.Build(t, twoShaped)
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, named)
	g.awaitState("fibre", api.StateUp)
	g.awaitState("cable", api.StateUp)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	return w
}

// TestDashboard: a browser shows what the gateway does while it does it, and what it did before a restart; who has not signed in may
// only look.
func TestDashboard(t *testing.T) {
	t.Parallel()
	w := beginNamed(t)
	g := w.gateway

	b := g.dashboard()
	b.await("both are up", `document.querySelector('h1').innerText === 'Internet: online' && document.querySelectorAll('.card.up').length === 2`)
	if n := b.text(`String(document.querySelectorAll('.controls').length)`); n != "0" {
		t.Errorf("who may only look has %s groups of buttons", n)
	}
	done := w.busy()
	b.await("the rate of fibre", card("fibre", ".rates b")+`.innerText.endsWith('Mb/s')`)
	b.await("a site by its name", `document.querySelector('.sessions').innerText.includes('video.example.com')`)
	b.await("the chart", `document.querySelector('.chart canvas')?.width > 100`)
	b.await("other sites", `document.querySelector('.sessions tbody').children.length >= 4`)
	b.do(chromedp.SendKeys(`input[type=search]`, "Video."))
	b.await("the filter", `document.querySelector('.sessions tbody').children.length === 1 && document.querySelector('.sessions').innerText.includes('video.example.com')`)

	b.signIn(g)
	since := time.Now()
	b.do(chromedp.Click(`[data-uplink=cable] .controls button`))
	w.events.state("cable", api.StateDisabled, since)
	b.await("the state", card("cable", ".state strong")+`.innerText === 'disabled' && document.querySelector('h1').innerText === 'Internet: partial'`)
	b.await("what is read aloud", `document.querySelector('[role=status]').innerText.includes('cable up → disabled')`)
	b.await("the event", `document.querySelector('.events').innerText.includes('cable up → disabled')`)
	b.do(chromedp.Click(`[data-uplink=cable] .controls button`))
	b.await("it is used again", card("cable", ".state strong")+`.innerText === 'up'`)
	b.do(chromedp.Click(`[aria-label="Prefer cable"]`))
	b.await("it is preferred", card("cable", ".state")+`.innerText.includes('preferred')`)
	w.pinByForm(b)
	b.do(chromedp.Click(`[aria-label="Do not prefer cable"]`), chromedp.Click(`[aria-label="Pause 5 min capturing"]`))
	b.await("the pause", `document.querySelector('.pause')?.innerText.includes('Paused until')`)
	b.do(chromedp.Click(`[aria-label="Resume capturing"]`))
	b.await("the end of the pause", `!document.querySelector('.pause')`)

	g.stop()
	b.await("the daemon is gone", `document.querySelector('[role=alert]')?.innerText.includes('No answer')`)
	g.restart()
	b.await("the daemon is back", `document.querySelector('h1').innerText === 'Internet: online' && !document.querySelector('[role=alert]')`)
	b.await("old events", `document.querySelector('.events').innerText.includes('cable up → disabled')`)
	b.await("nobody is signed in", `!document.querySelector('.controls') && document.querySelector('.note')`)
	hour, err := g.client.History(t.Context(), api.SpanHour)
	if err != nil || len(hour.Uplinks) != 2 || hour.Uplinks[1].Name != "fibre" || most(hour.Uplinks[1].RxBps) < 1e5 {
		t.Errorf("of the time before the restart is known: %+v, %v", hour, err)
	}
	done()
	b.sound()
}

// TestDashboardGrows: a page that is open when the daemon has only just begun, or before an uplink is plugged in, shows them once they
// are known.
func TestDashboardGrows(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	second := topology.Uplinks[1]
	labtest.Must(t, second.Unplug())
	g := start(t, topology.Gateway, "")
	b := g.dashboard()
	charted := func(uplink string) string {
		return fmt.Sprintf(`document.querySelector('.chart canvas') && /%s\s*↓\s*\d/.test(document.querySelector('.legend').innerText)`, uplink)
	}
	b.await("the chart of one", charted("wan1"))
	labtest.Must(t, second.Replug())
	b.await("the other in it", charted("wan2"))
	b.sound()
}

// pinByForm pins a host that has sessions, and what there cannot be.
func (w world) pinByForm(b *tab) {
	client := w.Hosts[1].Addr.String()
	b.do(chromedp.Focus(`.pin [name=client]`))
	b.await("clients to choose from", fmt.Sprintf(`[...document.querySelectorAll('#clients option')].some((o) => o.value === %q)`, client))
	b.do(chromedp.SendKeys(`.pin [name=client]`, client), chromedp.SendKeys(`.pin [name=site]`, "no site"), chromedp.Click(`.pin button`))
	b.await("the refusal", `document.querySelector('.pin [role=alert]')?.innerText.includes('is not a domain')`)
	b.do(chromedp.Evaluate(`Object.entries({site: '', uplink: 'cable', seconds: '3600'}).forEach(([name, v]) => { document.querySelector('.pin')[name].value = v; })`, nil),
		chromedp.Click(`.pin button`))
	b.await("the pin", fmt.Sprintf(`document.querySelector('.pins tbody')?.innerText.includes(%q)`, client))
	list, err := w.client.Pins(w.t.Context())
	if err != nil || len(list) != 1 || list[0].Uplink != "cable" || list[0].Inside.String() != client || list[0].Until.IsZero() {
		w.t.Errorf("pinned: %v, %v", list, err)
	}
	w.command("unpin", client)
	b.await("no pin any more", `!document.querySelector('.pins tbody')`)
}

func most(s api.Series) (v float64) {
	for _, one := range s {
		if one > v {
			v = one
		}
	}
	return v
}

// lookedAt is what a page is looked at with.
type lookedAt struct {
	scheme, name  string
	width, height int64
}

// looks are all of them, and opposite two that have nothing in common.
var (
	looks    = []lookedAt{{"light", "desktop", 1280, 900}, {"light", "phone", 390, 844}, {"dark", "desktop", 1280, 900}, {"dark", "phone", 390, 844}}
	opposite = []lookedAt{looks[0], looks[3]}
)

// TestDashboardLooks makes pictures, for people to look at, and finds what does not fit on a phone, and what some people cannot use,
// whatever there is to see.
func TestDashboardLooks(t *testing.T) {
	t.Parallel()
	w := beginNamed(t)
	g := w.gateway
	w.busy()
	b := g.dashboard()
	const something = `document.querySelector('.sessions tbody').children.length >= 4 && document.querySelector('.chart canvas')`
	b.await("something to see", something)
	b.accessibleIn(opposite, "who may look")
	b.signIn(g)
	b.await("something to see", something)
	w.command("pin", w.Hosts[1].Addr.String(), "video.example.com", "cable", "--for", "1h")
	for _, l := range looks {
		b.look(l.width, l.height, l.scheme)
		b.await("the width", fmt.Sprintf(`document.documentElement.scrollWidth <= %d && document.querySelector('.chart canvas').clientWidth < %d`, l.width, l.width))
		b.shoot(l.scheme + "-" + l.name)
		b.accessible(l.scheme + " " + l.name)
	}
	w.troubles(b)
	b.sound()
}

// troubles has the page show what it seldom does, to people who cannot use every page.
func (w world) troubles(b *tab) {
	w.t.Helper()
	w.command("uplink", "disable", "cable")
	w.command("uplink", "metered", "fibre", "on")
	w.command("pause")
	b.await("what was changed", `document.querySelector('.card.disabled') && document.querySelector('.pause') && document.querySelector('.pins tbody')`)
	b.accessibleIn(opposite, "changed")
	w.stop()
	b.await("the daemon is gone", `document.querySelector('[role=alert]')?.innerText.includes('No answer')`)
	b.accessibleIn(opposite, "without a daemon")
}

// TestDashboardShowsNamesAsText: the name of a device may be what a browser takes for a script.
func TestDashboardShowsNamesAsText(t *testing.T) {
	t.Parallel()
	const evil = "<script>x"
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	rename(t, topology.Uplinks[1], topology.Gateway, evil)
	g := start(t, topology.Gateway, "")
	g.awaitState(evil, api.StateUp)
	b := g.dashboard()
	b.await("the name as text", fmt.Sprintf(`[...document.querySelectorAll('.card h2')].some((h) => h.innerText.includes(%q))`, evil))
	if n := b.text(`String(document.querySelectorAll('#app script').length)`); n != "0" {
		t.Errorf("%s scripts came with a name", n)
	}
	b.sound()
}

// rename gives an uplink's device another name, and its default route back.
func rename(t testing.TB, u *lab.Uplink, ns *lab.Namespace, name string) {
	t.Helper()
	h := ns.Handle()
	link, err := h.LinkByName(u.Device)
	labtest.Must(t, err)
	routes, err := h.RouteList(link, netlink.FAMILY_V4)
	labtest.Must(t, err)
	labtest.Must(t, h.LinkSetDown(link))
	labtest.Must(t, h.LinkSetName(link, name))
	labtest.Must(t, h.LinkSetUp(link))
	for _, r := range routes {
		if r.Gw != nil {
			labtest.Must(t, h.RouteReplace(&r))
		}
	}
}
