// Package lannames finds out how the hosts of the LAN are called: by /etc/hosts, and by the files of DHCP servers on this host. It asks
// nobody, and needs none of them.
package lannames

import (
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"tapgw/internal/tail"
)

// Bounds of what is read, as names in leases are the clients' own.
const (
	maxFile  = 1 << 20 // bytes of one file; of a longer one the end, where the newest leases are
	maxFiles = 16
	maxNames = 4096
	every    = 5 * time.Second // how long what was read counts as known
)

// sources are the files, the least trusted first: what the user has written counts most.
var sources = []struct {
	pattern string
	parse   func([]byte, time.Time, func(netip.Addr, string))
}{
	{"var/lib/dhcp/dhcpd*.leases", parseISC},
	{"var/lib/misc/dnsmasq.leases", parseDnsmasq},
	{"var/lib/dnsmasq/dnsmasq.leases", parseDnsmasq},
	{"var/lib/NetworkManager/dnsmasq-*.leases", parseDnsmasq},
	{"etc/hosts", parseHosts},
}

// Book knows names. It may be used by several goroutines at once.
type Book struct {
	root string // of the files, "/" but in tests

	mu    sync.Mutex
	read  time.Time
	names map[netip.Addr]string
}

// New returns a book of this host's files.
func New() *Book { return &Book{root: "/"} }

// Name is what an address is called, "" where nobody says.
func (b *Book) Name(a netip.Addr, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names == nil || now.Sub(b.read) >= every || now.Before(b.read) {
		b.read, b.names = now, b.look(now)
	}
	return b.names[a]
}

// look reads all files.
func (b *Book) look(now time.Time) map[netip.Addr]string {
	names := make(map[netip.Addr]string)
	for _, s := range sources {
		files, _ := filepath.Glob(filepath.Join(b.root, s.pattern)) // it fails for a wrong pattern alone
		for _, file := range files[:min(len(files), maxFiles)] {
			s.parse(tail.Of(file, maxFile), now, func(a netip.Addr, name string) {
				if _, known := names[a]; known || len(names) < maxNames {
					names[a] = name
				}
			})
		}
	}
	return names
}
