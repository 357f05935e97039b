package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const (
	// seldom is probing that costs next to nothing, and so finds out nothing in time.
	seldom = "probe: {interval: 1h, timeout: 1s}\n"
	// moveBound is what a connection may take longer while its uplink is dead and nobody knows; promised is 500 ms.
	moveBound = 900 * time.Millisecond // a client sends its SYN again after 1 s
	// avoidBound is what one may take that begins when the uplink is suspect.
	avoidBound = 300 * time.Millisecond
)

// TestFault02_03_04_UnansweredConnectionsMove: a provider that dies in silence is not noticed by applications: every connection is
// made, the first ones a little later, and those that follow avoid the uplink long before a probe could tell.
func TestFault02_03_04_UnansweredConnectionsMove(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *family) {
		testUnansweredConnections(t, f, func(u *lab.Uplink) { cutOff(t, f, u) })
	})
	for name, fault := range map[string]lab.Fault{
		"outbound": {From: lab.DeviceCustomer, Loss: 1},
		"inbound":  {To: lab.DeviceCustomer, Loss: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testUnansweredConnections(t, overIPv4, func(u *lab.Uplink) { labtest.Must(t, u.SetFaults(fault)) })
		})
	}
}

func testUnansweredConnections(t *testing.T, f *family, die func(*lab.Uplink)) {
	w := beginOver(t, f, lab.Options{}, seldom+preferFirst)
	w.connect(w.lan, "wan1")
	begun := time.Now()
	die(w.Uplinks[0])
	var took []time.Duration
	for n := range 40 {
		took = append(took, w.dial([]*lab.Namespace{w.lan, w.Gateway}[n%2], f.servers[n%3%2]))
	}
	suspected := w.events.await("suspicion", begun, func(e api.Event) bool {
		return e.Kind == api.EventSuspicion && e.Uplink == "wan1" && e.Family == f.name
	})
	t.Logf("%s after %s; connections took %s", suspected.Message, suspected.Time.Sub(begun).Round(time.Millisecond), took[:8])
	if worst := slices.Max(took); worst > moveBound {
		t.Errorf("a connection took %s", worst)
	}
	if worst := slices.Max(took[20:]); worst > avoidBound {
		t.Errorf("a late connection took %s", worst)
	}
}

// TestFault02_SuspectIsShown in the status as long as new sessions avoid it, of the family that remotes do not answer in.
func TestFault02_SuspectIsShown(t *testing.T) { eachFamily(t, testSuspectIsShown) }

func testSuspectIsShown(t *testing.T, f *family) {
	w := beginV6(t, lab.Options{}, seldom+preferFirst)
	shown := func() bool {
		u := w.uplink("wan1")
		if f == overIPv6 {
			u.Suspect, u.IPv6.Suspect = u.IPv6.Suspect, u.Suspect
		}
		if u.IPv6.Suspect {
			t.Error("the other family is suspect")
		}
		return u.Suspect
	}
	if shown() {
		t.Error("suspect from the beginning")
	}
	cutOff(t, f, w.Uplinks[0])
	for n := range 2 {
		w.dial(w.lan, f.servers[n])
	}
	eventually(t, "a suspicion in the status", shown)
	if text, _ := w.tapgw("status"); !contains(text, "suspect") {
		t.Errorf("status:\n%s", text)
	}
	eventually(t, "the end of the suspicion", func() bool { return !shown() })
}

// TestFault12_DeadTCP: an uplink that answers everything but SYNs is suspect too, though every connection waits until then.
func TestFault12_DeadTCP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, seldom+preferFirst)
	nftablesRules(t, w.Uplinks[0].ISP, "table ip dead {\n chain forward { type filter hook forward priority 0; tcp flags syn drop; }\n}\n")
	var took []time.Duration
	for n := range 12 {
		took = append(took, w.dial(w.lan, lab.ServerAddrs[n%2]))
		labtest.Must(t, visitFor(w.lan, lab.ServerAddrs[n%2], patience).err)
	}
	t.Logf("connections took %s", took)
	if worst := slices.Max(took); worst > moveBound {
		t.Errorf("a connection took %s", worst)
	}
	if worst := slices.Max(took[10:]); worst > avoidBound {
		t.Errorf("a late connection took %s", worst)
	}
}

