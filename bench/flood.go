package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"

	"tapgw/internal/lab"
)

// Limits of flows. Endpoints share source addresses, 32,768 ports on each.
const (
	maxEndpoints = 1 << 20
	maxRemotes   = serverCount
)

// How the generator is run.
const (
	floodChunk = 1 << 18 // packets of one system call: setting up costs as much as thousands
	liveFrames = 1 << 1  // BPF_F_TEST_XDP_LIVE_FRAMES
	liveBatch  = 64      // packets given to the network stack at once

	xdpDrop uint32 = 1
	xdpPass uint32 = 2
)

// How sessions are opened.
const (
	openRate  = 100_000               // packets per second, which userspace can take
	openLoss  = 0.1                   // share of a turn's packets that may get lost in the last turn
	openTurns = 8                     // the turns there is time for, beside patience
	openDrain = 20 * time.Millisecond // for what is still queued after a turn
)

// flows are the sessions of a flood: each endpoint sends to each of the remotes.
type flows struct{ endpoints, remotes int }

func (f flows) count() int { return f.endpoints * f.remotes }

// generator makes the gateway's LAN port receive the packets of flows in turn, UDP to the discard port.
type generator struct {
	*programs
	frame []byte // whose content the program makes
}

// newGenerator makes a source of so many packets per second, 0 for as many as possible. The verdict is what becomes of them:
// xdpPass for the network stack, or xdpDrop to measure the generator alone.
func newGenerator(v *family, f flows, verdict uint32, rate int) (*generator, error) {
	if f.endpoints < 1 || f.endpoints > maxEndpoints || f.remotes < 1 || f.remotes > maxRemotes {
		return nil, fmt.Errorf("a flood has 1 to %d endpoints and 1 to %d remotes, not %+v", maxEndpoints, maxRemotes, f)
	}
	var interval uint64
	if rate > 0 {
		interval = uint64(time.Second) / uint64(rate)
	}
	p, err := loadPrograms(v, map[string]any{
		"endpoints": uint32(f.endpoints), "remotes": uint32(f.remotes), "verdict": verdict, "interval": interval,
		"source": toBPF(v.gateway.Next()), "server": toBPF(v.server(0)), "port_mac": lanMAC,
	}, "generate")
	if err != nil {
		return nil, err
	}
	return &generator{p, make([]byte, v.floodLen)}, nil
}

// xdpContext is struct xdp_md.
type xdpContext struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }

// inject lets the gateway receive so many packets, fewer when ctx ends, and returns their number.
func (g *generator) inject(ctx context.Context, gateway *lab.Namespace, packets int) (offered int, err error) {
	index, err := gateway.Index(lab.DeviceLAN)
	if err != nil {
		return 0, err
	}
	begin, err := g.number()
	if err != nil {
		return 0, err
	}
	end := begin + uint64(packets)
	if err := g.Variables["limit"].Set(end); err != nil {
		return 0, err
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = g.Variables["limit"].Set(uint64(0)); close(stopped) })
	defer func() {
		if !stop() {
			<-stopped // the caller may close the generator after us
		}
	}()
	options := &ebpf.RunOptions{Data: g.frame, Context: xdpContext{DataEnd: uint32(len(g.frame)), Ingress: uint32(index)},
		Repeat: floodChunk, Flags: liveFrames, BatchSize: liveBatch}
	at := begin
	err = gateway.Do(func() error {
		for err == nil && ctx.Err() == nil && at < end {
			if _, err := g.Programs["generate"].Run(options); err != nil {
				return fmt.Errorf("run the generator (live frames need Linux 5.18): %w", err)
			}
			at, err = g.number()
		}
		return err
	})
	return int(at - begin), err
}

// number is that of the next packet.
func (g *generator) number() (n uint64, err error) {
	return n, g.Variables["number"].Get(&n)
}

