package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// shortcut is a configuration with the LAN shortcut on where possible, or off.
func shortcut(on bool) string {
	if on {
		return "datapath: {lan_shortcut: auto}\n"
	}
	return "datapath: {lan_shortcut: 'off'}\n"
}

// awaitShortcut waits until the status says whether the LAN shortcut is on, and why not.
func (w world) awaitShortcut(on bool) (reason string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("a LAN shortcut %t", on), func() bool {
		s := w.status()
		reason = s.LANShortcutReason
		return s.LANShortcut == on && (reason == "") == on
	})
	return reason
}

// handed is how many packets the kernel has handed to the daemon, as its devices count them.
func (w world) handed() (packets, bytes uint64) {
	w.t.Helper()
	for _, device := range []string{"tapgw0", "tapgw0u"} {
		link, err := w.Gateway.Handle().LinkByName(device)
		labtest.Must(w.t, err)
		packets += link.Attrs().Statistics.TxPackets
		bytes += link.Attrs().Statistics.TxBytes
	}
	return packets, bytes
}

// forwarded is how many packets the gateway's own stack has forwarded.
func (w world) forwarded() (packets uint64) {
	w.t.Helper()
	const field = 6 // ForwDatagrams
	labtest.Must(w.t, w.Gateway.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == "Ip:" && f[1] != "Forwarding" {
				packets, err = strconv.ParseUint(f[field], 10, 64)
			}
		}
		return err
	}))
	return packets
}

// TestKernelCarriesBulk: of bulk transfers only the first packets come to the daemon, nothing of it receives on the uplinks,
// no rule hides anything, and all figures are as if it had seen everything.
func TestKernelCarriesBulk(t *testing.T) {
	const size, few = 32 << 20, 300
	w := beginOn(t, lab.Options{}, api.DatapathKernel, inTurn)
	w.awaitShortcut(true)
	if n, hidden := w.receivers(), w.hides(); n > 0 || hidden {
		t.Errorf("%d receiving sockets on the uplinks, rules that hide: %t", n, hidden)
	}
	if n := w.metric(`tapgw_datapath_info{datapath="kernel",reason=""}`); n != 1 {
		t.Errorf("metric: %g", n)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			ctx := labtest.Context(t)
			packets, bytes := w.handed()
			received, sent := w.totals()
			for i := range uint64(2) {
				_, err := ns.BulkDownload(ctx, lab.ServerAddrs[0], i, size)
				labtest.Must(t, err)
				_, err = ns.BulkUpload(ctx, lab.ServerAddrs[0], i, size)
				labtest.Must(t, err)
			}
			in, out := w.bulkFigures()
			packetsNow, bytesNow := w.handed()
			receivedNow, sentNow := w.totals()
			t.Logf("%d packets, %d bytes came to the daemon", packetsNow-packets, bytesNow-bytes)
			if n := packetsNow - packets; n == 0 || n > few || bytesNow-bytes > size/100 {
				t.Errorf("%d packets, %d bytes of 4 × %d came to the daemon", n, bytesNow-bytes, size)
			}
			if in[0] < size || in[1] < size || out[0] < size || out[1] < size {
				t.Errorf("the sessions are listed with %d bytes in, %d out", in, out)
			}
			if receivedNow-received < 2*size || sentNow-sent < 2*size {
				t.Errorf("the uplinks' figures are %d bytes received, %d sent", receivedNow-received, sentNow-sent)
			}
		})
	}
	stream := keepStreaming(t, w.lan)
	eventually(t, "a rate of the uplinks", func() bool {
		return slices.ContainsFunc(w.status().Uplinks, func(u api.Uplink) bool { return u.RxBps > mbit && u.TxBps > mbit })
	})
	stream.stop()

	w = beginOn(t, lab.Options{}, api.DatapathUserspace, inTurn) // what is looked for can be found
	if n, hidden := w.receivers(), w.hides(); n != len(w.Uplinks) || !hidden {
		t.Errorf("in userspace: %d receiving sockets on the uplinks, rules that hide: %t", n, hidden)
	}
}

