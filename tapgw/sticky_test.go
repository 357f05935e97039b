package tapgw

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// surfer opens sessions in a world whose uplinks take turns, each from a port of its own.
type surfer struct {
	*world
	client packet.Addr
	port   uint16
	now    nat.Tick
}

func newSurfer(t testing.TB) *surfer {
	t.Helper()
	w := newWorld(t)
	w.ups[1].Tier = 0
	w.publish()
	must(t, w.g.SetPlan(policy.NewPlan("round-robin")))
	return &surfer{world: w, client: inside, port: 10_000, now: start}
}

// use sets the stickiness of all sessions.
func (s *surfer) use(how policy.Stickiness) {
	s.t.Helper()
	p := policy.NewPlan("round-robin")
	p.Groups[0].Stickiness = how
	must(s.t, s.g.SetPlan(p))
}

// know makes names of addresses known, each in the form of name and address in turn.
func (s *surfer) know(pairs ...string) {
	s.t.Helper()
	s.g.SetNames(NewNames())
	for i := 0; i < len(pairs); i += 2 {
		s.resolve(pairs[i], at(pairs[i+1]))
	}
}

func at(a string) packet.Addr { return packet.AddrOf(netip.MustParseAddr(a)) }

// visit opens a session and returns its uplink.
func (s *surfer) visit(proto uint8, remote string, port uint16) uint8 {
	s.t.Helper()
	s.port++
	b := tcpFrame(s.t, s.client, s.port, at(remote), port, syn, "")
	if proto == packet.ProtoUDP {
		b = udpFrame(s.t, s.client, s.port, at(remote), port, "x")
	}
	res := s.g.Outbound(b, s.now)
	s.expect(res, Send, NoReason)
	return res.Uplink
}

// web visits a site by HTTPS.
func (s *surfer) web(remote string) uint8 {
	s.t.Helper()
	return s.visit(packet.ProtoTCP, remote, 443)
}

// stays fails unless sessions with all these remotes use one uplink, however many others come between.
func (s *surfer) stays(remotes ...string) (uplink uint8) {
	s.t.Helper()
	uplink = s.web(remotes[0])
	for range 3 {
		for _, r := range remotes {
			if got := s.web(r); got != uplink {
				s.t.Fatalf("%s by uplink %d, not %d", r, got, uplink)
			}
		}
		s.visit(packet.ProtoTCP, "203.0.113.200", 80)
	}
	return uplink
}

// TestMW2_SitesStick: what a client does with one site goes by one uplink, whatever its addresses; other sites, other clients
// and other services take turns.
func TestMW2_SitesStick(t *testing.T) {
	s := newSurfer(t)
	s.know("www.bank.example", "192.0.2.1", "img.bank.example", "198.51.100.77", "shop.example", "192.0.2.2")
	bank := s.stays("192.0.2.1", "198.51.100.77")
	for s.visit(packet.ProtoTCP, "203.0.113.1", 80) != bank { // so that it is the other's turn
		continue
	}
	if shop := s.stays("192.0.2.2"); shop == bank {
		t.Error("a neighbour by address is taken for the site")
	}
	if got := s.visit(packet.ProtoUDP, "198.51.100.77", 443); got != bank {
		t.Errorf("QUIC by uplink %d, not %d", got, bank)
	}
	ref := s.table.FindOut(nat.Key{Inside: inside, InsidePort: s.port, Remote: at("198.51.100.77"), RemotePort: 443, Proto: packet.ProtoUDP})
	if why := policy.Reason(s.table.Translation(ref).Reason); why != policy.ReasonSticky {
		t.Errorf("because %q", why)
	}
	for _, other := range []uint16{80, 8443} {
		if a, b := s.visit(packet.ProtoTCP, "192.0.2.1", other), s.visit(packet.ProtoTCP, "192.0.2.1", other); a == b {
			t.Errorf("port %d sticks", other)
		}
	}
	used := map[uint8]bool{}
	for range 4 {
		s.client.Lo++
		used[s.web("192.0.2.1")] = true
	}
	if len(used) != 2 {
		t.Error("all clients go by one uplink")
	}
}

