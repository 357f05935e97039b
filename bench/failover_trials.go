package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
)

// trial is one row of the report: what is measured of one failure.
type trial struct {
	name, label, unit string
	bar               float64 // the most that is allowed
	slow              bool    // takes minutes
	setUp             setUp
	measure           func(context.Context, *arena, failoverOptions) (float64, error)
}

// rounds is how many a row gets of those asked for.
func (t trial) rounds(asked int) int {
	switch {
	case t.setUp.uplink.Down > 0 || t.long():
		return 1
	case t.slow:
		return max(asked/10, 1)
	}
	return asked
}

// long reports whether a row counts what must never happen.
func (t trial) long() bool { return t.bar == 0 }

var (
	metered   = setUp{config: ", metered: true, tier: 0"}
	saturated = setUp{uplink: lab.UplinkOptions{Down: 20e6, Up: 5e6}, config: ", capacity: {down: 20Mbit, up: 5Mbit}"}
)

var trials = []trial{
	{name: "carrier", label: "carrier loss → next new session elsewhere", unit: "ms", bar: 200, measure: carrierLoss},
	{name: "traffic", label: "blackhole under traffic → seen", unit: "ms", bar: 1000, measure: blackhole{busy: true}.measure},
	{name: "idle", label: "blackhole while idle → seen", unit: "ms", bar: 1500, measure: blackhole{within: 10 * time.Second}.measure},
	{name: "probes", label: "probes of an idle uplink", unit: "kbit/s", bar: 4, slow: true, measure: probes(0.1, 8e-3)},
	{name: "metered-traffic", label: "metered: blackhole under traffic → seen", unit: "ms", bar: 1000, setUp: metered,
		measure: blackhole{busy: true}.measure},
	{name: "metered-idle", label: "metered: blackhole while idle → seen", unit: "ms", bar: 60_000, slow: true, setUp: metered,
		measure: blackhole{within: 2 * time.Minute}.measure},
	{name: "metered-probes", label: "metered: probes of a day", unit: "MB", bar: 1, slow: true, setUp: metered,
		measure: probes(1, 24*3600/1e6)},
	{name: "connect", label: "unseen blackhole: added to a new TCP connection", unit: "ms", bar: 500, measure: connectDelay},
	{name: "quic", label: "QUIC download: stall after it was seen", unit: "ms", bar: 1000, measure: quicStall},
	{name: "wireguard", label: "WireGuard tunnel: back after it was seen", unit: "ms", bar: 1000 * wgKeepalive, measure: wireGuardStall},
	{name: "reset", label: "TCP client: reset after it was seen", unit: "ms", bar: 200, measure: resetDelay},
	{name: "false-loss", label: "false switches at 5 % loss", unit: "", setUp: setUp{}, measure: falseAtLoss},
	{name: "false-full", label: "false switches under full saturation", unit: "", setUp: saturated, measure: falseWhenFull},
}

// Bounds of what is waited for; what takes longer did not happen.
const (
	soon      = 10 * time.Second
	visitPace = 5 * time.Millisecond
)

// between is the time from one moment to another, milliseconds; nothing where it was before.
func between(from, to time.Time) float64 { return max(to.Sub(from).Seconds()*1000, 0) }

// carrierLoss is when the first session was begun that went elsewhere.
func carrierLoss(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	elsewhere := make(chan time.Time, 1)
	var visits sync.WaitGroup
	defer visits.Wait()
	if err := a.first.Link.Cut(); err != nil {
		return 0, err
	}
	cut := time.Now()
	for pace := time.NewTicker(visitPace); ; {
		visits.Go(func() {
			begun := time.Now()
			if outside, err := a.visit(ctx, time.Second); err == nil && outside == a.second.Addr() {
				select {
				case elsewhere <- begun:
				default:
				}
			}
		})
		select {
		case first := <-elsewhere:
			pace.Stop()
			return between(cut, first), nil
		case <-ctx.Done():
			pace.Stop()
			return 0, fmt.Errorf("a session elsewhere %w", errNever)
		case <-pace.C:
		}
	}
}

// die makes the first uplink lose everything while its link stays up.
func (a *arena) die() (time.Time, error) {
	begun := time.Now()
	return begun, a.first.SetFaults(lab.Blackhole)
}

// blackhole measures until the daemon says that the uplink is down.
type blackhole struct {
	busy   bool // traffic leaves by it
	within time.Duration
}

func (b blackhole) measure(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	if b.busy {
		defer a.traffic(ctx)()
		if err := sleep(ctx, time.Second); err != nil {
			return 0, err
		}
	}
	begun, err := a.die()
	if err != nil {
		return 0, err
	}
	seen, err := a.events.seen(ctx, a.first.Device, begun, max(b.within, soon))
	return between(begun, seen), err
}

// traffic is that of a house: new sessions of UDP and TCP, and a download. It ends when the function returned is called.
func (a *arena) traffic(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	often := func(pace time.Duration, do func()) {
		running.Go(func() {
			for sleep(ctx, pace) == nil {
				running.Go(do)
			}
		})
	}
	often(50*time.Millisecond, func() { _, _ = a.visit(ctx, time.Second) })
	often(100*time.Millisecond, func() { a.connectOnce(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			_, _ = a.lan.BulkDownload(ctx, lab.ServerAddrs[1], 1, 1<<40)
			_ = sleep(ctx, 100*time.Millisecond)
		}
	})
	return func() { cancel(); running.Wait() }
}

// connectOnce is a short TCP connection.
func (a *arena) connectOnce(ctx context.Context) {
	conn, err := a.lan.Dial(ctx, "tcp4", netip.AddrPortFrom(lab.ServerAddrs[1], lab.PortTCPEcho).String())
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_ = talk(conn, time.Second)
}

