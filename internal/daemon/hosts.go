package daemon

import (
	"net/netip"
	"sync"
	"time"

	"tapgw/policy"
	"tapgw/uplinks/rtnl"
)

const (
	hostLife = time.Second // how long what the kernel says of an inside host is believed
	maxHosts = 4096        // that are remembered
)

// hosts asks the kernel where inside hosts are, for rules that ask. It may be used by several goroutines at once.
type hosts struct {
	ask func(netip.Addr) (device string, mac [6]byte, err error)

	mu    sync.Mutex
	known map[netip.Addr]host
}

// host is one of them.
type host struct {
	device string // "" where the kernel knows no way
	mac    policy.MAC
	asked  time.Time
}

func newHosts(k *rtnl.Kernel) *hosts { return &hosts{ask: k.Host, known: make(map[netip.Addr]host)} }

// find returns what the kernel says of a host now, or said a moment ago.
func (h *hosts) find(addr netip.Addr, now time.Time) host {
	h.mu.Lock()
	found, known := h.known[addr]
	h.mu.Unlock()
	if known && now.Sub(found.asked) < hostLife {
		return found
	}
	device, mac, err := h.ask(addr)
	if err != nil {
		device = ""
	}
	found = host{device, mac, now}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxHosts {
		clear(h.known)
	}
	h.known[addr] = found
	return found
}

// interfaceOf is the device that the inside host of a session is behind.
func (h *hosts) interfaceOf(s policy.Session) string {
	if s.Own {
		return ""
	}
	return h.find(s.Inside, time.Now()).device
}

// macOf is the hardware address of the inside host of a session.
func (h *hosts) macOf(s policy.Session) (mac policy.MAC, ok bool) {
	if s.Own {
		return mac, false
	}
	mac = h.find(s.Inside, time.Now()).mac
	return mac, mac != policy.MAC{}
}
