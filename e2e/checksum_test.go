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
	share := uint64(checksumPackets)
	if s := os.Getenv("CHECKSUM_PACKETS"); s != "" {
		var err error
		share, err = strconv.ParseUint(s, 10, 64)
		labtest.Must(t, err)
	}
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
			judges := []*judge{
				newJudge(t, "out by wan1", w.Uplinks[0].ISP, lab.DeviceCustomer),
				newJudge(t, "out by wan2, without Ethernet", w.Uplinks[1].ISP, lab.DeviceCustomer),
				newJudge(t, "in to the LAN", w.lan, lab.DeviceHost),
				newJudge(t, "in to the host", w.Gateway, "tapgw0"),
			}
			keepBusy(t, w, func() bool { return judged(judges, (share+2)/3) })
			for i, j := range judges {
				j.verdict(t)
				if atTheHost := i == 3; !atTheHost && (j.partial.Load() > 0) != (c.partial && i != 1) {
					t.Errorf("%s: %d checksums were left to a device", j.name, j.partial.Load())
				}
			}
		})
	}
}

// judge verifies what arrives at a device.
type judge struct {
	*lab.Capture
	name            string
	frames, partial atomic.Uint64 // TCP and UDP that arrived
}

func newJudge(t testing.TB, name string, ns *lab.Namespace, device string) *judge {
	t.Helper()
	j := &judge{name: name}
	var err error
	j.Capture, err = ns.StartCapture(device, func(p *lab.Packet) bool {
		if !p.Outgoing && (p.TCP != nil || p.UDP != nil) {
			j.frames.Add(1)
			if p.Partial {
				j.partial.Add(1)
			}
		}
		return false
	})
	labtest.Must(t, err)
	return j
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
	r, err := j.Stop()
	labtest.Must(t, err)
	t.Logf("%s: %d packets judged, %d of them with a checksum left to the device; with the other direction's %d, %d of several segments; %d not seen; %d bad",
		j.name, j.frames.Load(), j.partial.Load(), r.Packets, r.Super, r.Lost, r.Bad)
	if r.Bad > 0 {
		t.Errorf("%s: %d bad packets", j.name, r.Bad)
	}
	for _, p := range r.BadOnes {
		t.Errorf("%s: %s", j.name, p)
	}
}

// keepBusy lets LAN and host transfer and ask until enough holds.
func keepBusy(t testing.TB, w world, enough func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
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
			_, down := ns.BulkDownload(ctx, lab.ServerAddrs[0], seed, 4<<20)
			_, up := ns.BulkUpload(ctx, lab.ServerAddrs[1], seed, 4<<20)
			return errors.Join(down, up)
		})
		repeat(func(seed uint64) error { return askMuch(ctx, ns, seed) })
	}
	for !enough() && ctx.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	cancel()
	running.Wait()
}

// askMuch has the UDP echo server repeat datagrams of all sizes and contents by a socket of its own, every fourth of which
// sends none with a checksum. What is lost does not matter here.
func askMuch(ctx context.Context, ns *lab.Namespace, seed uint64) error {
	const datagrams, inFlight, longest = 2048, 32, 1440
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
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
	return errors.Join(err, failed)
}
