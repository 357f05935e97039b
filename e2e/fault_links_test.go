package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// pull takes the first uplink's carrier away until others are used, and returns how it comes back.
func (w world) pull(visits *visits) heard {
	w.t.Helper()
	u, cut := w.Uplinks[0], time.Now()
	labtest.Must(w.t, u.Link.Cut())
	down := w.events.state(u.Device, api.StateDown, cut)
	visits.by(w.Uplinks[1].Addr(), down.at.Add(10*visitPace))
	mended := time.Now()
	labtest.Must(w.t, u.Link.Mend())
	return w.events.await(u.Device+" back", mended, func(e api.Event) bool {
		return e.Uplink == u.Device && (e.To == api.StateUp || e.To == api.StateDegraded)
	})
}

// TestFault07_Flapping: an uplink that goes down again and again is avoided by new sessions, but for when there is no other, until it
// has stayed up for a while. Nothing of the other uplink is disturbed.
func TestFault07_Flapping(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn+"probe: {degraded: {flapping: 3s}}\n")
	first, second := w.Uplinks[0], w.Uplinks[1]
	onSecond := w.connect(w.lan, second.Device)
	visits := keepVisiting(t, w.lan)
	var back heard
	for falls := 1; back.To != api.StateDegraded; falls++ {
		back = w.pull(visits)
		labtest.Must(t, onSecond.talk())
		if early := back.To == api.StateDegraded && falls < 3; early || falls > 10 {
			t.Fatalf("%s after %d falls", back.To, falls)
		}
	}
	t.Log(back.Message)
	if s, ok := w.session("tcp", portOf(onSecond)); !ok || s.Uplink != second.Device {
		t.Errorf("the connection by the other uplink: %+v", s)
	}
	w.showsDegraded(first, "again and again")
	visits.by(second.Addr(), back.at.Add(10*visitPace))
	visits.onlyBy(second, back.at, time.Now())

	labtest.Must(t, second.Link.Cut())
	visits.by(first.Addr(), time.Now())
	labtest.Must(t, second.Link.Mend())
	mended := w.events.state(second.Device, api.StateUp, back.at)
	up := w.events.state(first.Device, api.StateUp, back.Time)
	visits.onlyBy(second, mended.at, up.Time)
	visits.by(first.Addr(), up.at)
	t.Logf("up %s after the last fall", up.Time.Sub(back.Time))
}

// showsDegraded fails the test unless both what people and what programs read say that an uplink is degraded, and why.
func (w world) showsDegraded(u *lab.Uplink, why string) {
	w.t.Helper()
	text, _ := w.tapgw("status")
	if !contains(text, api.StateDegraded) || !contains(text, why) {
		w.t.Errorf("the status does not say %q:\n%s", why, text)
	}
	out, _ := w.tapgw("status", "--json")
	var s api.Status
	labtest.Must(w.t, json.Unmarshal([]byte(out), &s))
	i := slices.IndexFunc(s.Uplinks, func(one api.Uplink) bool { return one.Name == u.Device })
	if s.Uplinks[i].State != api.StateDegraded || !contains(s.Uplinks[i].Reason, why) {
		w.t.Errorf("%+v", s.Uplinks[i])
	}
}

// often are probes that find out soon what takes many of them.
const often = "probe: {interval: 50ms, timeout: 200ms}\n"

// TestFault05_LossyUplink: an uplink that loses a lot in both directions is avoided but not called down; 5 % are nothing.
func TestFault05_LossyUplink(t *testing.T) {
	t.Parallel()
	for _, percent := range []float64{5, 20, 50} {
		t.Run(fmt.Sprintf("%g%%", percent), func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{}, inTurn+often)
			begun := time.Now()
			labtest.Must(t, w.Uplinks[0].SetFaults(lab.RandomLoss(percent/100)))
			visits := keepVisiting(t, w.lan)
			if percent > 5 {
				w.avoided(visits, begun, "lost")
				return
			}
			w.events.none(4*time.Second, begun, leaves(api.StateUp))
			visits.by(w.Uplinks[0].Addr(), begun.Add(3*time.Second))
		})
	}
}