// dial makes a connection to the echo server, talks over it, and says how long that took.
func (w world) dial(ns *lab.Namespace, server netip.Addr) time.Duration {
	w.t.Helper()
	begun := time.Now()
	conn, err := ns.Dial(labtest.Context(w.t), "tcp", netip.AddrPortFrom(server, lab.PortTCPEcho).String())
	labtest.Must(w.t, err)
	defer conn.Close()
	labtest.Must(w.t, talker{Conn: conn}.talk())
	return time.Since(begun)
}

// TestFault02_UnansweredWebRequests of a program that knows nothing of all this: no error, many at a time.
func TestFault02_UnansweredWebRequests(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, seldom+inTurn)
	labtest.Must(t, w.Uplinks[0].SetFaults(lab.Blackhole))
	client := w.lan.HTTPClient()
	failed := make(chan error)
	for n := range 30 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lab.ServerAddrs[n%2].String()+"/bytes?n=1000", nil)
			if err == nil {
				var answer *http.Response
				if answer, err = client.Do(r); err == nil {
					err = answer.Body.Close()
				}
			}
			failed <- err
		}()
	}
	for range 30 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

// TestFault02_UnansweredDatagrams: the next datagram of a client goes by another uplink, in both datapaths.
func TestFault02_UnansweredDatagrams(t *testing.T) { eachFamily(t, testUnansweredDatagrams) }

func testUnansweredDatagrams(t *testing.T, f *family) {
	w := beginSeldom(t, f, lab.Options{})
	cutOff(t, f, w.Uplinks[0])
	conn, err := w.lan.ListenPacket(f.udp, f.any)
	labtest.Must(t, err)
	defer conn.Close()
	ask := func(limit time.Duration) (netip.Addr, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		outside, err := lab.AskUDP(ctx, conn, f.servers[0], "hello")
		return outside.Addr(), err
	}
	if by, err := ask(700 * time.Millisecond); err == nil {
		t.Fatalf("answered by %s", by)
	}
	eventually(t, "an answer", func() bool { // probes are asked first: what streams to one who never answers should stay
		_, err := ask(300 * time.Millisecond)
		return err == nil
	})
	for range 3 {
		if by, err := ask(patience); err != nil || by != f.own(w.Uplinks[1]) {
			t.Errorf("the next datagram went by %s (%v)", by, err)
		}
	}
}

// stallBound is how soon a download that stalls is to be found out; promised is 1 s.
const stallBound = 3 * time.Second

// TestFault02_StalledDownload: an uplink that falls silent in the middle of a download is found out although nobody begins anything
// and nobody probes, and the client is told instead of waiting.
func TestFault02_StalledDownload(t *testing.T) { eachFamily(t, testStalledDownload) }

func testStalledDownload(t *testing.T, f *family) {
	w := beginSeldom(t, f, lab.Options{Uplinks: slow})
	download := w.download(w.lan, f.servers[0])
	before := received(t, w, 0)
	eventually(t, "a second of download", func() bool { return received(t, w, 0)-before > slow[0].Down/8 })
	begun := time.Now()
	cutOff(t, f, w.Uplinks[0])
	down := w.downIn(f.name, "wan1", begun)
	if took := down.Time.Sub(begun); took > stallBound {
		t.Errorf("seen after %s", took)
	} else {
		t.Logf("seen after %s: %s", took, down.Message)
	}
	w.expectReset(download, down.Time)
}

// TestFault02_UnansweredQUIC: a handshake whose first packets are lost goes on by another uplink.
func TestFault02_UnansweredQUIC(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, seldom+preferFirst)
	labtest.Must(t, w.Uplinks[0].SetFaults(lab.Blackhole))
	begun := time.Now()
	stream, server := connectQUIC(t, w, w.lan)
	t.Logf("connected after %s", time.Since(begun).Round(time.Millisecond))
	if by := server.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); by != w.Uplinks[1].Addr() {
		t.Errorf("connected by %s", by)
	}
	echoQUIC(t, stream, 1<<16)
}

// silentWorld is one with two uplinks and a remote that answers only what the test makes it answer.
func silentWorld(t *testing.T) (r *rawWorld, second *lab.Capture) {
	r = beginRaw(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 2)}, seldom+preferFirst)
	return r, labtest.Capture(t, r.Gateway, "wan2")
}

// isSYN matches a SYN to the remote of nobody that leaves.
func isSYN(p *lab.Packet) bool {
	return p.Outgoing && p.TCP != nil && p.TCP.SYN && p.Dst.Addr() == rawRemote
}

