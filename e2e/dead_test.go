package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// resetBound is how soon after its uplink was found dead a TCP client is to see a reset; what is asserted leaves room for a busy
// machine, the log shows what was.
const (
	resetBound    = 200 * time.Millisecond
	resetPatience = 10 * resetBound
)

// waiting is a configuration with TCP connections that wait for their uplink.
func waiting(config string) string {
	return strings.Replace(config, "policy: {", "policy: {on_uplink_down: move-if-unanswered, ", 1)
}

// doomed is a TCP connection that waits for its end.
type doomed struct {
	net.Conn
	what  string
	ended chan struct{}
	err   error // of it, and
	at    time.Time
}

// doom opens a connection to a server's port, says something and does with it what waits until it ends.
func (w world) doom(what string, ns *lab.Namespace, server netip.Addr, port uint16, say string, wait func(net.Conn) error) *doomed {
	w.t.Helper()
	conn, err := ns.Dial(labtest.Context(w.t), "tcp", netip.AddrPortFrom(server, port).String())
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, say)
	labtest.Must(w.t, err)
	d := &doomed{Conn: conn, what: what, ended: make(chan struct{})}
	go func() {
		d.err = wait(conn)
		d.at = time.Now()
		close(d.ended)
	}()
	return d
}

// reads, reads on and writes on until a connection ends.
func reads(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

func writes(c net.Conn) error {
	for {
		if _, err := c.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
}

const httpHost = "HTTP/1.1\r\nHost: server\r\n"

// download begins one that does not end by itself.
func (w world) download(ns *lab.Namespace, server netip.Addr) *doomed {
	w.t.Helper()
	return w.doom(fmt.Sprintf("download, %s, %s", ns.Name(), server), ns, server, lab.PortHTTP, "GET /bytes?n=1099511627776 "+httpHost+"\r\n", reads)
}

// doomAll opens connections that do nothing, download and upload.
func (w world) doomAll(ns *lab.Namespace, server netip.Addr) []*doomed {
	w.t.Helper()
	name := func(what string) string { return fmt.Sprintf("%s, %s, %s", what, ns.Name(), server) }
	return []*doomed{
		w.doom(name("idle"), ns, server, lab.PortTCPEcho, "hello", reads),
		w.download(ns, server),
		w.doom(name("upload"), ns, server, lab.PortHTTP, "POST /upload "+httpHost+"Content-Length: 1099511627776\r\n\r\n", writes),
	}
}

// expectReset fails the test unless the connection was reset soon after then.
func (w world) expectReset(d *doomed, then time.Time) {
	w.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(time.Until(then.Add(resetPatience))):
		w.t.Errorf("%s: no reset within %s", d.what, resetPatience)
		return
	}
	w.t.Logf("%s: %v after %s", d.what, d.err, d.at.Sub(then).Round(time.Millisecond))
	if !errors.Is(d.err, syscall.ECONNRESET) && !errors.Is(d.err, syscall.EPIPE) || d.at.Before(then.Add(-carrierBound)) || d.at.After(then.Add(resetPatience)) {
		w.t.Errorf("%s ended by %v %s after its uplink", d.what, d.err, d.at.Sub(then))
	}
}

// expectWaiting fails the test if the connection has ended.
func (w world) expectWaiting(d *doomed) {
	w.t.Helper()
	select {
	case <-d.ended:
		w.t.Errorf("%s ended: %v", d.what, d.err)
	default:
	}
}

// onFirst leaves out connections that went by another uplink than the first, as they may when a busy machine lets a SYN wait.
func (w world) onFirst(all []*doomed) (list []*doomed) {
	w.t.Helper()
	sessions, err := w.client.Sessions(w.t.Context(), api.Filter{Proto: "tcp"})
	labtest.Must(w.t, err)
	for _, d := range all {
		local := addrPortOf(d.LocalAddr())
		if slices.ContainsFunc(sessions, func(s api.Session) bool { return s.Inside == local && s.Uplink == "wan1" }) {
			list = append(list, d)
		}
	}
	if len(list) < len(all)/2 {
		w.t.Errorf("only %d of %d connections by wan1", len(list), len(all))
	}
	return list
}

// slow are uplinks that a transfer does not keep the machine busy with.
var slow = []lab.UplinkOptions{{Down: 20e6, Up: 20e6}, {Down: 20e6, Up: 20e6}}

// downIn waits until a side of an uplink is down.
func (w world) downIn(family, uplink string, since time.Time) heard {
	w.t.Helper()
	return w.events.await(uplink+" down", since, func(e api.Event) bool {
		return e.Uplink == uplink && e.Family == family && e.To == api.StateDown && e.From != api.StateDown
	})
}

// TestFailover_TCPResetAtOnce: connections on an uplink that is found dead are reset towards the inside, whatever they do, and those on
// others go on.
func TestFailover_TCPResetAtOnce(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{Uplinks: slow}, preferFirst)
	var v4, v6 []*doomed
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		v4 = append(v4, w.doomAll(ns, lab.ServerAddrs[0])...)
		v6 = append(v6, w.doomAll(ns, lab.ServerAddrsV6[0])...)
	}
	time.Sleep(200 * time.Millisecond) // of transfer
	v4, v6 = w.onFirst(v4), w.onFirst(v6)
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Silence(true)) // what comes from the remotes still arrives
	downV4, downV6 := w.downIn(api.FamilyIPv4, "wan1", begun), w.downIn(api.FamilyIPv6, "wan1", begun)
	for _, d := range v4 {
		w.expectReset(d, downV4.Time)
	}
	for _, d := range v6 {
		w.expectReset(d, downV6.Time)
	}
	late := w.connect(w.lan, "wan2")
	healed := time.Now()
	labtest.Must(t, w.Uplinks[0].Silence(false))
	w.events.state("wan1", api.StateUp, healed)
	labtest.Must(t, late.talk())
	online(t, w.lan)
}

