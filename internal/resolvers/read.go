// Package resolvers finds out which resolvers a host was told of on each of its links: by what DHCP clients and other managers of
// networks leave in plain files. It changes nothing, and does not need any of them.
package resolvers

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tapgw/internal/tail"
)

// maxFile bounds what is read of one file, bytes: of a longer one the end, where the newest lease is.
const maxFile = 256 << 10

// every is how long what was read counts as known.
const every = time.Second

// Reader reads the files again when they may have changed. It is not safe for concurrent use.
type Reader struct {
	root    string // of the files, "/" but in tests
	foreign bool   // the files are about links of another network namespace
	read    time.Time
	links   map[int]string
	known   map[int][]netip.Addr
}

// New returns a reader of this host's files.
func New() *Reader { return &Reader{root: "/", foreign: inAnotherNamespace()} }

// inAnotherNamespace reports whether the first process of the system sees other links than this one, so that numbers of links in
// its files are not ours. Where that cannot be told they are taken for ours.
func inAnotherNamespace() bool {
	ours, err := os.Readlink("/proc/self/ns/net")
	first, other := os.Readlink("/proc/1/ns/net")
	return err == nil && other == nil && ours != first
}

// Read returns the resolvers of links (names by index) that are known, at most about a second old.
func (r *Reader) Read(links map[int]string, now time.Time) map[int][]netip.Addr {
	if r.known == nil || now.Sub(r.read) >= every || now.Before(r.read) || !maps.Equal(links, r.links) {
		r.read, r.links, r.known = now, links, r.look(links)
	}
	return r.known
}

// look asks whoever knows best first: what manages a link now, then what leases say.
func (r *Reader) look(links map[int]string) map[int][]netip.Addr {
	known := make(map[int][]netip.Addr)
	leases := r.leases()
	for index, name := range links {
		for _, find := range []func() []netip.Addr{
			func() []netip.Addr { return r.numbered("run/systemd/netif/links", "DNS", index) },
			func() []netip.Addr { return r.numbered("run/systemd/resolve/netif", "SERVERS", index) },
			func() []netip.Addr { return r.numbered("run/systemd/netif/leases", "DNS", index) },
			func() []netip.Addr { return r.resolvconf(name) },
			func() []netip.Addr { return leases[name] },
		} {
			if list := find(); len(list) > 0 {
				known[index] = list
				break
			}
		}
	}
	return known
}

// numbered reads the file of a link in a folder of systemd's.
func (r *Reader) numbered(folder, key string, index int) []netip.Addr {
	if r.foreign {
		return nil
	}
	return parseKeys(r.text(folder, strconv.Itoa(index)), key)
}

// resolvconf reads what programs told resolvconf or openresolv of an interface: files as eth0.dhclient and eth0.
func (r *Reader) resolvconf(name string) (list found) {
	for _, folder := range []string{"run/resolvconf/interface", "run/resolvconf/interfaces"} {
		entries, _ := os.ReadDir(filepath.Join(r.root, folder)) // there is none on most hosts
		for _, e := range entries {
			if e.Name() != name && !strings.HasPrefix(e.Name(), name+".") {
				continue
			}
			for _, a := range parseResolvConf(r.text(folder, e.Name())) {
				list.add(a.String())
			}
		}
	}
	return list
}

// leases reads those of dhclient, the newest file last.
func (r *Reader) leases() map[string][]netip.Addr {
	byName := make(map[string][]netip.Addr)
	var files []string
	for _, pattern := range []string{"var/lib/dhcp/dhclient*.leases", "var/lib/dhclient/dhclient*.leases", "var/lib/NetworkManager/dhclient*.lease"} {
		matches, _ := filepath.Glob(filepath.Join(r.root, pattern)) // the patterns are sound
		files = append(files, matches...)
	}
	slices.SortStableFunc(files, func(a, b string) int { return changed(a).Compare(changed(b)) })
	for _, file := range files {
		maps.Copy(byName, parseLeases(end(file)))
	}
	return byName
}

func changed(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (r *Reader) text(folder, name string) string { return end(filepath.Join(r.root, folder, name)) }

func end(file string) string { return string(tail.Of(file, maxFile)) }
