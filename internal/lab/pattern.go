package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// patternLen is the period of a pattern, a prime, so that shifted, repeated or swapped segments show.
const patternLen = 65521

// pattern is an endless deterministic byte stream; streams of different seeds differ nearly everywhere.
type pattern struct {
	block []byte // two periods, so that a window of one period starts anywhere in the first
	pos   int
}

func newPattern(seed uint64) *pattern {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rng := rand.NewChaCha8(key)
	block := make([]byte, 2*patternLen)
	_, _ = rng.Read(block[:patternLen]) // documented never to fail
	copy(block[patternLen:], block)
	return &pattern{block: block}
}

// next returns up to n following bytes, at most one period, which must not be changed.
func (p *pattern) next(n int) []byte {
	n = min(n, patternLen)
	b := p.block[p.pos : p.pos+n]
	p.pos = (p.pos + n) % patternLen
	return b
}

// check compares b with what follows.
func (p *pattern) check(b []byte) error {
	for len(b) > 0 {
		want := p.next(len(b))
		if !bytes.Equal(b[:len(want)], want) {
			return fmt.Errorf("%w: byte stream differs from its pattern", ErrCorrupt)
		}
		b = b[len(want):]
	}
	return nil
}