// TestMW2_NetworksStick where the name is not known: a /24, a /48.
func TestMW2_NetworksStick(t *testing.T) {
	s := newSurfer(t)
	if first, second := s.web("192.0.2.1"), s.web("192.0.3.1"); first == second { // in turn
		t.Error("another network goes by the same uplink")
	}
	s.stays("192.0.2.1", "192.0.2.254")
	s.stays("192.0.3.1")
	var o opening
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::3", "2001:db8:1:ffff::1", true}, {"2001:db8:1::1", "2001:db8:2::1", false}, {"192.0.2.1", "192.0.3.1", false},
	} {
		var keys [2]string
		for i, r := range []string{c.a, c.b} {
			o.key.Remote = at(r)
			keys[i] = string(s.g.appendSite(nil, &o))
		}
		if (keys[0] == keys[1]) != c.same {
			t.Errorf("%s and %s: %x", c.a, c.b, keys)
		}
	}
}

// TestMW2_Modes: stickiness as a group or rule says.
func TestMW2_Modes(t *testing.T) {
	s := newSurfer(t)
	s.use(policy.StickyClient)
	uplink := s.visit(packet.ProtoTCP, "192.0.2.1", 80)
	for _, remote := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.9"} {
		if got := s.visit(packet.ProtoUDP, remote, 5000); got != uplink {
			t.Errorf("the client goes to %s by uplink %d, not %d", remote, got, uplink)
		}
	}
	s.use(policy.StickySite)
	uplink = s.visit(packet.ProtoTCP, "192.0.2.1", 80)
	if got := s.visit(packet.ProtoUDP, "192.0.2.7", 5000); got != uplink {
		t.Errorf("the site by uplink %d, not %d", got, uplink)
	}
	s.use(policy.StickySession)
	if a, b := s.web("192.0.2.1"), s.web("192.0.2.1"); a == b {
		t.Error("sessions stick")
	}
}

// TestMW2_Failover: what sticks moves when its uplink is down, all together, and stays where it is then.
func TestMW2_Failover(t *testing.T) {
	for _, state := range []uplinks.State{uplinks.Down, uplinks.Degraded} {
		s := newSurfer(t)
		first := s.stays("192.0.2.1")
		s.ups[first-1].State = state
		s.publish()
		second := s.web("192.0.2.1")
		if state == uplinks.Degraded {
			for range 4 { // the scheduler may still choose it
				second = s.web("192.0.2.1")
			}
		}
		if second == first {
			t.Fatalf("still by the uplink that is %s", state)
		}
		s.ups[first-1].State = uplinks.Up
		s.publish()
		if back := s.stays("192.0.2.1"); back != second {
			t.Errorf("%s: back to uplink %d", state, back)
		}
		for i := range s.ups { // what is degraded everywhere sticks all the same
			s.ups[i].State = uplinks.Degraded
		}
		s.publish()
		if got := s.stays("192.0.2.1"); got != second {
			t.Errorf("moved to uplink %d though all are degraded", got)
		}
	}
}

// TestStickinessYieldsToTiers: a standby is left when an uplink of a lower tier works again, as it may cost money.
func TestStickinessYieldsToTiers(t *testing.T) {
	s := newSurfer(t)
	s.ups[1].Tier, s.ups[0].State = 1, uplinks.Down
	s.publish()
	if got := s.stays("192.0.2.1"); got != 2 {
		t.Fatalf("by uplink %d", got)
	}
	s.ups[0].State = uplinks.Up
	s.publish()
	if got := s.stays("192.0.2.1"); got != 1 {
		t.Errorf("by uplink %d", got)
	}
}