// avoided waits until the first uplink is degraded for a reason, and fails the test if it is called down, or if new sessions do not go
// by the second.
func (w world) avoided(visits *visits, begun time.Time, why string) {
	w.t.Helper()
	degraded := w.events.await("degraded", begun, func(e api.Event) bool { return e.Uplink == "wan1" && e.From == api.StateUp })
	w.t.Logf("after %s: %s", degraded.Time.Sub(begun), degraded.Message)
	visits.by(w.Uplinks[1].Addr(), degraded.at.Add(20*visitPace))
	visits.onlyBy(w.Uplinks[1], degraded.at, time.Now())
	w.showsDegraded(w.Uplinks[0], why)
	w.events.none(0, begun, func(e api.Event) bool { return e.To == api.StateDown })
}

// TestFault06_SlowUplink: an uplink whose answers come to take two seconds, as somebody else fills it, is avoided but not called down,
// and up again when they are fast.
func TestFault06_SlowUplink(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{HeaderLess: true}, {}}},
		inTurn+"probe: {interval: 300ms, degraded: {loss: off}}\n") // what is so late counts as lost too
	established := w.connect(w.lan, "wan1")
	begun := time.Now()
	visits := keepVisiting(t, w.lan)
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for delay := time.Duration(0); delay < time.Second; <-pace.C { // in each direction
		delay += 20 * time.Millisecond
		labtest.Must(t, w.Uplinks[0].Link.SetDelay(delay))
	}
	w.avoided(visits, begun, "answers take")
	labtest.Must(t, established.talk())
	labtest.Must(t, w.Uplinks[0].Link.SetDelay(0))
	up := w.events.state("wan1", api.StateUp, begun)
	visits.by(w.Uplinks[0].Addr(), up.at)
}

// TestFault06_OurOwnQueues: what we fill ourselves, in both directions, with queues that grow to seconds, is neither degraded nor down, nor
// suspect, whether its capacity is known or not.
func TestFault06_OurOwnQueues(t *testing.T) {
	t.Parallel()
	deep := shaped(10)
	deep.Queue = 2 * time.Second
	for name, config := range map[string]string{
		"configured": capacities([2]int{10, 10}, [2]int{10, 10}) + "probe: {interval: 250ms}\n", // finds what is slow in seconds
		"learned":    "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{deep, deep}}, inTurn+config)
			for _, ns := range []*lab.Namespace{w.lan, w.Internet} {
				labtest.Must(t, ns.Sysctl("net/ipv4/tcp_congestion_control", "reno")) // fills whatever queue there is
			}
			begun := time.Now()
			w.fill(8 * time.Second)
			w.events.none(0, begun, func(e api.Event) bool { return leaves(api.StateUp)(e) || e.Kind == api.EventSuspicion })
		})
	}
}

// fill has both uplinks carry all that they can in both directions for some time, and until they have had to queue for a second.
func (w world) fill(least time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	var running sync.WaitGroup
	for i := range uint64(8) {
		transfer := []func(context.Context, netip.Addr, uint64, uint64) (lab.Transfer, error){w.lan.BulkDownload, w.lan.BulkUpload}[i/2%2]
		running.Go(func() {
			if _, err := transfer(ctx, lab.ServerAddrs[0], i, 1<<40); ctx.Err() == nil {
				w.t.Errorf("a transfer: %v", err)
			}
		})
	}
	begun := time.Now()
	var longest [2]float64
	eventually(w.t, "full queues", func() bool { // no event tells of round trips
		for i, u := range w.status().Uplinks {
			longest[i] = max(longest[i], u.RTTMs)
		}
		return min(longest[0], longest[1]) >= 1000 && time.Since(begun) >= least
	})
	cancel()
	running.Wait()
	w.t.Logf("round trips of %.0f and %.0f ms", longest[0], longest[1])
}
