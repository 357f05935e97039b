package uplinks

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDiscovery(t *testing.T) {
	tests := map[string]struct {
		world *world
		want  string
	}{
		"two with the same subnet and gateway": {twoISPs(), "eth0 eth1 "},
		"tap and give-back tap are ours": {new(world).eth(9, "tapgw0").addr(9, "198.18.73.1/30").via(9, "198.18.73.2", 75).
			eth(10, "tapgw0u").via(10, "10.0.0.1", 80), ""},
		"no default route":                    {new(world).eth(2, "lan").addr(2, "10.0.0.1/24"), ""},
		"ppp without a default route":         {new(world).p2p(4, "ppp0", "ppp").addr(4, "100.64.3.4/32"), "ppp0 "},
		"ppp without an address":              {new(world).p2p(4, "ppp0", "ppp"), ""},
		"vpn in front":                        {twoISPs().p2p(5, "wg0", "wireguard").addr(5, "10.8.0.2/24").via(5, "", 50), "eth0 eth1 "},
		"vpn behind counts":                   {new(world).p2p(5, "wg0", "wireguard").addr(5, "10.8.0.2/24").via(5, "", 450), "wg0 "},
		"split tunnel is none":                {new(world).p2p(5, "tailscale0", "tun").addr(5, "100.70.1.2/32"), ""},
		"tun with a public address":           {new(world).p2p(5, "tun0", "tun").addr(5, "203.0.113.9/32"), "tun0 "},
		"several default routes on one link":  {twoISPs().via(2, "192.168.1.2", 50), "eth0 eth1 "},
		"loopback never":                      {&world{Facts{Links: []Link{{Index: 1, Name: "lo", Loopback: true}}, Routes: []Route{{Table: TableMain, Dst: everywhere, Index: 1}}}}, ""},
		"our own protocol is no sign of life": {&world{Facts{Links: []Link{{Index: 7, Name: "x"}}, Routes: []Route{{Table: TableMain, Dst: everywhere, Index: 7, Protocol: Protocol}}}}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := NewTracker(healthy()).Update(t0, tt.world.Facts)
			if got := names(s); got != tt.want {
				t.Fatalf("uplinks %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLowestMetricGivesTheGateway(t *testing.T) {
	s, _ := NewTracker(healthy()).Update(t0, twoISPs().via(2, "192.168.1.254", 50).Facts)
	if g := byName(t, s, "eth0").Gateway; g != addr("192.168.1.254") {
		t.Fatalf("gateway %v", g)
	}
}

func TestPreferredSourceComesFirst(t *testing.T) {
	w := twoISPs().addr(2, "192.168.1.99/24").addr(2, "192.168.1.10/24")
	w.Routes[0].Source = addr("192.168.1.99")
	s, _ := NewTracker(healthy()).Update(t0, w.Facts)
	if got := s.ByID(0).Addresses; !slices.Equal(got, []netip.Addr{addr("192.168.1.99"), addr("192.168.1.10")}) {
		t.Fatalf("pool %v", got)
	}
	if u := s.Owner(addr("192.168.1.20")); u == nil || u.Name != "eth1" || s.Owner(addr("8.8.8.8")) != nil || s.ByID(200) != nil {
		t.Fatalf("owner %+v", u)
	}
}

func TestStates(t *testing.T) {
	tests := map[string]struct {
		change func(*world)
		health Health
		state  State
		reason string
	}{
		"unprobed":    {func(*world) {}, Health{}, Probing, "not probed yet"},
		"up":          {func(*world) {}, Health{Known: true, Usable: true}, Up, ""},
		"prober":      {func(*world) {}, Health{Known: true, Reason: "no reply"}, Down, "no reply"},
		"no carrier":  {func(w *world) { w.link(2).Carrier = false }, Health{Known: true, Usable: true}, Down, "no carrier"},
		"switched":    {func(w *world) { w.link(2).Up = false }, Health{Known: true, Usable: true}, Down, "interface is switched off"},
		"no address":  {func(w *world) { w.Addresses = w.Addresses[1:] }, Health{Known: true, Usable: true}, Down, "no address"},
		"link-local":  {func(w *world) { w.Addresses[0].Prefix = pfx("169.254.3.4/16") }, Health{}, Down, "no address"},
		"gone":        {func(w *world) { w.remove(2) }, Health{Known: true, Usable: true}, Down, "interface is gone"},
		"MAC is kept": {func(w *world) { w.Neighbours[0].State, w.Neighbours[0].MAC = 0x20, [6]byte{} }, Health{Known: true, Usable: true}, Up, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := twoISPs()
			tr := NewTracker(TrackerConfig{})
			tr.Update(t0, w.Facts)
			if err := tr.SetHealth(0, IPv4, tt.health); err != nil {
				t.Fatal(err)
			}
			tt.change(w)
			s, _ := tr.Update(t0.Add(time.Second), w.Facts)
			if u := s.ByID(0); u.State != tt.state || u.Reason != tt.reason {
				t.Fatalf("%s (%s), want %s (%s)", u.State, u.Reason, tt.state, tt.reason)
			}
		})
	}
}

// TestCarrierVoidsTheVerdict: what was found out before the carrier was lost, or meanwhile, does not count when it is back.
func TestCarrierVoidsTheVerdict(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{}), twoISPs()
	tr.Update(t0, w.Facts)
	expect := func(when string, state State, cut bool) {
		t.Helper()
		if s, _ := tr.Update(t0, w.Facts); s.ByID(0).State != state || s.ByID(0).Cut != cut {
			t.Errorf("%s: %s, cut %t", when, s.ByID(0).State, s.ByID(0).Cut)
		}
	}
	for _, h := range []Health{{Known: true, Usable: true}, {Known: true, Reason: "no reply"}} {
		w.link(2).Carrier = false
		expect("cut", Down, true)
		w.link(2).Carrier = true
		expect("back", Probing, false)
		if err := tr.SetHealth(0, IPv4, h); err != nil {
			t.Fatal(err)
		}
		expect("probed", map[bool]State{true: Up, false: Down}[h.Usable], false)
	}
}

// An uplink is unproven until a probe succeeds, and again under other addresses; never when the link lacks something.
func TestUnproven(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{}), twoISPs()
	check := func(when string, want bool) {
		t.Helper()
		if s, _ := tr.Update(t0, w.Facts); s.ByID(0).Unproven != want {
			t.Errorf("%s: unproven %t", when, !want)
		}
	}
	health := func(h Health) {
		if err := tr.SetHealth(0, IPv4, h); err != nil {
			t.Fatal(err)
		}
	}
	check("at first", true)
	health(Health{Known: true})
	check("after a failure", true)
	health(Health{Known: true, Usable: true})
	check("after a success", false)
	health(Health{Known: true})
	check("after a later failure", false)
	w.Addresses[0].Prefix = pfx("192.0.2.77/24")
	check("with another address", true)
	w.link(2).Carrier = false
	check("without carrier", false)
}

func TestSinceIsTheLastChangeOfState(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	w.link(2).Carrier = false
	_, events := tr.Update(t0.Add(time.Minute), w.Facts)
	want := []Event{{Time: t0.Add(time.Minute), Kind: StateChanged, Uplink: "eth0", From: Up, To: Down, Reason: "no carrier"}}
	if !slices.Equal(events, want) {
		t.Fatalf("events %+v", events)
	}
	s, events := tr.Update(t0.Add(time.Hour), w.Facts)
	if u := s.ByID(0); len(events) != 0 || !u.Since.Equal(t0.Add(time.Minute)) {
		t.Fatalf("since %v, events %v", u.Since, events)
	}
}

func TestUnresolvedGatewayIsProbing(t *testing.T) {
	w := new(world).eth(2, "eth0").addr(2, "10.0.0.2/24").via(2, "10.0.0.1", 0)
	tr := NewTracker(healthy())
	s, _ := tr.Update(t0, w.Facts)
	if u := s.ByID(0); u.State != Probing || u.Ready() {
		t.Fatalf("%+v", u)
	}
	s, _ = tr.Update(t0, w.arp(2, "10.0.0.1", 7, 0x04).Facts)
	if u := s.ByID(0); u.State != Up || u.GatewayMAC[5] != 7 || !u.Ready() {
		t.Fatalf("%+v", u)
	}
	w.Neighbours[0].MAC[5] = 8
	s, events := tr.Update(t0, w.Facts)
	if u := s.ByID(0); u.GatewayMAC[5] != 8 || kinds(events) != "gateway-changed " {
		t.Fatalf("%+v %v", u, events)
	}
}

func TestHeaderLessNeedsNoGateway(t *testing.T) {
	s, _ := NewTracker(healthy()).Update(t0, new(world).p2p(4, "ppp0", "ppp").addr(4, "203.0.113.5/32").via(4, "", 0).Facts)
	if u := s.ByID(0); u.State != Up || !u.Ready() || u.Gateway.IsValid() {
		t.Fatalf("%+v", u)
	}
}

// TestStopped: what takes no new sessions for a reason of others is like what is switched off, which counts more.
func TestStopped(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	if !tr.SetStopped(map[string]string{"eth1": "data cap"}) || tr.SetStopped(map[string]string{"eth1": "data cap"}) {
		t.Error("a change is not told from none")
	}
	s, events := tr.Refresh(t0)
	if u := byName(t, s, "eth1"); u.State != Disabled || u.Reason != "data cap" || kinds(events) != "state " {
		t.Fatalf("%v %q %v", u.State, u.Reason, events)
	}
	if err := tr.SetDisabled("eth1", true); err != nil {
		t.Fatal(err)
	}
	if s, _ = tr.Refresh(t0); byName(t, s, "eth1").Reason != "switched off" {
		t.Error("not switched off")
	}
	if err := tr.SetDisabled("eth1", false); err != nil {
		t.Fatal(err)
	}
	if s, _ = tr.Refresh(t0); byName(t, s, "eth1").State != Disabled {
		t.Error("switching on ended more than switching off")
	}
	if !tr.SetStopped(nil) {
		t.Error("the end is no change")
	}
	if s, _ = tr.Refresh(t0); byName(t, s, "eth1").State != Up {
		t.Error("not back up")
	}
}

func TestDisable(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	if err := tr.SetDisabled("eth1", true); err != nil {
		t.Fatal(err)
	}
	s, events := tr.Refresh(t0)
	if u := byName(t, s, "eth1"); u.State != Disabled || kinds(events) != "state " {
		t.Fatalf("%v %v", u.State, events)
	}
	if err := tr.SetDisabled("eth1", false); err != nil {
		t.Fatal(err)
	}
	if s, _ = tr.Refresh(t0); byName(t, s, "eth1").State != Up {
		t.Fatal("not back up")
	}
	if err := tr.SetDisabled("nonsense", true); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := tr.SetHealth(200, IPv4, Health{}); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}

// Generation is what ends sessions: it must change when, and only when, an address that they use is lost.
func TestGeneration(t *testing.T) {
	renumber := func(w *world) { w.Addresses[0].Prefix = pfx("192.168.1.11/24") }
	replug := func(w *world) {
		w.remove(2).eth(12, "eth0").addr(12, "192.168.1.10/24").via(12, "192.168.1.1", 100).arp(12, "192.168.1.1", 9, 2)
	}
	tests := map[string]struct {
		steps []func(*world)
		want  uint32
	}{
		"nothing":                 {nil, 1},
		"address added":           {[]func(*world){func(w *world) { w.addr(2, "192.168.1.99/24") }}, 1},
		"renumbered":              {[]func(*world){renumber}, 2},
		"carrier lost and back":   {[]func(*world){func(w *world) { w.link(2).Carrier = false }, func(w *world) { w.link(2).Carrier = true }}, 1},
		"re-plugged, new index":   {[]func(*world){func(w *world) { w.remove(2) }, replug}, 1},
		"re-plugged at once":      {[]func(*world){replug}, 1},
		"re-plugged, new address": {[]func(*world){func(w *world) { w.remove(2) }, func(w *world) { replug(w); w.Addresses[1].Prefix = pfx("192.168.7.7/24") }}, 2},
		"flushed, then back":      {[]func(*world){func(w *world) { w.Addresses = w.Addresses[1:] }, func(w *world) { w.addr(2, "192.168.1.10/24") }}, 1},
		"one of two lost":         {[]func(*world){func(w *world) { w.addr(2, "192.168.1.99/24") }, func(w *world) { w.Addresses = w.Addresses[:2] }}, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr, w := NewTracker(healthy()), twoISPs()
			s, _ := tr.Update(t0, w.Facts)
			for _, step := range tt.steps {
				step(w)
				s, _ = tr.Update(t0, w.Facts)
			}
			if u := byName(t, s, "eth0"); u.Generation != tt.want || u.ID != 0 || u.State != Up {
				t.Fatalf("generation %d, want %d: %+v", u.Generation, tt.want, u)
			}
			if u := byName(t, s, "eth1"); u.Generation != 1 {
				t.Fatalf("the other uplink's generation changed: %+v", u)
			}
		})
	}
}

