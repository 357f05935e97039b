package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// checksumPackets is how many translated packets are judged; CHECKSUM_PACKETS=10000000 is for a release.
const checksumPackets = 200_000

// TestChecksums judges the checksums of bulk and of small datagrams in all directions: of the LAN and of the host, out and in,
// by an uplink with Ethernet headers and one without. With offloads on a checksum is left to the device, and is right when it
// is the pseudo header's sum; where the gateway's own devices have none, its kernel completes what our rewriting left.
func TestChecksums(t *testing.T) {
	total := uint64(checksumPackets)
	if s := os.Getenv("CHECKSUM_PACKETS"); s != "" {
		var err error
		total, err = strconv.ParseUint(s, 10, 64)
		labtest.Must(t, err)
	}
	share := (total + 2) / 3
	for name, c := range map[string]struct {
		everywhere, gateway *lab.Offloads
		partial             bool // that some checksums are left to the devices where they are judged
	}{
		"offloads on":                {partial: true},
		"completed by the gateway's": {gateway: &lab.Offloads{}},
		"offloads off":               {everywhere: &lab.Offloads{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := begin(t, lab.Options{Offloads: c.everywhere, Uplinks: []lab.UplinkOptions{{}, {HeaderLess: true}}}, inTurn)
			if c.gateway != nil {
				for _, device := range []string{lab.DeviceLAN, "wan1"} {
					labtest.Must(t, w.Gateway.SetOffloads(device, *c.gateway))
				}
			}
			host := newJudge("in to the host")
			for _, device := range []string{"wan1", "wan2", "tapgw0"} { // by which it gets there depends on the datapath
				host.hear(t, w.Gateway.StartStackCapture, device, func(p *lab.Packet) bool { return p.Dst.Addr() == tapAddr })
			}
			lan, first, second := newJudge("in to the LAN"), newJudge("out by wan1"), newJudge("out by wan2, without Ethernet")
			lan.hear(t, w.lan.StartCapture, lab.DeviceHost, arriving)
			first.hear(t, w.Uplinks[0].ISP.StartCapture, lab.DeviceCustomer, arriving)
			second.hear(t, w.Uplinks[1].ISP.StartCapture, lab.DeviceCustomer, arriving)
			judges := []*judge{first, second, lan, host}
			keepBusy(t, w, time.Minute+time.Duration(share)*500*time.Microsecond, func() bool { return judged(judges, share) })
			for _, j := range judges {
				j.verdict(t)
			}
			if n := first.partial.Load() + lan.partial.Load(); (n > 0) != c.partial {
				t.Errorf("%d checksums were left to the devices", n)
			}
		})
	}
}

// tapAddr is the host's address on the TAP.
var tapAddr = netip.MustParseAddr("198.18.73.1")

func arriving(p *lab.Packet) bool { return !p.Outgoing }

// judge verifies what arrives in one place, translated.
type judge struct {
	name            string
	captures        []*lab.Capture
	frames, partial atomic.Uint64 // TCP and UDP
}

func newJudge(name string) *judge { return &judge{name: name} }

// hear judges what passes a device, and counts what arrives.
func (j *judge) hear(t testing.TB, start func(string, func(*lab.Packet) bool) (*lab.Capture, error), device string, arrives func(*lab.Packet) bool) {
	t.Helper()
	c, err := start(device, func(p *lab.Packet) bool {
		if (p.TCP != nil || p.UDP != nil) && arrives(p) {
			j.frames.Add(1)
			if p.Partial {
				j.partial.Add(1)
			}
		}
		return false
	})
	labtest.Must(t, err)
	j.captures = append(j.captures, c)
}

// judged reports whether there were enough packets, a part of them in each place.
func judged(judges []*judge, enough uint64) bool {
	all := uint64(0)
	for _, j := range judges {
		n := j.frames.Load()
		if all += n; n < enough/20 {
			return false
		}
	}
	return all >= enough
}

// verdict fails the test if a packet was bad.
func (j *judge) verdict(t testing.TB) {
	t.Helper()
	var all lab.Report
	for _, c := range j.captures {
		r, err := c.Stop()
		labtest.Must(t, err)
		all.Packets, all.Super, all.Lost, all.Bad = all.Packets+r.Packets, all.Super+r.Super, all.Lost+r.Lost, all.Bad+r.Bad
		for _, p := range r.BadOnes {
			t.Errorf("%s: %s", j.name, p)
		}
	}
	t.Logf("%s: %d packets judged, %d with a checksum left to the device; of %d in all, %d of several segments; %d not seen; %d bad",
		j.name, j.frames.Load(), j.partial.Load(), all.Packets, all.Super, all.Lost, all.Bad)
	if all.Bad > 0 {
		t.Errorf("%s: %d bad packets", j.name, all.Bad)
	}
}

// keepBusy lets LAN and host transfer and ask until enough holds, which must not take longer than allowed.
func keepBusy(t testing.TB, w world, within time.Duration, enough func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	var running sync.WaitGroup
	repeat := func(f func(seed uint64) error) {
		running.Go(func() {
			for seed := uint64(0); ctx.Err() == nil; seed++ {
				if err := f(seed); err != nil && ctx.Err() == nil {
					t.Error(err)
					cancel()
				}
			}
		})
	}
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		repeat(func(seed uint64) error {
			_, down := ns.BulkDownload(ctx, lab.ServerAddrs[0], seed, 2<<20)
			_, up := ns.BulkUpload(ctx, lab.ServerAddrs[1], seed, 2<<20)
			return errors.Join(down, up, askMuch(ctx, ns, 2*seed), askMuch(ctx, ns, 2*seed+1))
		})
	}
	for !enough() && ctx.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("not enough packets in each place within %s", within)
	}
	cancel()
	running.Wait()
}

// askMuch has the UDP echo server repeat datagrams of all sizes and contents by a socket of its own, every fourth of which
// sends none with a checksum. What is lost does not matter here.
func askMuch(ctx context.Context, ns *lab.Namespace, seed uint64) error {
	const datagrams, inFlight, longest = 4096, 64, 1440
	conn, err := ns.Dial(ctx, "udp4", netip.AddrPortFrom(lab.ServerAddrs[seed%2], lab.PortUDPEcho).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if seed%4 == 3 {
		if err := withoutChecksums(conn.(*net.UDPConn)); err != nil {
			return err
		}
	}
	noise := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	sizes := rand.New(noise)
	buf := make([]byte, 2000)
	for i := 0; i < datagrams && ctx.Err() == nil; i++ {
		payload := buf[:sizes.IntN(longest+1)]
		_, _ = noise.Read(payload)   // documented never to fail
		_, _ = conn.Write(payload)   // an error is about an earlier datagram
		if i%inFlight < inFlight-1 { // answers are read in turn, so that few are lost
			continue
		}
		for range inFlight {
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := conn.Read(buf); err != nil {
				break
			}
		}
	}
	return nil
}

func withoutChecksums(conn *net.UDPConn) error {
	return onSocket(conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
}
