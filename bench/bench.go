package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// errNothing marks a measurement in which nothing moved.
var errNothing = errors.New("nothing was measured")

// settle is the pause after each measurement, for queues to drain.
const settle = 200 * time.Millisecond

// busySessions is what a gateway may hold while its speed is measured: as many as the kernel's connection tracking.
const busySessions = 262144

// bench runs all measurements.
type bench struct {
	options
	makers   []maker
	results  *results
	progress io.Writer
	failures int
}

// all measures memory on peers of its own, then everything else in rounds, peers in turns.
func (b *bench) all(ctx context.Context) error {
	if err := b.memory(ctx); err != nil {
		return err
	}
	if !slices.ContainsFunc(b.results.tasks, func(t task) bool { return t.measure != nil }) {
		return nil
	}
	peers, err := b.start(ctx)
	if err == nil {
		err = b.allRounds(ctx, peers)
	}
	for _, p := range peers {
		err = errors.Join(err, p.close())
	}
	return err
}

func (b *bench) start(ctx context.Context) (peers []*peer, err error) {
	for _, m := range b.makers {
		p, err := m.make(ctx, busySessions)
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	return peers, b.generatorAlone(ctx, peers[0])
}

// generatorAlone shows that the generator is not what the flood measures.
func (b *bench) generatorAlone(ctx context.Context, p *peer) (err error) {
	if slices.ContainsFunc(b.results.tasks, func(t task) bool { return strings.HasPrefix(t.name, "udp-") }) {
		b.results.generator, err = generatorRate(ctx, p.lab.Gateway, b.flood)
	}
	return err
}

func (b *bench) allRounds(ctx context.Context, peers []*peer) error {
	for round := range b.rounds {
		for _, t := range b.results.tasks {
			if t.measure == nil {
				continue
			}
			for _, p := range peers {
				values, err := t.measure(ctx, p, b.settings)
				if err := b.take(ctx, round, t, p.name, values, err); err != nil {
					return err
				}
			}
			slices.Reverse(peers) // who comes first changes
		}
	}
	return nil
}

func (b *bench) memory(ctx context.Context) error {
	for _, t := range b.results.tasks {
		if t.measure != nil {
			continue
		}
		for _, m := range b.makers {
			values, err := memoryRow(ctx, m.make, b.sessions)
			if err := b.take(ctx, 0, t, m.name, values, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// take records one measurement. Only an interrupt ends the run: other rows may still be measured.
func (b *bench) take(ctx context.Context, round int, t task, peer string, values []float64, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if err == nil && slices.ContainsFunc(values, func(v float64) bool { return v <= 0 }) {
		err = errNothing
	}
	if err != nil {
		b.failures++
		fmt.Fprintf(b.progress, "round %d %s %s FAILED: %v\n", round+1, t.name, peer, err)
		return sleep(ctx, settle)
	}
	fmt.Fprintf(b.progress, "round %d %-15s %-7s", round+1, t.name, peer)
	for i, l := range t.lines {
		if !math.IsNaN(values[i]) {
			fmt.Fprintf(b.progress, " %s %s", figure(values[i]), l.unit)
		}
		b.results.add(l.label, peer, values[i])
	}
	fmt.Fprintln(b.progress)
	return sleep(ctx, settle)
}
