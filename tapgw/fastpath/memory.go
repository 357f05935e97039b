package fastpath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tapgw/nat"
)

// mapped is all memory of the process that lies in arrays of the kernel.
type mapped struct {
	nat.Memory
	uplinks, hops, outside, services []byte
}

func (m *mapped) arrays() map[string]*[]byte {
	return map[string]*[]byte{
		fastpathMapIndexOut: &m.IndexOut, fastpathMapIndexIn: &m.IndexIn, fastpathMapRecords: &m.Records,
		fastpathMapCountsOut: &m.CountsOut, fastpathMapCountsIn: &m.CountsIn, fastpathMapPortWords: &m.Ports,
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

// Memory is where a nat.Table must keep its sessions for the programs to find them.
func (p *Programs) Memory() *nat.Memory {
	m := p.shared.Memory
	return &m
}
