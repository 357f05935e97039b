package fastpath

import (
	"errors"
	"fmt"
	"net/netip"

	"tapgw/nat"
	"tapgw/uplinks"
)

// Config is fixed for the life of the programs.
type Config struct {
	Seed        [2]uint64 // secret key of the hash, as in nat.Config
	MaxSessions int       // as in nat.Config
	TAP         TAP
	// TickOffset is added to CLOCK_MONOTONIC in units of 2²⁶ ns to make a nat.Tick.
	TickOffset uint32
}

// TAP is the device that captures outbound packets and gets the replies.
type TAP struct {
	Index      int     // interface index
	MAC        [6]byte // of the TAP
	GatewayMAC [6]byte // of the imaginary router behind it
}

func (c *Config) validate() error {
	switch {
	case c.MaxSessions < 1 || c.MaxSessions > nat.MaxRecords:
		return fmt.Errorf("fastpath: room for %d sessions, choose 1 to %d", c.MaxSessions, nat.MaxRecords)
	case c.TAP.Index <= 0:
		return fmt.Errorf("fastpath: the TAP's interface index is %d, create it first", c.TAP.Index)
	}
	return nil
}

// Uplink is what the kernel must know of an uplink. Sessions of another generation are not found.
type Uplink struct {
	Generation uint32
	Index      int        // interface index
	Gateway    netip.Addr // IPv4 next hop; the zero Addr when remotes are on the link or the device is header-less
	MTU        int        // bytes
	HeaderLess bool       // frames have no Ethernet header: PPP, WWAN, TUN
	Usable     bool       // outbound packets may leave by it
}

// ErrUplink is what SetUplink and AttachUplink say of an impossible uplink.
var ErrUplink = errors.New("fastpath: impossible uplink")

func checkID(id uint8) error {
	if id >= uplinks.MaxUplinks {
		return fmt.Errorf("%w: its ID is %d, the largest is %d", ErrUplink, id, uplinks.MaxUplinks-1)
	}
	return nil
}
