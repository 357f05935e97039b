// Package probers joins the probers of all kinds into one.
package probers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tapgw/probe"
	"tapgw/probe/arp"
	"tapgw/probe/dns"
	"tapgw/probe/http"
	"tapgw/probe/icmp"
	"tapgw/probe/nd"
	"tapgw/probe/tcp"
)

var _ probe.Prober = (*Set)(nil)

// Set probes the targets of one uplink, whatever their kind. The zero value is ready; Close releases its sockets.
type Set struct {
	icmp icmp.Prober
	tcp  tcp.Prober
	arp  arp.Prober
}

// Probe asks target by link. A call with another Link replaces the sockets, so each uplink needs a Set of its own.
func (s *Set) Probe(ctx context.Context, link probe.Link, target probe.Target) (time.Duration, error) {
	switch target.Kind {
	case probe.ICMP:
		return s.icmp.Probe(ctx, link, target)
	case probe.TCP:
		return s.tcp.Probe(ctx, link, target)
	case probe.ARP:
		return s.arp.Probe(ctx, link, target)
	case probe.ND:
		return nd.Prober{}.Probe(ctx, link, target)
	case probe.DNS:
		return dns.Prober{}.Probe(ctx, link, target)
	case probe.HTTP:
		return http.Prober{}.Probe(ctx, link, target)
	}
	return 0, fmt.Errorf("no prober for targets of kind %q", target.Kind)
}

// Close releases the sockets. Probes under way fail.
func (s *Set) Close() error { return errors.Join(s.icmp.Close(), s.arp.Close()) }