func TestRenumberVoidsTheVerdict(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{}), twoISPs()
	tr.Update(t0, w.Facts)
	_ = tr.SetHealth(0, IPv4, Health{Known: true, Usable: true})
	w.Addresses[0].Prefix = pfx("10.9.9.9/24")
	w.Routes[0].Gateway = addr("10.9.9.1")
	s, events := tr.Update(t0, w.arp(2, "10.9.9.1", 3, 2).Facts)
	if u := s.ByID(0); u.State != Probing || u.Gateway != addr("10.9.9.1") {
		t.Fatalf("%+v", u)
	}
	if got := kinds(events); got != "addresses-changed gateway-changed " {
		t.Fatalf("events %s", got) // the state was probing before: the verdict had not been published
	}
}

func TestKnownUplinkSurvivesWithoutDefaultRoute(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	w.Routes = w.Routes[1:]
	s, _ := tr.Update(t0, w.Facts)
	if u := byName(t, s, "eth0"); u.State != Up || u.Gateway != addr("192.168.1.1") {
		t.Fatalf("%+v", u)
	}
	w.Addresses[0].Prefix = pfx("172.16.0.5/24") // the gateway is not reachable any more
	s, _ = tr.Update(t0, w.Facts)
	if u := byName(t, s, "eth0"); u.State != Down || u.Reason != "no gateway" {
		t.Fatalf("%+v", u)
	}
}

