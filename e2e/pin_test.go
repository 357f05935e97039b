package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// expectBy fails the test unless new sessions of a host use an uplink.
func (w world) expectBy(who string, ns *lab.Namespace, uplink *lab.Uplink) {
	w.t.Helper()
	for range 4 {
		if v := visitFor(ns, lab.ServerAddrs[1], visitPatience); v.err != nil || v.outside != uplink.Addr() {
			w.t.Errorf("%s: a session by %s (%v), not %s\n%s", who, v.outside, v.err, uplink.Addr(), w.command("sessions", "--why"))
		}
	}
}

// TestHostPinned: new sessions of a pinned client use its uplink, whatever rules say, others while that is down, over a reload, and until
// the pin ends; sessions that there are stay, and so do all other clients.
func TestHostPinned(t *testing.T) {
	t.Parallel()
	ruled := preferFirst + "rules: [{name: all, from: [0.0.0.0/0], use: all}]\n"
	w := beginV6(t, lab.Options{LANHosts: 2}, ruled)
	w.family = overIPv4
	first, second := w.Uplinks[0], w.Uplinks[1]
	client, other := w.Hosts[0].Addr.String(), w.Hosts[1].Namespace
	w.pinsEachFamily(second)
	before := w.connect(w.lan, "wan1")
	begun := time.Now()
	w.command("pin", client, "wan2")
	w.events.await("a pin", begun, func(e api.Event) bool {
		return e.Kind == api.EventPin && e.Uplink == "wan2" && strings.Contains(e.Message, client)
	})
	w.use(ruled)
	w.expectBy("the client", w.lan, second)
	w.expectBy("another", other, first)
	w.expectBy("the gateway", w.Gateway, first)
	labtest.Must(t, before.talk())
	if out := w.command("why", lab.ServerAddrs[0].String(), "--from", client); !strings.Contains(out, "tapgw pin: matches") || !strings.Contains(out, "by wan2") {
		t.Errorf("not explained:\n%s", out)
	}
	if out := w.command("sessions", "--inside", client, "--why"); !strings.Contains(out, "tapgw pin") {
		t.Errorf("no session shows why it is there:\n%s", out)
	}
	if out := w.command("status") + w.command("pins"); !strings.Contains(out, "tapgw pins") || !strings.Contains(out, client+"  all   wan2") {
		t.Errorf("not shown:\n%s", out)
	}

	begun = time.Now()
	labtest.Must(t, second.Link.Cut())
	w.events.state("wan2", api.StateDown, begun)
	w.expectBy("the client, while its uplink is down", w.lan, first)
	labtest.Must(t, second.Link.Mend())
	w.events.state("wan2", api.StateUp, begun)
	w.expectBy("the client again", w.lan, second)

	w.command("pin", w.Hosts[1].Addr.String(), "wan2", "--for", "1h")
	w.expectBy("another, for an hour", other, second)
	begun = time.Now()
	w.command("pin", w.Hosts[1].Addr.String(), "wan2", "--for", "1s") // instead
	w.events.await("the end", begun, func(e api.Event) bool { return e.Kind == api.EventUnpin && strings.Contains(e.Message, "time is over") })
	w.expectBy("another, later", other, first)
	w.command("unpin", client)
	w.expectBy("the client, at last", w.lan, first)
	w.refuses()
}

// pinsEachFamily pins the client's IPv6 alone, and the gateway itself with both.
func (w world) pinsEachFamily(uplink *lab.Uplink) {
	w.t.Helper()
	client := w.Hosts[0].AddrV6.String()
	w.command("pin", client, uplink.Device)
	w.command("pin", "self", uplink.Device)
	for who, ns := range map[string]*lab.Namespace{"the client": w.lan, "the gateway": w.Gateway} {
		if v := visitFor(ns, overIPv6.servers[0], visitPatience); v.err != nil || v.outside != overIPv6.own(uplink) {
			w.t.Errorf("%s: IPv6 by %s (%v)", who, v.outside, v.err)
		}
	}
	w.expectBy("the client's IPv4", w.lan, w.Uplinks[0])
	w.expectBy("the gateway's IPv4", w.Gateway, uplink)
	w.command("unpin", client)
	w.command("unpin", "self")
}

// refuses has the daemon asked for pins that there cannot be.
func (w world) refuses() {
	w.t.Helper()
	for _, c := range []struct {
		args, says string
		status     int
	}{
		{"pin self wan9", "no such uplink", 10},
		{"pin 10.0.0.9 exa!mple.com wan1", "not a domain", 1},
		{"pin 10.0.0.9 2001:db8::/32 wan1", "different families", 1},
		{"pin 224.0.0.1 wan1", "of no host", 1},
		{"unpin self", "tapgw pins", 1},
	} {
		if out, status := w.tapgw(strings.Fields(c.args)...); status != c.status || !strings.Contains(out, c.says) {
			w.t.Errorf("%s: status %d, %s", c.args, status, out)
		}
	}
	if list, err := w.client.Pins(w.t.Context()); err != nil || len(list) != 0 {
		w.t.Errorf("pins are left: %v, %v", list, err)
	}
}

// TestHostPinnedForSite: a site, all below it, and a network each have an uplink of their own, for one client or for the gateway itself.
func TestHostPinnedForSite(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{}, preferFirst)
	client := w.Hosts[0].Addr.String()
	w.command("pin", client, "Video.example.", "wan2")
	w.command("pin", "self", "shop.example", "wan2")
	w.command("pin", client, "192.0.2.0/30", "wan1")
	w.command("pin", client, "192.0.2.0/24", "wan2")
	w.command("pin", client, "wan1")
	for _, c := range []struct {
		from       *lab.Namespace
		site, want string
	}{
		{w.lan, "video.example", "wan2"}, {w.lan, "cdn.video.example", "wan2"}, {w.lan, "img.bank.example", "wan1"},
		{w.lan, "shop.example", "wan2"}, {w.Gateway, "shop.example", "wan2"}, {w.Gateway, "video.example", "wan1"},
	} {
		if got := w.visit(c.from, w.resolve(c.from, c.site)); got != c.want {
			t.Errorf("%s by %s, not %s", c.site, got, c.want)
		}
	}
	w.command("pin", client, "video.example", "wan1") // instead of the one before
	if got := w.visit(w.lan, w.resolve(w.lan, "video.example")); got != "wan1" {
		t.Errorf("pinned anew: by %s", got)
	}
	list, err := w.client.Pins(t.Context())
	if err != nil || len(list) != 5 || list[4].Site != "" || list[0].Site != "video.example" {
		t.Errorf("%v, %v", list, err)
	}
	own := netip.MustParseAddr(w.localOf())
	labtest.Must(t, w.client.Unpin(t.Context(), own, "shop.example")) // the gateway's address means the gateway
	if got := w.visit(w.Gateway, w.resolve(w.Gateway, "shop.example")); got != "wan1" {
		t.Errorf("the gateway, pinned no longer: by %s", got)
	}
}