// TestFault02_LateAnswerIsReset: a remote that answers by the first uplink after the connection has moved gets a reset with the
// number that it expects, and the one by the second uplink is used.
func TestFault02_LateAnswerIsReset(t *testing.T) {
	t.Parallel()
	r, second := silentWorld(t)
	ctx := labtest.Context(t)
	c := r.talk(4000, 80)
	moved, err := second.AwaitAfter(ctx, isSYN, func() error { c.say(tSYN, 100, 0, ""); return nil })
	labtest.Must(t, err)
	if moved.TCP.Seq != 100 || moved.Src.Addr() != r.Uplinks[1].Addr() || moved.Problem != "" {
		t.Errorf("moved as %s", moved)
	}
	late := c.segment(c.remote, c.outside, tSYN|tACK, 900, 101, "")
	reset, err := r.wan.AwaitAfter(ctx, func(p *lab.Packet) bool { return p.Outgoing && p.TCP != nil && p.TCP.RST },
		func() error { sendRaw(t, r.Internet, c.outside.Addr(), late); return nil })
	labtest.Must(t, err)
	if reset.TCP.Seq != 101 || reset.TCP.ACK || reset.Src != c.outside || reset.Dst != c.remote || reset.Problem != "" {
		t.Errorf("reset %s", reset)
	}
	c.outside = moved.Src
	c.hear(tSYN|tACK, 5000, 101, "")
	answered, err := second.AwaitAfter(ctx, func(p *lab.Packet) bool { return p.Outgoing && p.TCP != nil && p.TCP.Ack == 5001 }, func() error {
		sendRaw(t, r.lan, c.remote.Addr(), c.segment(c.inside, c.remote, tACK, 101, 5001, ""))
		return nil
	})
	labtest.Must(t, err)
	if answered.Src != moved.Src {
		t.Errorf("acknowledged from %s", answered.Src)
	}
}

// TestFault02_DeadServerIsNotSprayed: a remote that answers by no uplink is asked by one other, once, however often the client
// repeats itself, and the uplinks stay what they are.
func TestFault02_DeadServerIsNotSprayed(t *testing.T) {
	t.Parallel()
	r, second := silentWorld(t)
	begun := time.Now()
	var counted atomic.Int32
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_, _ = second.Await(watching, func(p *lab.Packet) bool {
			if isSYN(p) {
				counted.Add(1)
			}
			return false
		})
	}()
	for n := range uint16(3) {
		c := r.talk(4000+n, 80)
		for range 3 {
			sendRaw(t, r.lan, c.remote.Addr(), c.segment(c.inside, c.remote, tSYN, 100, 0, ""))
			time.Sleep(600 * time.Millisecond) // what a client's retransmissions are apart, at least
		}
	}
	stop()
	<-watched
	if n := counted.Load(); n == 0 || n > 1+2 { // the first connection moves, and its client repeats itself there
		t.Errorf("%d SYNs by the other uplink", n)
	}
	r.events.none(time.Millisecond, begun, leaves(api.StateUp))
}

// TestFault02_DataInSYN: TCP Fast Open is the client's (RFC 7413 §4.1.3).
func TestFault02_DataInSYN(t *testing.T) {
	t.Parallel()
	r, second := silentWorld(t)
	c := r.talk(4000, 80)
	c.say(tSYN, 100, 0, "early data")
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	if p, err := second.Await(ctx, isSYN); err == nil {
		t.Errorf("sent again: %s", p)
	}
}

// TestFault02_UnansweredNames: the C library's first question is lost with its uplink, and its second, from another socket to another
// resolver, is answered, although nobody else says anything and nobody probes.
func TestFault02_UnansweredNames(t *testing.T) {
	t.Parallel()
	const each = 2 * time.Second // for a resolver
	w := begin(t, lab.Options{}, seldom+preferFirst)
	resolvConf := fmt.Sprintf("options timeout:%d\n", each/time.Second)
	for _, a := range lab.ServerAddrs[:2] {
		w.serveNamesTo(netip.MustParsePrefix("0.0.0.0/0"), w.Internet, a)
		resolvConf += fmt.Sprintf("nameserver %s\n", a)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	labtest.Must(t, os.WriteFile(file, []byte(resolvConf), 0o644))
	if took, err := lookUp(t, w.lan, file); err != nil || took > each {
		t.Fatalf("answered after %s (%v)", took, err)
	}
	cutOff(t, overIPv4, w.Uplinks[0])
	took, err := lookUp(t, w.lan, file)
	t.Logf("answered after %s", took)
	if err != nil || took > 2*each {
		t.Errorf("answered after %s (%v)", took, err)
	}
}
