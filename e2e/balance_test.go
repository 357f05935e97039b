package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const mbit = 1_000_000

// shaped is an uplink of a rate in Mbit/s both ways.
func shaped(rate uint64) lab.UplinkOptions {
	return lab.UplinkOptions{Down: rate * mbit, Up: rate * mbit}
}

// TestByteSharesFollowCapacities downloads for a while by parallel clients, each one file after another, so that there are
// always more sessions to place, on 100 and 20 Mbit/s.
func TestByteSharesFollowCapacities(t *testing.T) {
	const fast, slow = 100, 20 // Mbit/s
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(fast), shaped(slow)}},
		capacities([2]int{fast, fast}, [2]int{slow, slow}))
	for _, c := range []struct {
		name    string
		clients int
		bytes   uint64
		pause   time.Duration // of a client between two files
		least   float64       // of its share of the capacity that the slower uplink carries
		most    float64
	}{
		{"saturated", 24, 400_000, 0, 0.9, 1.1},
		{"half loaded", 12, 60_000, 70 * time.Millisecond, 0, 1.3}, // most files are there sooner by the faster one
	} {
		t.Run(c.name, func(t *testing.T) {
			before := [2]uint64{received(t, w, 0), received(t, w, 1)}
			downloadFor(t, w.lan, 6*time.Second, c.clients, c.bytes, c.pause)
			a, b := received(t, w, 0)-before[0], received(t, w, 1)-before[1]
			got, want := float64(b)/float64(a+b), float64(slow)/(fast+slow)
			t.Logf("%.1f and %.1f Mbyte: %.3f by the slower, its capacity is %.3f", float64(a)/1e6, float64(b)/1e6, got, want)
			if got < c.least*want || got > c.most*want {
				t.Errorf("the slower uplink carried %.3f, its share of the capacity is %.3f", got, want)
			}
		})
	}
}

// TestDownloadsFillTheUplinks: many downloads at once get nearly all that the uplinks can carry together.
func TestDownloadsFillTheUplinks(t *testing.T) {
	for _, rates := range [][]int{{100, 100}, {100, 20}, {500, 50, 10}} {
		t.Run(fmt.Sprint(rates), func(t *testing.T) {
			var o lab.Options
			var configured [][2]int
			sum := 0
			for _, r := range rates {
				o.Uplinks, configured, sum = append(o.Uplinks, shaped(uint64(r))), append(configured, [2]int{r, r}), sum+r
			}
			w := begin(t, o, capacities(configured...))
			const downloads, d = 16, 6 * time.Second
			got := 0.0
			for tries := 0; got < 0.85*float64(sum) && tries < 3; tries++ { // a busy machine stands still now and then
				before := allReceived(t, w)
				downloadFor(t, w.lan, d, downloads, uint64(sum)*mbit, 0)
				got = float64(allReceived(t, w)-before) * 8 / d.Seconds() / mbit
				t.Logf("%.1f of %d Mbit/s", got, sum)
			}
			if got < 0.85*float64(sum) {
				t.Errorf("%d downloads got %.1f of %d Mbit/s", downloads, got, sum)
			}
		})
	}
}

func allReceived(t testing.TB, w world) (bytes uint64) {
	t.Helper()
	for i := range w.Uplinks {
		bytes += received(t, w, i)
	}
	return bytes
}

// received is how many bytes an uplink's device has received.
func received(t testing.TB, w world, uplink int) uint64 {
	t.Helper()
	link, err := w.Gateway.Handle().LinkByName(w.Uplinks[uplink].Device)
	labtest.Must(t, err)
	return link.Attrs().Statistics.RxBytes
}

// downloadFor lets clients download files of n bytes, one after another, for some time.
func downloadFor(t testing.TB, ns *lab.Namespace, d time.Duration, clients int, n uint64, pause time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(labtest.Context(t))
	defer time.AfterFunc(d, cancel).Stop()
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			for seed := uint64(0); ctx.Err() == nil; seed++ {
				if _, err := ns.BulkDownload(ctx, lab.ServerAddrs[i%2], seed, n); err != nil && ctx.Err() == nil {
					t.Errorf("a download: %v", err)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	running.Wait()
}

// TestForeignTrafficIsAvoided: with one uplink 80 % busy from traffic that does not pass the gateway, received or sent, new
// sessions take the other.
func TestForeignTrafficIsAvoided(t *testing.T) {
	const rate = 50 // Mbit/s
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(rate), shaped(rate)}}, capacities([2]int{rate, rate}, [2]int{rate, rate}))
	here, there := sink(t, w.Gateway, w.Uplinks[0].Addr()), sink(t, w.Internet, lab.ServerAddrs[1])
	t.Run("received", func(t *testing.T) {
		conn, err := w.Internet.Dial(t.Context(), "udp4", here)
		labtest.Must(t, err)
		defer flood(conn, rate*8/10*mbit)()
		expectAvoided(t, w, 0, 1)
	})
	t.Run("sent", func(t *testing.T) {
		from := &net.Dialer{LocalAddr: &net.UDPAddr{IP: w.Uplinks[1].Addr().AsSlice()}}
		conn, err := w.Gateway.DialWith(t.Context(), from, "udp4", there)
		labtest.Must(t, err)
		defer flood(conn, rate*8/10*mbit)()
		expectAvoided(t, w, 1, 0)
	})
}

// sink opens a socket that takes datagrams, and returns its address.
func sink(t testing.TB, ns *lab.Namespace, at netip.Addr) string {
	t.Helper()
	service := netip.AddrPortFrom(at, 33000)
	conn, err := listenUDP(ns, service)
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return service.String()
}

