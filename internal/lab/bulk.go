package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// ErrCorrupt is returned when data arrived other than it was sent.
var ErrCorrupt = errors.New("data corrupted on the way")

// The bulk protocol: the client sends mode, seed and length; then the named side sends length bytes of the seed's
// pattern and the other, having checked them, answers one byte.
const (
	bulkDown byte = 'D'
	bulkUp   byte = 'U'

	bulkGood byte = 1
	bulkBad  byte = 2

	bulkHeaderLen = 17
	bulkBuffer    = 256 << 10
)

// Transfer is the outcome of one transfer.
type Transfer struct {
	Bytes    uint64
	Duration time.Duration // from before the connection was opened
}

// Rate is the mean rate, bits per second.
func (t Transfer) Rate() float64 {
	if t.Duration <= 0 {
		return 0
	}
	return float64(t.Bytes) * 8 / t.Duration.Seconds()
}

// BulkDownload reads n bytes of seed's pattern from the bulk server at addr and checks each. The Transfer counts what
// arrived also when an error ended it.
func (n *Namespace) BulkDownload(ctx context.Context, addr netip.Addr, seed, length uint64) (Transfer, error) {
	return n.bulk(ctx, addr, bulkHeader(bulkDown, seed, length), func(c net.Conn) (uint64, error) {
		return checkStream(c, newPattern(seed), length)
	})
}

// BulkUpload sends n bytes of seed's pattern to the bulk server at addr, which checks each.
func (n *Namespace) BulkUpload(ctx context.Context, addr netip.Addr, seed, length uint64) (Transfer, error) {
	return n.bulk(ctx, addr, bulkHeader(bulkUp, seed, length), func(c net.Conn) (uint64, error) {
		if err := writePattern(c, newPattern(seed), length); err != nil {
			return 0, err
		}
		var verdict [1]byte
		if _, err := io.ReadFull(c, verdict[:]); err != nil {
			return 0, fmt.Errorf("read the server's verdict: %w", err)
		}
		if verdict[0] != bulkGood {
			return 0, fmt.Errorf("upload: %w", ErrCorrupt)
		}
		return length, nil
	})
}

func (n *Namespace) bulk(ctx context.Context, addr netip.Addr, header []byte, f func(net.Conn) (uint64, error)) (t Transfer, err error) {
	start := time.Now()
	defer func() { t.Duration = time.Since(start) }()
	conn, err := n.Dial(ctx, "tcp", netip.AddrPortFrom(addr, PortBulk).String())
	if err != nil {
		return t, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(header); err != nil {
		return t, err
	}
	t.Bytes, err = f(conn)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return t, err
}

func bulkHeader(mode byte, seed, length uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{mode}, seed)
	return binary.BigEndian.AppendUint64(b, length)
}

func serveBulk(c net.Conn) {
	var header [bulkHeaderLen]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return
	}
	p := newPattern(binary.BigEndian.Uint64(header[1:]))
	length := binary.BigEndian.Uint64(header[9:])
	if length > maxBytes {
		return
	}
	if header[0] == bulkDown {
		_ = writePattern(c, p, length) // the client sees a short stream
		return
	}
	_, err := checkStream(c, p, length)
	verdict := bulkGood
	if err != nil {
		verdict = bulkBad
	}
	_, _ = c.Write([]byte{verdict})
}

// checkStream reads length bytes, compares them with p and returns how many were right.
func checkStream(r io.Reader, p *pattern, length uint64) (got uint64, err error) {
	buf := make([]byte, bulkBuffer)
	for got < length {
		n, err := r.Read(buf[:min(uint64(len(buf)), length-got)])
		if bad := p.check(buf[:n]); bad != nil {
			return got, bad
		}
		got += uint64(n)
		if err != nil && got < length {
			return got, fmt.Errorf("after %d of %d bytes: %w", got, length, err)
		}
	}
	return got, nil
}
