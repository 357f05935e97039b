package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// SetAddresses tells the kernel which outside addresses of a family an uplink has, and where their ports are: without an array Go gets
// all packets to an address, and judges. Packets to other addresses, and to those beyond MaxAddresses, are the host's.
func (p *Programs) SetAddresses(id uint8, f uplinks.Family, list []nat.PortArrays) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error { return p.setAddresses(id, f, list) })
}

// AddAddresses has Go judge all packets to further outside addresses of an uplink, until SetAddresses says where their ports
// are.
func (p *Programs) AddAddresses(id uint8, f uplinks.Family, outside []packet.Addr) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error {
		list := slices.Clone(p.sides[f][id].addresses)
		for _, addr := range outside {
			if !slices.ContainsFunc(list, func(a nat.PortArrays) bool { return a.Outside == addr }) {
				list = append(list, nat.PortArrays{Outside: addr, TCP: -1, UDP: -1})
			}
		}
		return p.setAddresses(id, f, list)
	})
}

func (p *Programs) setAddresses(id uint8, f uplinks.Family, list []nat.PortArrays) error {
	s := &p.sides[f][id]
	if slices.Equal(s.addresses, list) {
		return nil
	}
	s.addresses = nil // not all known until the end
	w := &ofFamily[addressWords](p.shared.outside, f, uplinks.MaxUplinks)[id]
	if err := p.setOwn(id, f, list); err != nil {
		return err
	}
	list = list[:min(len(list), MaxAddresses)]
	for i, a := range list {
		w.list[i].tcp.Store(uint32(a.TCP)) // −1 is NO_PORTS, −2 WHOLE_ADDRESS
		w.list[i].udp.Store(uint32(a.UDP))
		w.list[i].addr.store(a.Outside)
	}
	w.count.Store(uint32(len(list)))
	s.addresses = slices.Clone(list)
	return nil
}

// setOwn has packets with these sources leave by the uplink as they are, and none with those it had before.
func (p *Programs) setOwn(id uint8, f uplinks.Family, list []nat.PortArrays) error {
	own, s := p.maps[fastpathMapOwn], &p.sides[f][id]
	for _, a := range s.own {
		if err := own.Delete(a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("fastpath: forget an address of uplink %d: %w", id, err)
		}
	}
	s.own = nil
	if err := p.noteOwn(id, f, list); err != nil {
		return err
	}
	for other := range p.sides[f] { // what was of both is theirs alone now
		if err := p.noteOwn(uint8(other), f, p.sides[f][other].addresses); err != nil {
			return err
		}
	}
	return nil
}

// noteOwn notes those addresses of an uplink that no other one had first.
func (p *Programs) noteOwn(id uint8, f uplinks.Family, list []nat.PortArrays) error {
	for _, a := range list {
		err := p.maps[fastpathMapOwn].Update(a.Outside, uint32(id), ebpf.UpdateNoExist)
		if errors.Is(err, ebpf.ErrKeyExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fastpath: note an address of uplink %d: %w", id, err)
		}
		s := &p.sides[f][id]
		s.own = append(s.own, a.Outside)
	}
	return nil
}

// SetPrefixes has Go judge all packets to addresses in these prefixes of IPv6, but those that SetAddresses or AddAddresses speaks
// of, and neighbour discovery.
func (p *Programs) SetPrefixes(list []netip.Prefix) error {
	return p.whileOpen(func() error {
		have := p.maps[fastpathMapPrefixes]
		for _, prefix := range p.prefixes {
			if !slices.Contains(list, prefix) {
				if err := have.Delete(prefixWords(prefix)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					return fmt.Errorf("fastpath: forget the prefix %v: %w", prefix, err)
				}
			}
		}
		for _, prefix := range list {
			if slices.Contains(p.prefixes, prefix) {
				continue
			}
			if err := have.Put(prefixWords(prefix), uint8(1)); err != nil {
				return fmt.Errorf("fastpath: note the prefix %v: %w", prefix, err)
			}
		}
		p.prefixes = slices.Clone(list)
		return nil
	})
}

func prefixWords(p netip.Prefix) fastpathPrefix {
	words, _ := nextHop(uplinks.IPv6, p.Masked().Addr())
	return fastpathPrefix{Bits: uint32(p.Bits()), Addr: words}
}
