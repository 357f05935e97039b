package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestFault01_CablePull is fault 1. Ethernet here tells of a lost carrier at once; a TUN device, as a real network card, only at
// most once a second of all the machine's devices (linkwatch), which other devices that lose theirs use up.
func TestFault01_CablePull(t *testing.T) {
	t.Run("ethernet", func(t *testing.T) { testCarrierLoss(t, lab.Options{}) })
	t.Run("tun", func(t *testing.T) {
		flap(t)
		testCarrierLoss(t, lab.Options{Uplinks: []lab.UplinkOptions{{HeaderLess: true}, {}}})
	})
}

func testCarrierLoss(t *testing.T, o lab.Options) {
	w := begin(t, o, waiting(inTurn))
	first, second := w.Uplinks[0], w.Uplinks[1]
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	visits := keepVisiting(t, w.lan)
	visits.by(first.Addr(), time.Now())

	begun := time.Now()
	labtest.Must(t, first.Link.Cut())
	cut := time.Now()
	down := w.events.state("wan1", api.StateDown, begun)
	t.Logf("seen %s after the cut: %s", down.Time.Sub(cut), down.Message)
	labtest.Must(t, onSecond.talk())
	visits.by(second.Addr(), cut.Add(2*carrierBound))

	mended := time.Now()
	labtest.Must(t, first.Link.Mend())
	w.events.state("wan1", api.StateUp, mended)
	if took := visits.by(first.Addr(), mended).Sub(mended); took > returnBound {
		t.Errorf("new sessions returned only after %s", took)
	}
	labtest.Must(t, onFirst.talk())
	labtest.Must(t, onSecond.talk())
	expectOutage(t, visits.stop(), begun, cut.Sub(begun)+carrierBound)
}

// flap lets a device that has nothing to do with the test lose its carrier again and again.
func flap(t testing.TB) {
	t.Helper()
	near, far := labtest.Namespace(t, "flapper"), labtest.Namespace(t, "peer")
	end := func(ns *lab.Namespace, addr string) lab.End {
		return lab.End{NS: ns, Device: "flap", Prefix: netip.MustParsePrefix(addr)}
	}
	link, err := lab.ConnectTUN(end(near, "192.0.2.1/32"), end(far, "192.0.2.2/32"), 0)
	labtest.Must(t, err)
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-ended
		labtest.Must(t, link.Unplug())
	})
	go func() {
		defer close(ended)
		for pace := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-done:
				pace.Stop()
				return
			case <-pace.C:
				_ = errors.Join(link.Cut(), link.Mend())
			}
		}
	}()
}

// TestFault02_03_04_Blackhole is faults 2–4: the link stays up while nothing comes back.
func TestFault02_03_04_Blackhole(t *testing.T) {
	t.Parallel()
	faults := func(f ...lab.Fault) func(*lab.Uplink, bool) error {
		return func(u *lab.Uplink, on bool) error {
			if !on {
				return u.SetFaults()
			}
			return u.SetFaults(f...)
		}
	}
	for name, set := range map[string]func(*lab.Uplink, bool) error{
		"upstream": faults(lab.Blackhole),
		"provider": (*lab.Uplink).Silence,
		"outbound": faults(lab.Fault{From: lab.DeviceCustomer, Loss: 1}),
		"inbound":  faults(lab.Fault{To: lab.DeviceCustomer, Loss: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testBlackhole(t, set)
		})
	}
}

func testBlackhole(t *testing.T, set func(u *lab.Uplink, on bool) error) {
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	visits := keepVisiting(t, w.lan)
	visits.by(first.Addr(), time.Now())

	begun := time.Now()
	labtest.Must(t, set(first, true))
	down := w.events.state("wan1", api.StateDown, begun)
	took := down.Time.Sub(begun)
	t.Logf("seen after %s: %s", took, down.Message)
	if took > blackholeBound {
		t.Errorf("seen only after %s", took)
	}
	visits.by(w.Uplinks[1].Addr(), down.at.Add(visitPace))

	healed := time.Now()
	labtest.Must(t, set(first, false))
	w.events.state("wan1", api.StateUp, healed)
	if took := visits.by(first.Addr(), healed).Sub(healed); took > returnBound {
		t.Errorf("new sessions returned only after %s", took)
	}
	expectOutage(t, visits.stop(), begun, took+visitPace)
}

// TestBlockedICMP is fault 10: a provider that drops ICMP keeps working.
func TestBlockedICMP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].SetFaults(lab.ICMPBlackhole))
	w.events.none(blackholeBound+500*time.Millisecond, begun, leaves(api.StateUp))
}

