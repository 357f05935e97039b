package tapdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
)

// upcallMTU is that of the upcall device, bytes; nothing is routed there.
const upcallMTU = 1500

// Upcall is a TAP device by which packets captured on an uplink are given back to the host's stack. A tc filter for each
// uplink, on the secret source address of wire.GiveBackMAC, moves them to the ingress of that uplink, so that firewall
// rules, port forwards and sockets see them as received there. Where package fastpath captures, its programs do that, and
// hand what is ours over here, to be read from the queues.
type Upcall struct {
	*Device
	secret [6]byte // source address of what passes here, where the last byte is a tag

	mu    sync.Mutex
	bound map[uint8]int // uplink → interface index
}

// UpcallConfig describes the upcall device.
type UpcallConfig struct {
	Name string
	MAC  [6]byte
	// Address is one of our own: a device without any cannot receive where sources are checked (rp_filter).
	Address netip.Addr
	Seed    uint64 // the one given to wire.GiveBackMAC by whoever lets the frames pass
	Queues  int    // as in Config
}

// CreateUpcall makes the device; errors are those of Create.
func CreateUpcall(cfg UpcallConfig) (*Upcall, error) {
	d, err := Create(Config{
		Name: cfg.Name, Address: netip.PrefixFrom(cfg.Address, 32), MAC: cfg.MAC, MTU: upcallMTU, Queues: cfg.Queues,
	})
	if err != nil {
		return nil, err
	}
	// Without a filter frames are delivered as received here, where a strict check of the source would drop them all.
	err = setSysctl("/proc/sys/net/ipv4/conf/"+cfg.Name+"/rp_filter", "2")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("TAP device %s: relax rp_filter: %w", cfg.Name, err), d.Close())
	}
	if err := d.addClsact(); err != nil {
		return nil, errors.Join(fmt.Errorf("TAP device %s: add a clsact qdisc: %w", cfg.Name, err), d.Close())
	}
	return &Upcall{Device: d, secret: wire.GiveBackMAC(cfg.Seed, 0), bound: make(map[uint8]int)}, nil
}

// addClsact makes the place of the filters before anything is sent here: the kernel stops the whole device for it, and
// drops what is sent meanwhile.
func (d *Device) addClsact() error {
	return d.handle.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: d.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
}

// Check is Device.Check.
func (u *Upcall) Check() (repaired []string, err error) { return u.Device.Check(upcallMTU) }

// BindUplink makes frames given back by uplink id appear on the device with that index, 0 for none. When it fails, or before it
// is called, those of IPv4 appear on the upcall device itself, which reaches local sockets but no rule that names the uplink, and
// those of IPv6 nowhere.
func (u *Upcall) BindUplink(id uint8, index int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.unbind(id); err != nil || index == 0 {
		return err
	}
	if err := u.handle.FilterAdd(u.filter(id, index)); err != nil {
		return fmt.Errorf("upcall device: redirect to device %d: %w", index, err)
	}
	u.bound[id] = index
	return nil
}

func (u *Upcall) unbind(id uint8) error {
	if _, ok := u.bound[id]; !ok {
		return nil
	}
	err := u.handle.FilterDel(u.filter(id, u.bound[id]))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // someone else was faster
		return fmt.Errorf("upcall device: delete filter of uplink %d: %w", id, err)
	}
	delete(u.bound, id)
	return nil
}

// filter matches the six bytes of the source address, at −8 from the header of IPv4 or IPv6.
func (u *Upcall) filter(id uint8, index int) *netlink.U32 {
	mac := u.source(id)
	redirect := netlink.NewMirredAction(index)
	redirect.MirredAction = netlink.TCA_INGRESS_REDIR
	return &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: u.index, Parent: netlink.HANDLE_MIN_INGRESS,
			Priority: uint16(id) + 1, Protocol: unix.ETH_P_ALL},
		Sel: &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL, Nkeys: 2, Keys: []netlink.TcU32Key{
			{Mask: 0xffffffff, Val: binary.BigEndian.Uint32(mac[:]), Off: -8},
			{Mask: 0xffff0000, Val: uint32(binary.BigEndian.Uint16(mac[4:])) << 16, Off: -4},
		}},
		Actions: []netlink.Action{redirect},
	}
}

// GiveBack hands a frame received by uplink id (virtio header, Ethernet header, IPv4 or IPv6) to the host's stack as if it had not
// been captured. The Ethernet addresses are overwritten. By which queue does not matter to it.
func (u *Upcall) GiveBack(queue int, id uint8, frame []byte) error {
	if len(frame) < packet.VnetLen+packet.EthernetLen {
		return nil
	}
	u.address(frame, id)
	return u.Queue(queue).Write(frame)
}

// BindLAN is BindUplink for frames given back to a device of the LAN, of which there may be as many as uplinks.
func (u *Upcall) BindLAN(number uint8, index int) error {
	return u.BindUplink(lanNumber(number), index)
}

// GiveBackLAN is GiveBack for a frame that came in by a device of the LAN.
func (u *Upcall) GiveBackLAN(queue int, number uint8, frame []byte) error {
	return u.GiveBack(queue, lanNumber(number), frame)
}

// lanNumber makes the number of a device of the LAN one that is no uplink's.
func lanNumber(number uint8) uint8 { return uplinks.MaxUplinks + number }

// address makes the frame one of our own, with a tag as the last byte of the secret source address.
func (u *Upcall) address(frame []byte, tag uint8) {
	eth, mac := frame[packet.VnetLen:], u.source(tag)
	copy(eth, u.cfg.MAC[:])
	copy(eth[6:], mac[:])
}

// source is the secret source address with a tag.
func (u *Upcall) source(tag uint8) [6]byte {
	mac := u.secret
	mac[5] = tag
	return mac
}

// Tags of frames that the programs of package fastpath hand over here, and get, beside the IDs of uplinks.
const (
	tagCopy = uplinks.MaxUplinks     // | ID of the uplink: the host's stack has the packet too
	tagLAN  = 2 * uplinks.MaxUplinks // out of the LAN, or into it
)

// ToLAN hands a frame, translated and otherwise as GiveBack wants it, to the programs, which send it by a hop of the LAN.
func (u *Upcall) ToLAN(queue int, hop uint8, frame []byte) error {
	if len(frame) < packet.VnetLen+packet.EthernetLen {
		return nil
	}
	u.address(frame, tagLAN)
	frame[packet.VnetLen+5] = hop
	return u.Queue(queue).Write(frame)
}

// Origin is where a frame read from the upcall device comes from.
type Origin uint8

// The origins. Nowhere is for what the host itself sends there.
const (
	Nowhere    Origin = iota
	FromUplink        // received by an uplink, and nobody else has it
	FromLAN           // on its way from the LAN to the TAP
	Copy              // received by an uplink, for a service of the host that has it too
)

// Origin tells by a frame's source address where it comes from, and by which uplink.
func (u *Upcall) Origin(frame []byte) (from Origin, uplink uint8) {
	if len(frame) < packet.VnetLen+packet.EthernetLen {
		return Nowhere, 0
	}
	mac := [6]byte(frame[packet.VnetLen+6:])
	tag := mac[5]
	switch {
	case mac != u.source(tag):
		return Nowhere, 0
	case tag < tagCopy:
		return FromUplink, tag
	case tag < tagLAN:
		return Copy, tag - tagCopy
	case tag == tagLAN:
		return FromLAN, 0
	}
	return Nowhere, 0
}