// expectAvoided begins sessions while one uplink is busy and the other is not.
func expectAvoided(t *testing.T, w world, busy, free int) {
	load := func(i int) float64 { return w.uplink(w.Uplinks[i].Device).Load }
	eventually(t, "load on one uplink alone", func() bool { return load(busy) > 0.7 && load(free) < 0.1 })
	const sessions = 100
	chosen := 0
	for range sessions {
		v := visitFor(w.lan, lab.ServerAddrs[0], patience)
		labtest.Must(t, v.err)
		if v.outside == w.Uplinks[free].Addr() {
			chosen++
		}
	}
	t.Logf("%d of %d took the free uplink, loads %.2f and %.2f", chosen, sessions, load(busy), load(free))
	if chosen < sessions*8/10 {
		t.Errorf("only %d of %d sessions took the free uplink", chosen, sessions)
	}
}

// flood sends datagrams at a rate in bits per second until the function it returns is called.
func flood(conn net.Conn, rate int) (stop func()) {
	const size, overhead = 1172, 42
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		payload := make([]byte, size)
		begun, sent := time.Now(), 0.0
		for pace := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-done:
				pace.Stop()
				return
			case <-pace.C:
			}
			for due := time.Since(begun).Seconds() * float64(rate) / 8; sent < due; sent += size + overhead {
				_, _ = conn.Write(payload) // an error is about an earlier datagram
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		conn.Close()
	}
}

// TestSchedulers: each name does what it says from the moment that a reload has answered, as does disabling an uplink.
func TestSchedulers(t *testing.T) {
	t.Parallel()
	w := placing{begin(t, lab.Options{}, inTurn), new(uint16)}
	first, second := w.Uplinks[0].Addr(), w.Uplinks[1].Addr()

	w.use("policy: {scheduler: weighted}\nuplinks: [{interface: wan1, weight: 3}, {interface: wan2, weight: 1}]\n")
	if n := count(w.place(40), first); n < 29 || n > 31 {
		t.Errorf("weighted 3:1 gave the first %d of 40", n)
	}
	w.use(inTurn)
	order := w.place(20)
	for i := range order[1:] {
		if order[i] == order[i+1] {
			t.Errorf("round robin gave %v", order)
			break
		}
	}
	w.use("policy: {scheduler: failover}\nuplinks: [{interface: wan1, tier: 1}, {interface: wan2}]\n")
	if n := count(w.place(20), second); n != 20 {
		t.Errorf("failover gave the first tier %d of 20", n)
	}
	// The sessions of before count: the next ones make up for those that all went to one uplink.
	w.use("policy: {scheduler: least-sessions}\n")
	w.place(30)
	if a, b := w.uplink("wan1").Sessions, w.uplink("wan2").Sessions; max(a, b)-min(a, b) > 2 {
		t.Errorf("least-sessions left %d and %d sessions", a, b)
	}
	w.use("policy: {scheduler: least-load}\n")
	eventually(t, "a look at what the sessions carry", func() bool {
		u := w.explained(overIPv4, probe{}).Uplinks
		return min(u[0].ExpectBps, u[1].ExpectBps) > 0.98*max(u[0].ExpectBps, u[1].ExpectBps)
	})
	if n := count(w.place(40), first); n < 10 || n > 30 {
		t.Errorf("least-load gave the first of two idle uplinks %d of 40", n)
	}
	if out, status := w.tapgw("uplink", "disable", "wan1"); status != 0 {
		t.Errorf("disable: status %d, %s", status, out)
	}
	if n := count(w.place(10), first); n > 0 {
		t.Errorf("disabled, wan1 got %d of 10", n)
	}
	w.write("policy: {scheduler: fastest}\n")
	if out, status := w.tapgw("reload"); status == 0 || !contains(out, "least-load") {
		t.Errorf("an unknown scheduler: status %d, %s", status, out)
	}
}

// placing is a world in which sessions are begun one after another.
type placing struct {
	world
	begun *uint16
}

// place begins sessions and returns the outside addresses that they were given.
func (p placing) place(n int) (order []netip.Addr) {
	p.t.Helper()
	for range n {
		*p.begun++ // a port used again would keep its uplink
		conn, err := listenUDP(p.lan, netip.AddrPortFrom(p.Hosts[0].Addr, 20000+*p.begun))
		labtest.Must(p.t, err)
		defer conn.Close()
		outside, err := lab.AskUDP(labtest.Context(p.t), conn, lab.ServerAddrs[0], "place")
		labtest.Must(p.t, err)
		order = append(order, outside.Addr())
	}
	return order
}

func count(list []netip.Addr, a netip.Addr) (n int) {
	for _, x := range list {
		if x == a {
			n++
		}
	}
	return n
}

// TestCapacityIsLearned: nothing is configured, and the devices are much faster than what is behind them; traffic that fills the
// queues shows what there is.
func TestCapacityIsLearned(t *testing.T) {
	rates := []int{40, 15}
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(uint64(rates[0])), shaped(uint64(rates[1]))}}, "")
	for i, u := range w.Uplinks {
		conn, err := w.Internet.Dial(t.Context(), "udp4", sink(t, w.Gateway, u.Addr()))
		labtest.Must(t, err)
		defer flood(conn, rates[i]*15/10*mbit)()
	}
	for i, u := range w.Uplinks {
		want := float64(rates[i]) * mbit
		eventually(t, fmt.Sprintf("knowledge of %d Mbit/s", rates[i]), func() bool {
			c := w.uplink(u.Device).Capacity
			return c.DownBps > 0.8*want && c.DownBps < 1.2*want && c.Confidence > 0.9
		})
	}
}