// TestFailover_TCPByRule: of two clients whose uplink is found dead one is reset, and the connections of the other wait, as its rule
// says, also after a reload; they go on when the uplink is back. What a reload says counts for an uplink that is dead already.
func TestFailover_TCPByRule(t *testing.T) {
	t.Parallel()
	ruled := func(first, web string) string {
		return preferFirst + "rules:\n" + first + "  - {name: patient, interface: [lan0], use: all, on_uplink_down: keep}\n" +
			"  - {name: web, ports: [80], use: all, on_uplink_down: " + web + "}\n"
	}
	w := beginV6(t, lab.Options{}, ruled("", "keep"))
	families := []*family{overIPv4, overIPv6}
	var kept []talker
	var reset []*doomed
	for _, f := range families {
		w.family = f
		kept = append(kept, w.connect(w.lan, "wan1"))
		reset = append(reset, w.doom(f.name, w.Gateway, f.servers[0], lab.PortTCPEcho, "hello", reads))
	}
	later := w.doom("by a reload", w.Gateway, lab.ServerAddrs[0], lab.PortHTTP, "", reads)
	const discard = "  - {name: discard, ports: [9], use: all}\n"
	w.use(ruled(discard, "keep"))
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Silence(true))
	talked := make(chan error, len(kept))
	for i, f := range families {
		w.expectReset(reset[i], w.downIn(f.name, "wan1", begun).Time)
		go func() { talked <- kept[i].talk() }()
		w.awaitSegment(kept[i])
	}
	w.expectWaiting(later)
	reloaded := time.Now()
	w.use(ruled(discard, "reset"))
	w.expectReset(later, reloaded)
	labtest.Must(t, w.Uplinks[0].Silence(false))
	for range kept {
		if err := <-talked; err != nil {
			t.Errorf("a connection that was to wait: %v", err)
		}
	}
}

