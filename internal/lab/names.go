package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// PortNames is where they are asked for.
const PortNames = 53

// Zone is what a server of names knows: addresses, and other names (CNAME) that are followed.
type Zone map[string][]string

// maxChain bounds how many names follow each other.
const maxChain = 8

// Known is what the resolvers of the laboratory know, at the addresses of the first two probe targets of each family: what every
// gateway asks for by default.
var Known = Zone{
	"one.one.one.one":   {ProbeTargets[0].String(), ProbeTargetsV6[0].String()},
	"dns.google":        {ProbeTargets[1].String(), ProbeTargetsV6[1].String()},
	"cp.cloudflare.com": {ServerAddrs[0].String(), ServerAddrsV6[0].String()},
}

// StartNames answers questions for addresses over UDP, at an address of the namespace. Addresses are good for a minute.
func StartNames(n *Namespace, at netip.Addr, z Zone) (*Servers, error) {
	s := &Servers{}
	if err := s.startNames(n, at, z); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// startResolvers answers for what is Known where the namespace has the resolvers' addresses.
func (s *Servers) startResolvers(n *Namespace) error {
	var errs []error
	for _, a := range slices.Concat(ProbeTargets[:2], ProbeTargetsV6[:2]) {
		err := s.startNames(n, a, Known)
		if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Servers) startNames(n *Namespace, at netip.Addr, z Zone) error {
	network := "udp4"
	if at.Is6() {
		network = "udp6"
	}
	conn, err := n.ListenPacket(network, netip.AddrPortFrom(at, PortNames).String())
	if err != nil {
		return fmt.Errorf("start server of names: %w", err)
	}
	s.closers = append(s.closers, conn)
	p, err := newPacketConn(conn, network)
	if err != nil {
		return fmt.Errorf("start server of names: %w", err)
	}
	s.tasks.Go(func() { z.serve(p) })
	return nil
}

func (z Zone) serve(p packetConn) {
	buf := make([]byte, maxPacket)
	for {
		n, at, from, err := p.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var m dnsmessage.Message
		if err != nil || m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if !z.answer(&m, m.Questions[0]) {
			m.RCode = dnsmessage.RCodeNameError
		}
		if b, err := m.Pack(); err == nil {
			p.answer(b, at, from)
		}
	}
}

// answer adds the records of a question, and reports whether there is the name.
func (z Zone) answer(m *dnsmessage.Message, q dnsmessage.Question) (exists bool) {
	name := q.Name
	for range maxChain {
		var next *dnsmessage.Name
		text := name.String()
		values, found := z[text[:len(text)-1]]
		exists = exists || found
		for _, v := range values {
			body := record(v)
			if c, ok := body.(*dnsmessage.CNAMEResource); ok {
				next = &c.CNAME
			} else if typeOf(body) != q.Type {
				continue
			}
			h := dnsmessage.ResourceHeader{Name: name, Class: q.Class, Type: typeOf(body), TTL: 60}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: body})
		}
		if next == nil {
			return exists
		}
		name = *next
	}
	return exists
}

// record is that of an address or a name.
func record(v string) dnsmessage.ResourceBody {
	a, err := netip.ParseAddr(v)
	switch {
	case err != nil:
		return &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(v + ".")}
	case a.Is4():
		return &dnsmessage.AResource{A: a.As4()}
	}
	return &dnsmessage.AAAAResource{AAAA: a.As16()}
}

func typeOf(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

// Resolve asks a server for the addresses of a name, from inside the namespace; network is ip4 or ip6.
func (n *Namespace) Resolve(ctx context.Context, server netip.Addr, network, name string) ([]netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return n.Dial(ctx, "udp", netip.AddrPortFrom(server, PortNames).String())
	}}
	return r.LookupNetIP(ctx, network, name+".")
}

// AddServers gives the Internet all addresses of a prefix, where its servers answer too.
func (t *Topology) AddServers(p netip.Prefix) error { return t.Internet.addAddress("lo", p) }
