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

// all measures what is measured once, then everything else in rounds, peers in turns.
func (b *bench) all(ctx context.Context) error {
	shared := map[room][]task{}
	var rooms []room
	for _, t := range b.results.tasks {
		r := t.room(b.settings)
		switch {
		case t.once:
			if err := b.once(ctx, t, r); err != nil {
				return err
			}
		case shared[r] == nil:
			rooms = append(rooms, r)
			fallthrough
		default:
			shared[r] = append(shared[r], t)
		}
	}
	for _, r := range rooms {
		if err := b.together(ctx, shared[r], r); err != nil {
			return err
		}
	}
	return nil
}

// once measures a task on peers of its own, one after the other.
func (b *bench) once(ctx context.Context, t task, r room) error {
	for _, m := range b.makers {
		if !t.measures(m.name) {
			continue
		}
		values, err := b.onFresh(ctx, t, m, r)
		if err := b.take(ctx, 0, t, m.name, values, err); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) onFresh(ctx context.Context, t task, m maker, r room) (values []float64, err error) {
	p, err := m.make(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return t.measure(ctx, p, b.settings)
}

// together measures tasks in rounds on peers that stand side by side.
func (b *bench) together(ctx context.Context, tasks []task, r room) error {
	peers, err := b.start(ctx, tasks, r)
	if err == nil {
		err = b.allRounds(ctx, tasks, peers)
	}
	for _, p := range peers {
		err = errors.Join(err, p.close())
	}
	return err
}

func (b *bench) start(ctx context.Context, tasks []task, r room) (peers []*peer, err error) {
	for _, m := range b.makers {
		if !slices.ContainsFunc(tasks, func(t task) bool { return t.measures(m.name) }) {
			continue
		}
		p, err := m.make(ctx, r)
		if err != nil {
			return peers, err
		}
		peers = append(peers, p)
	}
	if len(peers) == 0 {
		return nil, nil
	}
	return peers, b.generatorAlone(ctx, tasks, peers[0])
}

// generatorAlone shows that the generator is not what the flood measures.
func (b *bench) generatorAlone(ctx context.Context, tasks []task, p *peer) error {
	if !slices.ContainsFunc(tasks, func(t task) bool { return strings.HasPrefix(t.name, "udp") }) {
		return nil
	}
	rate, err := generatorRate(ctx, p, b.flood)
	b.results.sources = append(b.results.sources, source{p.family, rate})
	return err
}

func (b *bench) allRounds(ctx context.Context, tasks []task, peers []*peer) error {
	for round := range b.rounds {
		for i, t := range tasks {
			turns := slices.Clone(peers)
			if (round+i)%2 == 1 { // who comes first changes
				slices.Reverse(turns)
			}
			for _, p := range turns {
				if !t.measures(p.name) {
					continue
				}
				values, err := t.measure(ctx, p, b.settings)
				if err := b.take(ctx, round, t, p.name, values, err); err != nil {
					return err
				}
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
	fmt.Fprintf(b.progress, "round %d %-15s %-15s", round+1, t.name, peer)
	for i, v := range values {
		l := t.lines[i]
		if !math.IsNaN(v) {
			fmt.Fprintf(b.progress, " %s %s", figure(v), l.unit)
		}
		b.results.add(l.label, peer, v)
	}
	fmt.Fprintln(b.progress)
	return sleep(ctx, settle)
}