// bulkFigures are the two largest figures of sessions with the bulk server, each way.
func (w world) bulkFigures() (in, out [2]uint64) {
	w.t.Helper()
	list, err := w.client.Sessions(w.t.Context(), api.Filter{Proto: "tcp"})
	labtest.Must(w.t, err)
	for _, s := range list {
		if s.Remote.Port() != lab.PortBulk {
			continue
		}
		for top, n := range map[*[2]uint64]uint64{&in: s.BytesIn, &out: s.BytesOut} {
			*top = [2]uint64{max(top[0], n), max(min(top[0], n), top[1])}
		}
	}
	return in, out
}

// totals are what all uplinks have moved.
func (w world) totals() (received, sent uint64) {
	w.t.Helper()
	for _, u := range w.Uplinks {
		received += uint64(w.metric(`tapgw_uplink_receive_bytes_total{uplink="` + u.Device + `"}`))
		sent += uint64(w.metric(`tapgw_uplink_transmit_bytes_total{uplink="` + u.Device + `"}`))
	}
	return received, sent
}

// receivers is how many AF_PACKET sockets receive on the uplinks.
func (w world) receivers() (n int) {
	w.t.Helper()
	index := make(map[string]bool)
	for _, u := range w.Uplinks {
		i, err := w.Gateway.Index(u.Device)
		labtest.Must(w.t, err)
		index[strconv.Itoa(i)] = true
	}
	labtest.Must(w.t, w.Gateway.Do(func() error {
		f, err := os.Open("/proc/thread-self/net/packet")
		if err != nil {
			return err
		}
		defer f.Close()
		const protocol, iface = 3, 4
		for s := bufio.NewScanner(f); s.Scan(); {
			if f := strings.Fields(s.Text()); index[f[iface]] && f[protocol] != "0000" {
				n++
			}
		}
		return nil
	}))
	return n
}

// hides reports whether a chain at the ingress of an uplink could hide packets from the host's stack.
func (w world) hides() bool {
	w.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.Gateway.FD()))
	labtest.Must(w.t, err)
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	labtest.Must(w.t, err)
	return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return strings.HasPrefix(c.Name, "ingress_") })
}

// flow is traffic that goes on until it is stopped.
type flow struct {
	net.Conn
	moved   atomic.Uint64 // bytes or datagrams that came back
	outside atomic.Value  // of datagrams: netip.Addr, as the server last saw it
	stop    func()
}

// keepStreaming has the echo server repeat as many bytes as pass, until the test ends at the latest.
func keepStreaming(t testing.TB, ns *lab.Namespace) *flow {
	t.Helper()
	return keepStreamingTo(t, ns, echoServer)
}

// keepStreamingTo is keepStreaming with another service.
func keepStreamingTo(t testing.TB, ns *lab.Namespace, service string) *flow {
	t.Helper()
	conn, err := ns.Dial(labtest.Context(t), "tcp4", service)
	labtest.Must(t, err)
	f := &flow{Conn: conn}
	go func() {
		for block := make([]byte, 64<<10); ; {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}()
	f.follow(t, func(b []byte) uint64 { return uint64(len(b)) })
	return f
}

// keepAskingUDP has the UDP echo server repeat datagrams, one every 2 ms.
func keepAskingUDP(t testing.TB, ns *lab.Namespace) *flow {
	t.Helper()
	conn, err := ns.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
	labtest.Must(t, err)
	f := &flow{Conn: conn}
	go func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for range pace.C {
			if _, err := conn.Write([]byte("go on")); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	f.follow(t, func(b []byte) uint64 {
		seen, _, _ := strings.Cut(string(b), " ")
		if outside, err := netip.ParseAddrPort(seen); err == nil {
			f.outside.Store(outside.Addr())
		}
		return 1
	})
	return f
}

// follow counts what comes back.
func (f *flow) follow(t testing.TB, worth func([]byte) uint64) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 64<<10); ; {
			n, err := f.Read(buf)
			if err == nil {
				f.moved.Add(worth(buf[:n]))
			} else if errors.Is(err, net.ErrClosed) || f.LocalAddr().Network() == "tcp" { // errors of a datagram are of earlier ones
				return
			}
		}
	}()
	f.stop = func() { f.Close(); <-ended }
	t.Cleanup(f.stop)
}

