package fastpath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tapgw/nat"
	"tapgw/uplinks"
)

// mapped is all memory of the process that lies in arrays of the kernel.
type mapped struct {
	tables                           [len(uplinks.Families)]nat.Memory
	uplinks, hops, outside, services []byte
}

func (m *mapped) arrays() map[string]*[]byte {
	four, six := &m.tables[uplinks.IPv4], &m.tables[uplinks.IPv6]
	return map[string]*[]byte{
		fastpathMapIndexOut: &four.IndexOut, fastpathMapIndexIn: &four.IndexIn, fastpathMapRecords: &four.Records,
		fastpathMapCountsOut: &four.CountsOut, fastpathMapCountsIn: &four.CountsIn, fastpathMapPortWords: &four.Ports,
		fastpathMapIndexOut6: &six.IndexOut, fastpathMapIndexIn6: &six.IndexIn, fastpathMapRecords6: &six.Records, fastpathMapWide6: &six.Wide,
		fastpathMapCountsOut6: &six.CountsOut, fastpathMapCountsIn6: &six.CountsIn, fastpathMapPortWords6: &six.Ports,
		fastpathMapUplinks: &m.uplinks, fastpathMapHops: &m.hops, fastpathMapOutside: &m.outside, fastpathMapUdpServices: &m.services,
	}
}

func (m *mapped) mapAll(maps map[string]*ebpf.Map) error {
	for name, array := range m.arrays() {
		b, err := mapArray(maps[name])
		if err != nil {
			return fmt.Errorf("map the array %s: %w", name, err)
		}
		*array = b
	}
	return nil
}

func mapArray(m *ebpf.Map) ([]byte, error) {
	size, page := int(m.MaxEntries())*int(m.ValueSize()), os.Getpagesize()
	size = (size + page - 1) / page * page
	return unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func (m *mapped) unmap() error {
	var errs []error
	for _, array := range m.arrays() {
		if *array != nil {
			errs = append(errs, unix.Munmap(*array))
			*array = nil
		}
	}
	return errors.Join(errs...)
}

// Memory is where a nat.Table must keep its sessions of IPv4 for the programs to find them.
func (p *Programs) Memory() *nat.Memory { return p.memory(uplinks.IPv4) }

// MemoryV6 is Memory for IPv6, where Config gave its sessions room.
func (p *Programs) MemoryV6() *nat.Memory { return p.memory(uplinks.IPv6) }

func (p *Programs) memory(f uplinks.Family) *nat.Memory {
	m := p.shared.tables[f]
	return &m
}
