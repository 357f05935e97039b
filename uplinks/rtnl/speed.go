package rtnl

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// speeds asks drivers for the link speed by ethtool. Answers are kept while carrier and name stay, for some drivers talk
// to their hardware for it.
type speeds struct {
	mu    sync.Mutex
	fd    int
	known map[int]speed
}

type speed struct {
	name    string
	carrier bool
	bits    uint64
}

func newSpeeds() (*speeds, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool requests: %w", err)
	}
	return &speeds{fd: fd, known: make(map[int]speed)}, nil
}

func (s *speeds) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.Close(s.fd)
	s.fd = -1
}

// of returns bits per second, 0 when the driver does not say.
func (s *speeds) of(index int, name string, carrier bool) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.known[index]
	if ok && known.name == name && known.carrier == carrier {
		return known.bits
	}
	if len(s.known) >= maxSpeeds {
		clear(s.known)
	}
	fresh := speed{name: name, carrier: carrier}
	if carrier {
		fresh.bits = s.ask(name)
	}
	s.known[index] = fresh
	return fresh.bits
}

const (
	maxSpeeds      = 4096 // devices come and go; their indexes never repeat
	mask32Limit    = 127  // most words that struct ethtool_link_settings may announce per mask
	settingsHeader = 48   // its size without the masks
	settingsSize   = settingsHeader + 3*4*mask32Limit
	speedOffset    = 4
	wordsOffset    = 15 // s8 link_mode_masks_nwords
	oldSize        = 44 // struct ethtool_cmd
	oldLowOffset   = 12 // u16 speed
	oldHighOffset  = 28 // u16 speed_hi
	unknownSpeed   = 0xffffffff
	megabit        = 1_000_000
)

// ask tries ETHTOOL_GLINKSETTINGS (Linux 4.6), which needs a first request to learn the size of its masks, then the old
// ETHTOOL_GSET.
func (s *speeds) ask(name string) uint64 {
	var data [settingsSize]byte
	binary.NativeEndian.PutUint32(data[:], unix.ETHTOOL_GLINKSETTINGS)
	if s.ioctl(name, data[:]) == nil {
		words := -int8(data[wordsOffset])
		data = [settingsSize]byte{}
		binary.NativeEndian.PutUint32(data[:], unix.ETHTOOL_GLINKSETTINGS)
		data[wordsOffset] = byte(words)
		if words > 0 && s.ioctl(name, data[:]) == nil {
			return inBits(binary.NativeEndian.Uint32(data[speedOffset:]))
		}
	}
	var old [oldSize]byte
	binary.NativeEndian.PutUint32(old[:], unix.ETHTOOL_GSET)
	if s.ioctl(name, old[:]) != nil {
		return 0
	}
	low, high := binary.NativeEndian.Uint16(old[oldLowOffset:]), binary.NativeEndian.Uint16(old[oldHighOffset:])
	return inBits(uint32(high)<<16 | uint32(low))
}

func inBits(megabits uint32) uint64 {
	if megabits == unknownSpeed || megabits == 0xffff {
		return 0
	}
	return uint64(megabits) * megabit
}

// ioctl sends one ethtool request; data is both question and answer.
func (s *speeds) ioctl(name string, data []byte) error {
	if len(name) >= unix.IFNAMSIZ {
		return unix.EINVAL
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte // struct ifreq is larger than its pointer
	}{data: unsafe.Pointer(&data[0])}
	copy(request.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