// by reports whether the last answer came by an uplink.
func (f *flow) by(u *lab.Uplink) bool {
	a, ok := f.outside.Load().(netip.Addr)
	return ok && a == u.Addr()
}

// paces are how much of each flow moves in a second.
func paces(flows map[string]*flow, over time.Duration) map[string]int {
	before, pace := make(map[string]uint64), make(map[string]int)
	for name, f := range flows {
		before[name] = f.moved.Load()
	}
	begun := time.Now()
	<-time.After(over) // the span is what is measured
	for name, f := range flows {
		pace[name] = int(float64(f.moved.Load()-before[name]) / time.Since(begun).Seconds())
	}
	return pace
}

// TestStoppedDaemon: while the daemon does not run at all, known sessions go on at full speed both ways.
func TestStoppedDaemon(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]bool{"with the shortcut": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := beginOn(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(50), shaped(50)}}, api.DatapathKernel, inTurn+shortcut(on))
			w.awaitShortcut(on)
			flows := map[string]*flow{
				"tcp lan": keepStreaming(t, w.lan), "udp lan": keepAskingUDP(t, w.lan),
				"tcp host": keepStreaming(t, w.Gateway), "udp host": keepAskingUDP(t, w.Gateway),
			}
			for name, f := range flows {
				eventually(t, name, func() bool { return f.moved.Load() > 0 })
			}
			before := paces(flows, time.Second)
			begun := time.Now()
			w.signal(syscall.SIGSTOP)
			during := paces(flows, 4*time.Second)
			w.signal(syscall.SIGCONT)
			online(t, w.lan)
			online(t, w.Gateway)
			after := paces(flows, time.Second)
			t.Logf("a second before %v, stopped %v, after %v", before, during, after)
			for name := range flows {
				if min(during[name], after[name]) < before[name]/2 {
					t.Errorf("%s: a second before %v, stopped %v, after %v", name, before[name], during[name], after[name])
				}
			}
			w.events.none(0, begun, leaves(api.StateUp))
		})
	}
}

// TestFlowsOfDeadUplink: datagrams that flow move to the other uplink within the time that it takes to see the failure, and
// from then on none leaves by the failed one.
func TestFlowsOfDeadUplink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail  func(w world, u *lab.Uplink) error
		bound time.Duration
	}{
		"address lost": {loseAddress, time.Second},
		"probes fail":  {func(_ world, u *lab.Uplink) error { return u.SetFaults(lab.Blackhole) }, blackholeBound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{}, preferFirst)
			first, second := w.Uplinks[0], w.Uplinks[1]
			flows := []*flow{keepAskingUDP(t, w.lan), keepAskingUDP(t, w.Gateway)}
			for _, f := range flows {
				eventually(t, "answers by the first uplink", func() bool { return f.by(first) && f.moved.Load() > 10 })
			}
			begun := time.Now()
			labtest.Must(t, c.fail(w, first))
			down := w.events.state("wan1", api.StateDown, begun)
			if took := down.Time.Sub(begun); took > c.bound {
				t.Errorf("seen only after %s", took)
			}
			for _, f := range flows {
				eventually(t, "answers by the second uplink", func() bool { return f.by(second) })
			}
			t.Logf("seen after %s, moved after %s", down.Time.Sub(begun), time.Since(begun))
			if late := time.Since(down.Time); late > time.Second {
				t.Errorf("moved only %s after the failure was seen", late)
			}
			silent, err := w.Gateway.StartCapture("wan1", func(p *lab.Packet) bool { return p.UDP != nil && p.UDP.DstPort == lab.PortUDPEcho })
			labtest.Must(t, err)
			for _, f := range flows {
				enough := f.moved.Load() + 200
				eventually(t, "more answers", func() bool { return f.moved.Load() > enough })
			}
			report, err := silent.Stop()
			labtest.Must(t, err)
			for _, p := range report.Kept {
				t.Errorf("left by the failed uplink: %s", p)
			}
		})
	}
}

// loseAddress takes the uplink's address away.
func loseAddress(w world, u *lab.Uplink) error {
	link, err := w.Gateway.Handle().LinkByName(u.Device)
	if err != nil {
		return err
	}
	p := u.Link.Near.Prefix
	return w.Gateway.Handle().AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}})
}
