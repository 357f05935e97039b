package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"tapgw/internal/lab"
)

// bulkConnections is how many connections share the work.
const bulkConnections = 4

// bulk is a way of TCP in bulk.
type bulk struct {
	down     bool // from the Internet, else to it
	fromHost bool // by the gateway itself, else by a LAN host
	light    bool // with ends that leave the time to the gateway, else with ordinary programs
}

// measure returns the payload that arrives, in Gbit/s.
func (b bulk) measure(ctx context.Context, p *peer, s settings) ([]float64, error) {
	client := p.host().Namespace
	if b.fromHost {
		client = p.lab.Gateway
	}
	mode, count := byte(modeReceive), &p.servers.received
	if b.down {
		mode, count = modeSend, &atomic.Uint64{}
	}
	if b.light {
		mode |= modeLight
	}
	end, err := openBulk(ctx, p.family, client, bulkConnections, mode, count)
	if err != nil {
		return nil, err
	}
	defer end()
	rate, err := p.carried(func() (float64, error) {
		return counted(ctx, s.warmUp, s.bulk, func() (uint64, error) { return count.Load(), nil })
	})
	return []float64{rate * 8 / 1e9}, err
}

// openBulk opens n connections, which do as mode says until end is called.
func openBulk(ctx context.Context, f *family, client *lab.Namespace, n int, mode byte, count *atomic.Uint64) (end func(), err error) {
	var conns []net.Conn
	var tasks sync.WaitGroup
	end = func() {
		for _, c := range conns {
			c.Close()
		}
		tasks.Wait()
	}
	for i := range n {
		conn, err := dialBulk(ctx, client, netip.AddrPortFrom(f.server(i%len(lab.ServerAddrs)), portBulk), mode)
		if err != nil {
			end()
			return nil, err
		}
		conns = append(conns, conn)
		tasks.Go(func() { transferBulk(conn, mode, count) })
	}
	return end, nil
}

func dialBulk(ctx context.Context, client *lab.Namespace, server netip.AddrPort, mode byte) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := client.Dial(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{mode}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// transferBulk is what the client does while the server does as mode says.
func transferBulk(conn net.Conn, mode byte, count *atomic.Uint64) {
	if mode&^modeLight == modeSend {
		receive(conn, mode, count)
		return
	}
	send(conn, mode)
}
