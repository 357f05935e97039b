package rtnl

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shakenFor is how long after such an event missing routes are laid to it.
	shakenFor = 3 * time.Second
	maxShaken = 4096

	indexOffset = 4 // in struct ifinfomsg and struct ifaddrmsg
	flagsOffset = 8 // in struct ifinfomsg
	headerSize  = 12
)

// shaken remembers devices whose routes the kernel itself has removed: they were switched off or lost an address.
type shaken struct {
	mu sync.Mutex
	at map[int]time.Time
}

// Shaken reports whether the kernel itself may have removed routes of a device just now, so that nobody else need have.
func (w *Watcher) Shaken(index int) bool {
	w.shaken.mu.Lock()
	defer w.shaken.mu.Unlock()
	at, ok := w.shaken.at[index]
	return ok && time.Since(at) < shakenFor
}

// Shake notes that a device lost an address, which who reads the facts may see before the message comes.
func (w *Watcher) Shake(index int) { w.shaken.add(index) }

// note takes a message about a device or an address.
func (s *shaken) note(m syscall.NetlinkMessage) {
	if index := shakenBy(m); index != 0 {
		s.add(index)
	}
}

func (s *shaken) add(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil || len(s.at) >= maxShaken {
		s.at = make(map[int]time.Time)
	}
	s.at[index] = time.Now()
}

// shakenBy is the device that m takes routes from, 0 for none.
func shakenBy(m syscall.NetlinkMessage) int {
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		if len(m.Data) < headerSize || binary.NativeEndian.Uint32(m.Data[flagsOffset:])&unix.IFF_UP != 0 {
			return 0
		}
	case unix.RTM_DELLINK, unix.RTM_DELADDR:
		if len(m.Data) < indexOffset+4 {
			return 0
		}
	default:
		return 0
	}
	return int(binary.NativeEndian.Uint32(m.Data[indexOffset:]))
}
