package lannames

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// known hands on a name that is one: at most 63 letters, digits, hyphens and underscores between dots, as others could be taken for
// something else where they are shown.
func known(address, name string, found func(netip.Addr, string)) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || !isName(name) {
		return
	}
	found(a.Unmap(), name)
}

const (
	maxName  = 253
	maxLabel = 63
)

func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	fits := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || strings.TrimFunc(label, fits) != "" || label[0] == '-' {
			return false
		}
	}
	_, err := netip.ParseAddr(s)
	return err != nil
}

// parseHosts reads /etc/hosts: the first name of an address is the one that counts.
func parseHosts(data []byte, _ time.Time, found func(netip.Addr, string)) {
	seen := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 2 && !seen[f[0]] {
			seen[f[0]] = true
			known(f[0], f[1], found)
		}
	}
}

// parseDnsmasq reads lines of an end, a hardware address or a number, an address, a name or "*", and more. An end of 0 is none.
func parseDnsmasq(data []byte, now time.Time, found func(netip.Addr, string)) {
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		end, err := strconv.ParseInt(f[0], 10, 64)
		if err == nil && (end == 0 || end > now.Unix()) {
			known(f[2], f[3], found)
		}
	}
}

// parseISC reads blocks of dhcpd.leases(5). Of the same address the last one counts, and names nobody any more where it is not active.
func parseISC(data []byte, _ time.Time, found func(netip.Addr, string)) {
	type lease struct {
		name   string
		active bool
	}
	leases := make(map[string]lease)
	address, one := "", lease{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		switch f := strings.Fields(line); {
		case len(f) == 3 && f[0] == "lease" && f[2] == "{":
			address, one = f[1], lease{}
		case line == "binding state active":
			one.active = true
		case len(f) == 2 && f[0] == "client-hostname":
			one.name = strings.Trim(f[1], `"`)
		case line == "}" && address != "":
			leases[address] = one
			address = ""
		}
	}
	for address, one := range leases {
		if one.active {
			known(address, one.name, found)
		}
	}
}