// TestStickinessWithinGroups: what sticks in one group says nothing about another.
func TestStickinessWithinGroups(t *testing.T) {
	s := newSurfer(t)
	p := grouped(policy.Refuse)
	p.Groups[0].Stickiness = policy.StickyClient
	p.Groups[0].Scheduler = "round-robin"
	p.Rules[0].Action.Stickiness = policy.StickyClient
	must(t, s.g.SetPlan(p))
	first := s.visit(packet.ProtoTCP, "192.0.2.1", 80)
	for range 4 {
		if got := s.visit(packet.ProtoUDP, "192.0.2.1", 53); got != 2 {
			t.Fatalf("the rule's by uplink %d", got)
		}
		if got := s.visit(packet.ProtoTCP, "192.0.2.1", 80); got != first {
			t.Fatalf("all others by uplink %d", got)
		}
	}
}

// TestStickinessEnds when nothing has come for a while, unless a session lives.
func TestStickinessEnds(t *testing.T) {
	for _, lives := range []bool{false, true} {
		s := newSurfer(t)
		uplink := s.web("192.0.2.1")
		s.now += nat.TickOf(stickyIdle) + 1
		if !lives {
			s.table.Sweep(s.now, 0) // it never was established
		}
		other := 3 - uplink
		for s.visit(packet.ProtoTCP, "203.0.113.1", 80) != uplink { // so that it is the other's turn
			continue
		}
		want := other
		if lives {
			want = uplink
		}
		if got := s.web("192.0.2.1"); got != want {
			t.Errorf("a session lives: %v, the next by uplink %d, not %d", lives, got, want)
		}
	}
}

// TestMW2_AsAModel: whatever comes, the sessions of a client with a site use one uplink as long as that is up.
func TestMW2_AsAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSurfer(t)
		s.know("a.one.example", "192.0.2.1", "b.one.example", "198.51.100.1", "two.example", "192.0.2.2")
		site := map[string]string{"192.0.2.1": "one", "198.51.100.1": "one", "192.0.2.2": "two", "203.0.113.1": "", "203.0.113.2": ""}
		remotes := []string{"192.0.2.1", "198.51.100.1", "192.0.2.2", "203.0.113.1", "203.0.113.2"}
		type pair struct {
			client packet.Addr
			site   string
		}
		model := map[pair]uint8{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				i := rapid.IntRange(0, 1).Draw(rt, "uplink")
				s.ups[i].State, s.ups[1-i].State = uplinks.Down, uplinks.Up
				s.publish()
			case 1:
				s.ups[0].State, s.ups[1].State = uplinks.Up, uplinks.Up
				s.publish()
			case 2:
				s.now += nat.TickOf(time.Minute)
			default:
				s.client = packet.Addr{Lo: inside.Lo + uint64(rapid.IntRange(0, 2).Draw(rt, "client"))}
				remote := rapid.SampledFrom(remotes).Draw(rt, "remote")
				p := pair{s.client, site[remote]}
				got := s.web(remote)
				if want, known := model[p]; known && want != got && s.ups[want-1].State == uplinks.Up {
					rt.Fatalf("%v by uplink %d, not %d", p, got, want)
				}
				model[p] = got
			}
		}
	})
}

func TestStickingAllocatesNothing(t *testing.T) {
	s := newSurfer(t)
	s.know("www.bank.example", "192.0.2.1")
	s.web("192.0.2.1")
	frame := tcpFrame(t, inside, 1, at("192.0.2.1"), 443, syn, "")
	b := clone(frame)
	const sourcePort = packet.VnetLen + packet.EthernetLen + 20
	next := uint16(20_000)
	if n := testing.AllocsPerRun(1000, func() {
		copy(b, frame)
		next++
		b[sourcePort], b[sourcePort+1] = byte(next>>8), byte(next)
		s.out(b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOpenSticky(b *testing.B) {
	var s *surfer
	frame := tcpFrame(b, inside, 0, at("192.0.2.1"), 443, syn, "")
	buf := clone(frame)
	for i := 0; b.Loop(); i++ {
		if i%4096 == 0 {
			b.StopTimer()
			s = newSurfer(b)
			s.know("www.bank.example", "192.0.2.1")
			b.StartTimer()
		}
		copy(buf, frame)
		buf[packet.VnetLen+34], buf[packet.VnetLen+35] = byte(i>>8), byte(i)
		s.g.Outbound(buf, start+nat.Tick(i%8))
	}
}
