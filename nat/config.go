package nat

import (
	"errors"
	"fmt"
	"time"

	"tapgw/internal/packet"
)

// Config is what a Table is made of. Random and Held are called under the table's lock and must not call the table.
type Config struct {
	IPv6        bool        // all addresses are of IPv6, or all of IPv4
	MaxSessions int         // records, 1 … MaxRecords; memory for all of them is reserved at once
	Ports       []PortRange // outside ports for TCP and UDP, of each address and protocol
	ShareTCP    bool        // TCP sessions to different remotes may share a port when ports run short
	Timeouts    Timeouts
	Limits      Limits
	Filtering   Filtering
	Seed        [2]uint64     // secret key of the hash
	Random      func() uint64 // unpredictable source for outside ports (RFC 6056)
	// Held reports that a local socket has the port, which is then not used. Nil holds none.
	Held func(proto uint8, addr packet.Addr, port uint16) bool
	// Memory is shared with a kernel program; nil takes ordinary memory.
	Memory *Memory
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Timeouts are how long an idle session of each kind lives.
type Timeouts struct {
	TCPEstablished time.Duration // both sides have acknowledged (RFC 5382 REQ-5)
	TCPTransitory  time.Duration // opening, half closed, or reset (RFC 5382 REQ-5, RFC 7857 §2.2)
	TCPClosed      time.Duration // closed by both sides
	UDP            time.Duration // RFC 4787 REQ-5
	ICMP           time.Duration // queries (RFC 5508 REQ-2)
	Other          time.Duration // protocols without ports
}

// DefaultTimeouts are the values the RFCs ask for. TCPClosed is shorter than RFC 7857's four minutes: both ends know that
// the connection is over, and a new SYN reopens it.
var DefaultTimeouts = Timeouts{
	TCPEstablished: 2*time.Hour + 4*time.Minute,
	TCPTransitory:  4 * time.Minute,
	TCPClosed:      4 * time.Second,
	UDP:            5 * time.Minute,
	ICMP:           time.Minute,
	Other:          10 * time.Minute,
}

// What Open refuses; each is counted in Stats.Refused.
var (
	ErrTableFull = errors.New("nat: session table is full, raise nat.max_sessions")
	ErrNoPort    = errors.New("nat: no outside port, or address without ports, is free on this uplink, widen nat.ports or add an address")
	ErrNoMapping = errors.New("nat: no mapping, or several, on this outside port")
	ErrBinding   = errors.New("nat: the uplink has no address or no valid generation, or this outside port cannot be reserved")
)

func (c *Config) validate() error {
	if c.MaxSessions < 1 || c.MaxSessions > MaxRecords {
		return fmt.Errorf("nat: max_sessions is %d, choose 1 to %d", c.MaxSessions, MaxRecords)
	}
	if c.Random == nil {
		return errors.New("nat: no random source given")
	}
	if len(c.Ports) == 0 {
		return errors.New("nat: no outside ports given, name at least one range")
	}
	for _, r := range c.Ports {
		if r.First == 0 || r.First > r.Last {
			return fmt.Errorf("nat: port range %d-%d is not a range within 1-65535", r.First, r.Last)
		}
	}
	return nil
}

// portList is every port of the ranges once, ascending.
func portList(ranges []PortRange) []uint16 {
	var in [1 << 16]bool
	for _, r := range ranges {
		for p := int(r.First); p <= int(r.Last); p++ {
			in[p] = true
		}
	}
	var list []uint16
	for p, ok := range in {
		if ok {
			list = append(list, uint16(p))
		}
	}
	return list
}

// lifetime numbers the timeouts by what a session is in.
type lifetime uint8

const (
	lifeTCPEstablished lifetime = iota
	lifeTCPTransitory
	lifeTCPClosed
	lifeUDP
	lifeICMP
	lifeOther
	lifetimes
)

func (t Timeouts) list() [lifetimes]time.Duration {
	return [lifetimes]time.Duration{t.TCPEstablished, t.TCPTransitory, t.TCPClosed, t.UDP, t.ICMP, t.Other}
}

// lifetimeOf is which timeout applies to a session.
func lifetimeOf(s State, proto uint8) lifetime {
	switch s {
	case TCPEstablished:
		return lifeTCPEstablished
	case TCPClosed:
		return lifeTCPClosed
	case Active, Leaving, Unanswered:
		switch proto {
		case protoUDP:
			return lifeUDP
		case protoICMP, protoICMPv6:
			return lifeICMP
		}
		return lifeOther
	}
	return lifeTCPTransitory
}