// probes counts what an idle uplink carries, in both directions and without Ethernet's headers, for a share of the window; unit
// makes the figure of bytes per second.
func probes(share, unit float64) func(context.Context, *arena, failoverOptions) (float64, error) {
	return func(ctx context.Context, a *arena, o failoverOptions) (float64, error) {
		before, err := a.carried()
		if err != nil {
			return 0, err
		}
		begun := time.Now()
		if err := sleep(ctx, time.Duration(share*float64(o.window))); err != nil {
			return 0, err
		}
		after, err := a.carried()
		return float64(after-before) / time.Since(begun).Seconds() * unit, err
	}
}

// carried is how many bytes of IP and ARP the first uplink has carried.
func (a *arena) carried() (uint64, error) {
	const ethernet = 14
	link, err := a.Gateway.Handle().LinkByName(a.first.Device)
	if err != nil {
		return 0, err
	}
	s := link.Attrs().Statistics
	return s.RxBytes + s.TxBytes - ethernet*(s.RxPackets+s.TxPackets), nil
}

// connectDelay is how much longer a connection takes that is begun right after the uplink died.
func connectDelay(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	var usual []float64
	for range 5 {
		begun := time.Now()
		if _, err := a.dial(ctx); err != nil {
			return 0, err
		}
		usual = append(usual, between(begun, time.Now()))
	}
	if _, err := a.die(); err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := a.dial(ctx); err != nil {
		return 0, errors.Join(errNever, err)
	}
	slices.Sort(usual)
	return max(between(begun, time.Now())-usual[len(usual)/2], 0), nil
}

// resetDelay is when the client of an idle connection hears that it is over.
func resetDelay(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	conn, err := a.dial(ctx)
	if err != nil {
		return 0, err
	}
	begun, err := a.die()
	if err != nil {
		return 0, err
	}
	reset := make(chan time.Time, 1)
	a.tasks.Go(func() {
		_ = conn.SetReadDeadline(begun.Add(2 * soon))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
			reset <- time.Now()
		}
		close(reset)
	})
	seen, err := a.events.seen(ctx, a.first.Device, begun, soon)
	if err != nil {
		return 0, err
	}
	at, ok := <-reset
	if !ok {
		return 0, fmt.Errorf("a reset %w", errNever)
	}
	return between(seen, at), nil
}

// falseAtLoss counts how often an uplink is given up that loses 5 % of its packets, under traffic.
func falseAtLoss(ctx context.Context, a *arena, o failoverOptions) (float64, error) {
	for _, u := range a.Uplinks {
		if err := u.SetFaults(lab.RandomLoss(0.05)); err != nil {
			return 0, err
		}
	}
	defer a.traffic(ctx)()
	return a.switches(ctx, o.long)
}

// falseWhenFull counts the same of uplinks that we fill ourselves, in both directions.
func falseWhenFull(ctx context.Context, a *arena, o failoverOptions) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	var transfers sync.WaitGroup
	defer func() { cancel(); transfers.Wait() }()
	for i := range 4 {
		transfers.Go(func() {
			for ctx.Err() == nil {
				_, _ = a.lan.BulkDownload(ctx, lab.ServerAddrs[i%2], uint64(i), 1<<40)
			}
		})
		transfers.Go(func() {
			for ctx.Err() == nil {
				_, _ = a.lan.BulkUpload(ctx, lab.ServerAddrs[i%2], uint64(i), 1<<40)
			}
		})
	}
	defer a.traffic(ctx)()
	return a.switches(ctx, o.long)
}

// switches counts the uplinks given up in a time.
func (a *arena) switches(ctx context.Context, during time.Duration) (n float64, err error) {
	begun := time.Now()
	if err := sleep(ctx, during); err != nil {
		return 0, err
	}
	list, _ := a.events.since(begun)
	for _, e := range list {
		if isSwitch(e) && e.Family != api.FamilyIPv6 {
			n++
		}
	}
	return n, nil
}

// arrivals are when data came.
type arrivals struct {
	mu   sync.Mutex
	list []time.Time
}

func (r *arrivals) note() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, time.Now())
}

// stall is from when the failure was seen until data came again: what ended the longest pause since the failure. It waits for
// some data after both.
func (r *arrivals) stall(ctx context.Context, begun, seen time.Time) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*soon)
	defer cancel()
	const enough = 10 // arrivals after seen
	for {
		r.mu.Lock()
		list := slices.Clone(r.list)
		r.mu.Unlock()
		list = slices.DeleteFunc(list, func(t time.Time) bool { return t.Before(begun) })
		if n := len(list); n >= enough && list[n-enough].After(seen) {
			return between(seen, pauseEnd(begun, list)), nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return math.NaN(), fmt.Errorf("that data came again %w", errNever)
		}
	}
}

// pauseEnd is the end of the longest time in which nothing came.
func pauseEnd(begun time.Time, list []time.Time) (end time.Time) {
	var longest time.Duration
	last := begun
	for _, t := range list {
		if d := t.Sub(last); d > longest {
			longest, end = d, t
		}
		last = t
	}
	return end
}

// afterDeath lets the first uplink die while data arrive by it, and returns how long they stall once that is seen.
func (a *arena) afterDeath(ctx context.Context, r *arrivals) (float64, error) {
	if err := sleep(ctx, time.Second); err != nil {
		return 0, err
	}
	begun, err := a.die()
	if err != nil {
		return 0, err
	}
	seen, err := a.events.seen(ctx, a.first.Device, begun, soon)
	if err != nil {
		return 0, err
	}
	return r.stall(ctx, begun, seen)
}

// readAll notes what arrives until the reader ends.
func (r *arrivals) readAll(from io.Reader) {
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		if n > 0 {
			r.note()
		}
		if err != nil && !isTimeout(err) {
			return
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
