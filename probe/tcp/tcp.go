// Package tcp probes an uplink by setting up TCP connections.
package tcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/probe"
	"tapgw/probe/bound"
)

// Prober connects to a target and resets the connection at once, so that no state stays behind on either side. A refused
// connection counts as an answer: the reset proves the path, not the service. The zero value is ready.
type Prober struct{}

// Probe returns how long the connection, or its refusal, took. A SYN that the kernel had to repeat shows as an RTT of a
// second or more.
func (Prober) Probe(ctx context.Context, link probe.Link, target probe.Target) (time.Duration, error) {
	if err := bound.Check(link); err != nil {
		return 0, err
	}
	began := time.Now()
	conn, err := bound.Dial(ctx, link, "tcp", netip.AddrPortFrom(target.Addr, target.Port).String())
	rtt := time.Since(began)
	if errors.Is(err, unix.ECONNREFUSED) {
		return rtt, nil
	}
	if err != nil {
		return 0, cause(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // reset instead of TIME_WAIT; failing that, an ordinary close does
	_ = conn.Close()
	return rtt, nil
}

// cause drops the addresses that net puts around an errno: the verdict names the target already.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}