func TestRenamedAndReplugged(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	w.link(2).Name = "wan0"
	s, _ := tr.Update(t0, w.Facts)
	if u := s.ByID(0); u.Name != "eth0" || u.Interface != "wan0" || u.State != Up || len(s.Uplinks) != 2 {
		t.Fatalf("after rename: %+v", u)
	}
	mac := w.link(2).MAC
	s, events := tr.Update(t0, w.remove(2).Facts)
	if u := s.ByID(0); u.Index != 0 || u.State != Down || kinds(events) != "vanished state " {
		t.Fatalf("after unplug: %+v %v", u, events)
	}
	w.eth(20, "usb7").addr(20, "192.168.1.10/24").via(20, "192.168.1.1", 100).arp(20, "192.168.1.1", 1, 2)
	w.link(20).MAC = mac
	s, _ = tr.Update(t0, w.Facts)
	if u := s.ByID(0); u.Interface != "usb7" || u.Index != 20 || u.State != Up || len(s.Uplinks) != 2 {
		t.Fatalf("after re-plug: %+v (%s)", u, names(s))
	}
}

// Whatever happens to the devices, IDs and names stay paired, no two uplinks share a device, and generations only grow.
func TestTrackerInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := NewTracker(healthy())
		ids, generations := map[string]uint8{}, map[uint8]uint32{}
		for step := range rapid.IntRange(1, 20).Draw(t, "steps") {
			w := new(world)
			for index := range 5 {
				if !rapid.Bool().Draw(t, "present") {
					continue
				}
				i := index + 2 + 10*rapid.IntRange(0, 1).Draw(t, "replug")
				w.eth(i, fmt.Sprintf("eth%d", rapid.IntRange(0, 1).Draw(t, "name")*10+index))
				w.addr(i, fmt.Sprintf("10.0.%d.%d/24", index, rapid.IntRange(1, 3).Draw(t, "addr")))
				w.via(i, fmt.Sprintf("10.0.%d.254", index), rapid.IntRange(0, 3).Draw(t, "metric")*50)
			}
			s, _ := tr.Update(t0.Add(time.Duration(step)*time.Second), w.Facts)
			devices := map[int]bool{}
			for _, u := range s.Uplinks {
				if id, known := ids[u.Name]; known && id != u.ID || u.Generation < max(1, generations[u.ID]) {
					t.Fatalf("uplink %+v had ID %d, generation %d", u, id, generations[u.ID])
				}
				if u.Index != 0 && devices[u.Index] {
					t.Fatalf("device %d twice", u.Index)
				}
				devices[u.Index], ids[u.Name], generations[u.ID] = true, u.ID, u.Generation
			}
			for _, l := range w.Links {
				if !devices[l.Index] {
					t.Fatalf("device %s has no uplink", l.Name)
				}
			}
		}
	})
}
