package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
)

// Uplinks is how many uplink IDs there are, from 0.
const Uplinks = 32

// Config is fixed for the life of the programs.
type Config struct {
	Seed    [2]uint64 // secret key of the hash, as in nat.Config
	Buckets uint32    // of each index, as nat.SizesFor says
	Records uint32    // elements of records and of counters, as nat.SizesFor says
	TAP     TAP
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
	case c.Buckets < 2:
		return fmt.Errorf("fastpath: %d buckets, an index has at least 2", c.Buckets)
	case c.Records < 2:
		return fmt.Errorf("fastpath: %d records, a table has at least 2", c.Records)
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
	Headerless bool       // frames have no Ethernet header: PPP, WWAN, TUN
	Usable     bool       // outbound packets may leave by it
}

// ErrUplink is what SetUplink and AttachUplink say of an impossible uplink.
var ErrUplink = errors.New("fastpath: impossible uplink")

func checkID(id uint8) error {
	if id >= Uplinks {
		return fmt.Errorf("%w: its ID is %d, the largest is %d", ErrUplink, id, Uplinks-1)
	}
	return nil
}
