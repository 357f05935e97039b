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
	MaxSessions int       // as in nat.Config, of IPv4
	Secret      [6]byte   // source address of frames on the upcall device, where the last byte becomes a tag

	MaxSessionsV6 int // of IPv6; 0 leaves IPv6 to the host

	TAPMAC     [6]byte // of the device that captures outbound packets and gets the replies
	GatewayMAC [6]byte // of the imaginary router behind it
	UpcallMAC  [6]byte // of the device by which packets come to Go and go back
}

func (c *Config) validate() error {
	if c.MaxSessions < 1 || c.MaxSessions > nat.MaxRecords {
		return fmt.Errorf("fastpath: room for %d sessions, choose 1 to %d", c.MaxSessions, nat.MaxRecords)
	}
	if c.MaxSessionsV6 < 0 || c.MaxSessionsV6 > nat.MaxRecords {
		return fmt.Errorf("fastpath: room for %d sessions of IPv6, choose 0 to %d", c.MaxSessionsV6, nat.MaxRecords)
	}
	return nil
}

// Uplink is what the kernel must know of an uplink's side to one family. Sessions of another generation are not found.
type Uplink struct {
	Generation uint32
	Index      int        // interface index
	MAC        [6]byte    // of the device
	Gateway    netip.Addr // next hop; the zero Addr when remotes are on the link or the device is header-less
	MTU        int        // bytes
	HeaderLess bool       // frames have no Ethernet header: PPP, WWAN, TUN
	Ready      bool       // packets can leave by it: those with a source of its own do
	Usable     bool       // its sessions are the kernel's
}

// MaxAddresses is how many outside addresses of an uplink, of each family, the programs look at.
const MaxAddresses = 64

// Hop is where packets to a part of the LAN go next without the host's own forwarding.
type Hop struct {
	Index   int        // interface index, of a device with Ethernet headers
	Gateway netip.Addr // the zero Addr when the destination is on the link
	MTU     int        // bytes
}

// MaxHops is how many hops there can be to each family, numbered from 1.
const MaxHops = nat.HopDevice - 1

// ErrUplink is what SetUplink, SetHops and AttachUplink say of the impossible.
var ErrUplink = errors.New("fastpath: impossible uplink or hop")

func checkID(id uint8) error {
	if id >= uplinks.MaxUplinks {
		return fmt.Errorf("%w: its ID is %d, the largest is %d", ErrUplink, id, uplinks.MaxUplinks-1)
	}
	return nil
}

// nextHop is a gateway in network order, as the programs hold that of a family; 0 for none.
func nextHop(f uplinks.Family, gateway netip.Addr) (words [4]uint32, err error) {
	if !gateway.IsValid() {
		return words, nil
	}
	gateway = gateway.Unmap()
	if gateway.Is4() != (f == uplinks.IPv4) {
		return words, fmt.Errorf("%w: the gateway %v is an address of the other family", ErrUplink, gateway)
	}
	for i, b := range gateway.AsSlice() {
		words[i/4] |= uint32(b) << (8 * (i % 4)) // the programs are little-endian
	}
	return words, nil
}