// open lets every flow send, at a rate that any gateway takes, until practically a whole turn was forwarded and the gateway
// holds as many sessions.
func (f flows) open(ctx context.Context, p *peer) error {
	g, err := newGenerator(p.family, f, xdpPass, openRate)
	if err != nil {
		return err
	}
	defer g.close()
	limit := patience + openTurns*time.Duration(f.count())*time.Second/openRate
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer stop()
	var left uint64
	var held int
	for ctx.Err() == nil {
		if left, held, err = f.turn(ctx, g, p); err != nil {
			return fmt.Errorf("open %d sessions: %w", f.count(), err)
		}
		if float64(left) >= (1-openLoss)*float64(f.count()) && held >= f.count() {
			return nil
		}
	}
	return fmt.Errorf("open %d sessions: %w: there were %d, and of the last packets %d were forwarded", f.count(), context.Cause(ctx), held, left)
}

// turn lets every flow send one packet, and tells how many packets left by the uplinks and how many sessions there are.
func (f flows) turn(ctx context.Context, g *generator, p *peer) (left uint64, held int, err error) {
	before, err := p.forwarded()
	if err != nil {
		return 0, 0, err
	}
	if _, err := g.inject(ctx, p.lab.Gateway, f.count()); err != nil {
		return 0, 0, err
	}
	time.Sleep(openDrain)
	after, err := p.forwarded()
	if err != nil {
		return 0, 0, err
	}
	held = f.count()
	if p.sessions != nil {
		held, err = p.sessions()
	}
	return after - before, held, err
}

// rate measures the packets per second of the flows that leave by the uplinks.
func (f flows) rate(ctx context.Context, p *peer, s settings) (float64, error) {
	g, err := newGenerator(p.family, f, xdpPass, 0)
	if err != nil {
		return 0, err
	}
	defer g.close()
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	injected := make(chan error, 1)
	go func() {
		_, err := g.inject(ctx, p.lab.Gateway, math.MaxInt)
		injected <- err
	}()
	rate, err := p.carried(func() (float64, error) { return counted(ctx, s.warmUp, s.flood, p.forwarded) })
	stop()
	return rate, errors.Join(err, <-injected, p.checkSources())
}

// flood measures the packets per second that leave by the uplinks, in millions.
func flood(endpoints int) measure {
	f := flows{endpoints, 1}
	return func(ctx context.Context, p *peer, s settings) ([]float64, error) {
		if err := f.open(ctx, p); err != nil {
			return nil, err
		}
		rate, err := f.rate(ctx, p, s)
		return []float64{rate / 1e6}, err
	}
}

// crowd measures the millions of packets per second of a great many sessions, and their ratio to those of one of them.
func crowd(ctx context.Context, p *peer, s settings) ([]float64, error) {
	held, err := p.sessions()
	if err == nil && held < s.crowd.count() { // in later rounds most are alive, all of them as a rule
		err = s.crowd.open(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	one, err := flows{1, 1}.rate(ctx, p, s)
	if err != nil {
		return nil, err
	}
	many, err := s.crowd.rate(ctx, p, s)
	return []float64{many / 1e6, many / one}, err
}

// counted reads a counter twice and returns its rate, per second.
func counted(ctx context.Context, after, during time.Duration, counter func() (uint64, error)) (float64, error) {
	if err := sleep(ctx, after); err != nil {
		return 0, err
	}
	begin := time.Now()
	before, err := counter()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, during); err != nil {
		return 0, err
	}
	n, err := counter()
	return float64(n-before) / time.Since(begin).Seconds(), err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// generatorRate is what the generator offers when nothing is done with its packets, in millions per second.
func generatorRate(ctx context.Context, p *peer, during time.Duration) (float64, error) {
	g, err := newGenerator(p.family, flows{1, 1}, xdpDrop, 0)
	if err != nil {
		return 0, err
	}
	defer g.close()
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	begin := time.Now()
	offered, err := g.inject(ctx, p.lab.Gateway, math.MaxInt)
	return float64(offered) / time.Since(begin).Seconds() / 1e6, err
}