// TestFailover_TenThousandReset: as many connections, of the host and of the LAN, see their reset as soon.
func TestFailover_TenThousandReset(t *testing.T) {
	const connections, firstPort = 10_000, 7777
	w := begin(t, lab.Options{}, "nat: {limits: {new_per_second: off}}\n"+preferFirst)
	const ports = 4 // nobody accepts, so that each connection takes one descriptor
	for port := range ports {
		listener, err := w.Internet.Listen("tcp4", fmt.Sprintf(":%d", firstPort+port))
		labtest.Must(t, err)
		defer listener.Close()
	}
	var mu sync.Mutex
	var ended []time.Time
	var dialing, reading sync.WaitGroup
	for i := range 20 {
		ns := []*lab.Namespace{w.lan, w.Gateway}[i%2]
		dialing.Go(func() {
			server := netip.AddrPortFrom(lab.ServerAddrs[0], uint16(firstPort+i%ports)).String()
			for range connections / 20 {
				conn, err := ns.Dial(t.Context(), "tcp4", server)
				if err != nil {
					t.Error(err)
					return
				}
				reading.Go(func() {
					defer conn.Close()
					_, err := conn.Read(make([]byte, 1))
					at := time.Now()
					mu.Lock()
					defer mu.Unlock()
					if ended = append(ended, at); !errors.Is(err, syscall.ECONNRESET) {
						t.Error(err)
					}
				})
			}
		})
	}
	dialing.Wait()
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	down := w.events.state("wan1", api.StateDown, begun)
	reading.Wait()
	slices.SortFunc(ended, time.Time.Compare)
	worst := ended[len(ended)-1].Sub(down.Time)
	t.Logf("%d connections: median %s, last %s after detection", len(ended), ended[len(ended)/2].Sub(down.Time), worst)
	if len(ended) != connections || worst > resetPatience {
		t.Errorf("%d of %d connections were reset, the last after %s", len(ended), connections, worst)
	}
}

// recovering is a configuration that says what becomes of sessions on the second uplink when the first one is back.
func recovering(how string) string {
	return strings.TrimSuffix(preferFirst, "}]\n") + ", on_recover: " + how + "}]\n"
}

// TestFailover_Failback: what becomes of sessions on an uplink that stood in, when the better one works again.
func TestFailover_Failback(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"keep", "drain", "move"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			testFailback(t, how)
		})
	}
}

// expectDrained fails the test unless the session of a socket that is silent now leaves its uplink after the pause, which an idle gateway
// sees two seconds later.
func (w world) expectDrained(conn net.PacketConn) {
	w.t.Helper()
	silent := time.Now()
	eventually(w.t, "the leaving of a session that pauses", func() bool {
		s, ok := w.session("udp", conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		return ok && s.State == "leaving"
	})
	if paused := time.Since(silent); paused < 9*time.Second || paused > 13*time.Second {
		w.t.Errorf("it leaves after %s, not 10", paused)
	}
}

func testFailback(t *testing.T, how string) {
	w := begin(t, lab.Options{}, recovering(how))
	first, second := w.Uplinks[0].Addr(), w.Uplinks[1].Addr()
	key, peer := newKey(t), newKey(t)
	server := openInternetServer(t, w.Internet, peer, key.PublicKey(), "10.99.0.2/32")
	openClient(t, w.lan, key, peer.PublicKey()) // says something every second
	tunnelBy := func(want netip.Addr) {
		t.Helper()
		eventually(t, "tunnel by "+want.String(), func() bool {
			at, err := server.Endpoint()
			return err == nil && at.Addr() == want
		})
	}
	tunnelBy(first)
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].SetFaults(lab.Blackhole))
	w.events.state("wan1", api.StateDown, begun)
	tunnelBy(second)
	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	datagramBy := func(want netip.Addr) {
		t.Helper()
		if outside, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "hello"); err != nil || outside.Addr() != want {
			t.Errorf("a datagram went by %s (%v), want %s", outside, err, want)
		}
	}
	datagramBy(second)
	tcp := w.doom("connection", w.lan, lab.ServerAddrs[0], lab.PortTCPEcho, "hello", reads)

	healed := time.Now()
	labtest.Must(t, w.Uplinks[0].SetFaults())
	up := w.events.state("wan1", api.StateUp, healed)
	if how == "move" {
		w.expectReset(tcp, up.Time)
		tunnelBy(first)
		datagramBy(first)
		return
	}
	datagramBy(second)
	if how == "drain" {
		w.expectDrained(conn)
		datagramBy(first)
	} else {
		time.Sleep(2 * time.Second) // nothing happens
		datagramBy(second)
	}
	tunnelBy(second) // it does not pause
	if u := w.uplink("wan2"); u.StandsIn != "wan1" || u.Sessions == 0 {
		t.Errorf("status: %d sessions still here, though %q works", u.Sessions, u.StandsIn)
	}
	w.expectWaiting(tcp)
	if s := visitFor(w.lan, lab.ServerAddrs[0], visitPatience); s.outside != first {
		t.Errorf("a new session by %s (%v)", s.outside, s.err)
	}
}
