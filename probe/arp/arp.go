// Package arp probes an uplink by resolving its gateway's address (RFC 826). That proves the link, not the path behind it.
package arp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"

	headers "tapgw/internal/packet"
	"tapgw/probe"
	"tapgw/probe/bound"
)

// Errors of links on which ARP cannot be used.
var (
	ErrHeaderLess = errors.New("the link has no Ethernet header, ARP cannot be used on it: use icmp:// or tcp:// targets")
	ErrNoGateway  = errors.New("the link has no gateway to ask for: use icmp:// or tcp:// targets")
)

const etherARP = 0x0806

// Prober asks for the gateway of one uplink over one packet socket, opened at the first probe and replaced when the Link
// changes or the socket fails. The zero value is ready; Close releases the socket.
type Prober struct {
	slot bound.Slot[*socket]
}

// Probe sends one ARP request for the gateway and returns how long the answer took. Any ARP reply from the gateway's address
// counts, also one to somebody else's question.
func (p *Prober) Probe(ctx context.Context, link probe.Link, _ probe.Target) (time.Duration, error) {
	s, err := p.slot.Get(link, func() (*socket, error) { return open(link) })
	if err != nil {
		return 0, err
	}
	w := make(waiter, 1)
	sent := time.Now()
	s.wait(w)
	defer s.forget(w)
	send := func() error { return s.client.WriteTo(s.request, ethernet.Broadcast) }
	if err := p.slot.Send(ctx, s, send); err != nil {
		return 0, fmt.Errorf("send ARP request: %w", err)
	}
	select {
	case at := <-w:
		return at.Sub(sent), nil
	case <-s.closed:
		return 0, bound.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Close releases the socket. Probes under way fail; a later one opens a new socket.
func (p *Prober) Close() error { return p.slot.Close() }

// waiter gets the time of the gateway's answer.
type waiter chan time.Time

// socket is a packet socket that hears only the gateway's ARP replies on one interface.
type socket struct {
	link    probe.Link
	client  *arp.Client
	request *arp.Packet
	closed  chan struct{} // when the reader has ended

	mu      sync.Mutex
	waiting map[waiter]struct{}
}

func open(link probe.Link) (*socket, error) {
	if err := usable(link); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByIndex(link.Index)
	if err != nil {
		return nil, fmt.Errorf("find interface %d (%s): %w", link.Index, link.Name, err)
	}
	request, err := arp.NewPacket(arp.OperationRequest, ifi.HardwareAddr, link.Source, ethernet.Broadcast, link.Gateway)
	if err != nil {
		return nil, fmt.Errorf("build ARP request: %w", err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, etherARP, &packet.Config{Filter: filter(link.Gateway)})
	if err != nil {
		return nil, err
	}
	client, err := arp.New(ifi, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := &socket{link: link, client: client, request: request, closed: make(chan struct{}), waiting: make(map[waiter]struct{})}
	go s.read()
	return s, nil
}

func usable(link probe.Link) error {
	switch {
	case link.HeaderLess:
		return ErrHeaderLess
	case !link.Gateway.Is4():
		return ErrNoGateway
	}
	return bound.Check(link)
}

// Close ends the reader.
func (s *socket) Close() error { return s.client.Close() }

// Done is closed when the reader has ended.
func (s *socket) Done() <-chan struct{} { return s.closed }

func (s *socket) wait(w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[w] = struct{}{}
}

func (s *socket) forget(w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, w)
}

// read wakes the waiters at each reply until the socket is closed or fails.
func (s *socket) read() {
	defer close(s.closed)
	for {
		reply, _, err := s.client.Read()
		if err != nil {
			_ = s.client.Close() // of no use any more, or closed already
			return
		}
		if reply.Operation == arp.OperationReply && reply.SenderIP == s.link.Gateway {
			s.wake(time.Now())
		}
	}
}

func (s *socket) wake(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.waiting {
		w <- at // buffered, and only one is ever sent
		delete(s.waiting, w)
	}
}

// filter passes only Ethernet ARP replies whose sender is the gateway: nothing else on the segment wakes us.
func filter(gateway netip.Addr) []bpf.RawInstruction {
	const operation, sender = 14 + 6, 14 + 14
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: operation, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(arp.OperationReply), SkipTrue: 3},
		bpf.LoadAbsolute{Off: sender, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: headers.HostOrder(gateway), SkipTrue: 1},
		bpf.RetConstant{Val: 65535},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // the program is constant but for the address
	}
	return program
}
