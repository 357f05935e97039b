package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// memory is what a peer's sessions cost.
type memory struct {
	sessions int
	bytes    uint64
	whole    bool // bytes is all that the peer needs, not only its sessions
}

// tableSize is room for that many sessions, a power of two above them.
const tableSize = 131072

// memoryRow measures bytes per session: what was added by the sessions, and all there is. It uses a peer of its own, whose
// table has the size a user with so many sessions would set.
func memoryRow(ctx context.Context, make func(context.Context, int) (*peer, error), sessions int) (values []float64, err error) {
	p, err := make(ctx, tableSize)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	before, err := p.memory()
	if err != nil {
		return nil, err
	}
	after, err := openSessions(ctx, p, sessions)
	if err != nil {
		return nil, err
	}
	values = []float64{float64(after.bytes-before.bytes) / float64(after.sessions-before.sessions), math.NaN()}
	if after.bytes < before.bytes {
		values[0] = 0
	}
	if after.whole {
		values[1] = float64(after.bytes) / float64(after.sessions)
	}
	return values, nil
}

// openSessions sends packets of so many UDP endpoints until each has its session; what a full queue drops is sent again.
func openSessions(ctx context.Context, p *peer, sessions int) (m memory, err error) {
	g, err := newGenerator(sessions, xdpPass)
	if err != nil {
		return m, err
	}
	defer g.close()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := g.inject(ctx, p.lab.Gateway, floodChunk); err != nil {
			return m, err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return m, err
		}
		if m, err = p.memory(); err != nil || m.sessions >= sessions {
			return m, err
		}
	}
	return m, fmt.Errorf("only %d of %d sessions were opened in %s", m.sessions, sessions, patience)
}
