// Package dns probes an uplink by asking for names (RFC 1035), and resolves those that other probes need by the uplink itself.
package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"tapgw/probe"
	"tapgw/probe/bound"
)

const (
	port       = 53
	maxMessage = 1232 // bytes of an answer over UDP that arrives everywhere
)

// Prober asks a server for a name. The zero value is ready.
type Prober struct{}

// Probe returns how long the answer took. One that is a lie is a *probe.WrongError.
func (Prober) Probe(ctx context.Context, link probe.Link, target probe.Target) (time.Duration, error) {
	began := time.Now()
	receive, err := send(ctx, link, netip.AddrPortFrom(target.Addr, target.Port), target.Name, target.Answer.Is6())
	if err != nil {
		return 0, err
	}
	list, err := receive()
	if err != nil {
		return 0, err
	}
	return time.Since(began), judge(list, target)
}

// ErrNoAddress is wrapped where no server knows an address.
var ErrNoAddress = errors.New("no address")

// resolvers are public ones, which Resolve asks beside the gateway.
var resolvers = map[bool][]netip.Addr{
	false: {netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("8.8.8.8")},
	true:  {netip.MustParseAddr("2606:4700:4700::1111"), netip.MustParseAddr("2001:4860:4860::8888")},
}

// Resolve finds an address of a name, of the family of the link. It asks the gateway, which mostly resolves names, those given and
// public servers at once, all by that uplink, and takes the first answer.
func Resolve(ctx context.Context, link probe.Link, name string, more ...netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := append(more, resolvers[link.Source.Is6()]...)
	if link.Gateway.IsValid() {
		servers = append(servers, link.Gateway)
	}
	type answer struct {
		list []netip.Addr
		err  error
	}
	answers := make(chan answer, len(servers))
	for _, s := range servers {
		receive, err := send(ctx, link, netip.AddrPortFrom(zoned(s, link), port), name, link.Source.Is6())
		if err != nil {
			answers <- answer{nil, err}
			continue
		}
		go func() {
			list, err := receive()
			answers <- answer{list, err}
		}()
	}
	var last error
	for range servers {
		select {
		case a := <-answers:
			if a.err == nil {
				return a.list[0], nil
			}
			last = a.err
		case <-ctx.Done():
			return netip.Addr{}, ctx.Err()
		}
	}
	return netip.Addr{}, fmt.Errorf("%w of %s: %w", ErrNoAddress, name, last)
}

// zoned is an address as a socket takes it.
func zoned(a netip.Addr, link probe.Link) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(link.Name)
	}
	return a
}

// send asks one server over a socket of its own; receive must be called for the answer.
func send(ctx context.Context, link probe.Link, server netip.AddrPort, name string, ipv6 bool) (receive func() ([]netip.Addr, error), err error) {
	if err := bound.Check(link); err != nil {
		return nil, err
	}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	question, err := query(binary.BigEndian.Uint16(id[:]), name, ipv6)
	if err != nil {
		return nil, err
	}
	conn, err := bound.Dial(ctx, link, "udp", server.String())
	if err != nil {
		return nil, cause(err)
	}
	if _, err := conn.Write(question); err != nil {
		_ = conn.Close()
		return nil, cause(err)
	}
	return func() ([]netip.Addr, error) {
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
		return read(ctx, conn, question)
	}, nil
}

// read waits for the answer to a question.
func read(ctx context.Context, conn net.Conn, question []byte) ([]netip.Addr, error) {
	buf := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buf)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, cause(err)
		}
		if list, err := addresses(buf[:n], question); !errors.Is(err, errNotOurs) {
			return list, err
		}
	}
}

// cause drops the addresses that net puts around an errno: the verdict names the target already.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}