// TestSessionsOfDeadUplink: UDP, echo and unanswered SYNs move with their next packet, established TCP waits if it is to.
func TestSessionsOfDeadUplink(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, waiting(preferFirst))
	first, second := w.Uplinks[0], w.Uplinks[1]
	ctx := labtest.Context(t)

	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	expectUDP := func(want netip.Addr) {
		t.Helper()
		outside, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], "hello")
		if err != nil || outside.Addr() != want {
			t.Errorf("UDP went by %s (%v), want %s", outside, err, want)
		}
	}
	expectUDP(first.Addr())
	ping := newEchoer(t, w.lan, 4711)
	labtest.Must(t, ping.ask(patience))
	established := w.connect(w.lan, "wan1")

	begun := time.Now()
	labtest.Must(t, first.SetFaults(lab.Blackhole))
	dialed := make(chan error, 1)
	go func() { // its SYN leaves by the dead uplink
		c, err := w.lan.Dial(ctx, "tcp4", netip.AddrPortFrom(lab.ServerAddrs[1], lab.PortTCPEcho).String())
		if err == nil {
			defer c.Close()
			err = talker{Conn: c}.talk()
		}
		dialed <- err
	}()
	w.events.state("wan1", api.StateDown, begun)
	expectUDP(second.Addr())
	labtest.Must(t, ping.ask(patience))
	if s, ok := w.session("icmp", 4711); !ok || s.Uplink != "wan2" {
		t.Errorf("echo requests go by %q", s.Uplink)
	}
	if err := <-dialed; err != nil {
		t.Errorf("the retransmitted SYN: %v", err)
	}
	talked := make(chan error, 1)
	go func() { talked <- established.talk() }()
	w.awaitSegment(established)
	healed := time.Now()
	labtest.Must(t, first.SetFaults())
	w.events.state("wan1", api.StateUp, healed)
	if err := <-talked; err != nil {
		t.Errorf("the established connection: %v", err)
	}
}

// awaitSegment waits until a connection has just sent something by its uplink.
func (w world) awaitSegment(c talker) {
	w.t.Helper()
	eventually(w.t, "a retransmission", func() bool {
		s, ok := w.session("tcp", portOf(c))
		return ok && s.Uplink == c.uplink && s.IdleS == 0
	})
}

// TestFault08_AllUplinksDown: sessions wait, new ones are refused at once, and all goes on without a restart.
func TestFault08_AllUplinksDown(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	ctx := labtest.Context(t)
	established := w.connect(w.lan, "wan1")
	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	before, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], "hello")
	labtest.Must(t, err)

	begun := time.Now()
	for _, u := range w.Uplinks {
		labtest.Must(t, u.SetFaults(lab.Blackhole))
	}
	w.events.state("wan1", api.StateDown, begun)
	w.events.state("wan2", api.StateDown, begun)
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		asked := time.Now()
		_, err = ns.Dial(ctx, "tcp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho).String())
		if took := time.Since(asked); !errors.Is(err, syscall.ENETUNREACH) || took > time.Second {
			t.Errorf("a new connection of %s got %v after %s", ns.Name(), err, took)
		}
		if _, err = ns.Ping(ctx, lab.ServerAddrs[0]); err == nil || !contains(err.Error(), "unreachable") {
			t.Errorf("a new ping of %s got %v", ns.Name(), err)
		}
	}
	talked := make(chan error, 1)
	go func() { talked <- established.talk() }()

	healed := time.Now()
	for _, u := range w.Uplinks {
		labtest.Must(t, u.SetFaults())
	}
	w.events.state("wan1", api.StateUp, healed)
	after, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], "again")
	if err != nil || after != before {
		t.Errorf("the mapping was %s, is %s (%v)", before, after, err)
	}
	if err := <-talked; err != nil {
		t.Errorf("the established connection: %v", err)
	}
	online(t, w.lan)
}

// TestSingleUplink: with one uplink everything works as far as it can.
func TestSingleUplink(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)}, "")
	if out, _ := w.tapgw("status"); !strings.Contains(out, "with a second") {
		t.Errorf("nobody is told what a second one would be good for:\n%s", out)
	}
	established := w.connect(w.lan, "wan1")
	for _, set := range []func(on bool) error{
		func(on bool) error { return w.Uplinks[0].Silence(on) },
		func(on bool) error {
			if on {
				return w.Uplinks[0].Link.Cut()
			}
			return w.Uplinks[0].Link.Mend()
		},
	} {
		begun := time.Now()
		labtest.Must(t, set(true))
		w.events.state("wan1", api.StateDown, begun)
		healed := time.Now()
		labtest.Must(t, set(false))
		w.events.state("wan1", api.StateUp, healed)
		online(t, w.lan)
		online(t, w.Gateway)
		labtest.Must(t, established.talk())
	}
}

// TestProbesFiltered: where nothing but the probes is lost, the uplinks are called down and carry sessions all the same.
func TestProbesFiltered(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, "probe: {targets: [icmp://192.0.2.99], interval: 300ms, timeout: 200ms}\n")
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.awaitState("wan1", api.StateDown)
	w.awaitState("wan2", api.StateDown)
	w.meetLAN()
	online(t, w.lan)
	online(t, w.Gateway)
	if _, status := w.tapgw("status"); status != 5 {
		t.Errorf("exit status %d", status)
	}
}

// TestProbeLeak is fault 15: an uplink that main has no default route for is probed by itself, not by the other.
func TestProbeLeak(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	second := w.Uplinks[1]
	labtest.Must(t, second.RemoveDefault())
	begun := time.Now()
	labtest.Must(t, second.SetFaults(lab.Blackhole))
	down := w.events.state("wan2", api.StateDown, begun)
	if took := down.Time.Sub(begun); took > blackholeBound {
		t.Errorf("seen only after %s", took)
	}
	online(t, w.lan)
	labtest.Must(t, second.SetFaults())
	w.events.state("wan2", api.StateUp, down.Time)
}
