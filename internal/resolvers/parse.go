package resolvers

import (
	"net/netip"
	"slices"
	"strings"
)

// maxFound bounds what is taken of one file.
const maxFound = 16

// found collects addresses, each once.
type found []netip.Addr

func (f *found) add(text string) {
	if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(*f, a) && len(*f) < maxFound {
		*f = append(*f, a.Unmap())
	}
}

// parseKeys reads lines KEY=VALUE … as systemd-networkd keeps them (DNS=, of a link or a lease) and systemd-resolved (SERVERS=), with
// ports and names of servers after the addresses.
func parseKeys(text string, key string) (list found) {
	for line := range strings.Lines(text) {
		values, ok := strings.CutPrefix(strings.TrimSpace(line), key+"=")
		if !ok {
			continue
		}
		for value := range strings.FieldsSeq(values) {
			list.add(plainAddress(value))
		}
	}
	return list
}

// plainAddress is a server without what may follow: 1.2.3.4:53#name, [2001:db8::1]:53%2#name.
func plainAddress(server string) string {
	server, _, _ = strings.Cut(server, "#")
	if inner, ok := strings.CutPrefix(server, "["); ok {
		inner, _, _ = strings.Cut(inner, "]")
		return inner
	}
	if strings.Count(server, ":") == 1 {
		server, _, _ = strings.Cut(server, ":")
	}
	server, _, _ = strings.Cut(server, "%")
	return server
}

// parseResolvConf reads the lines "nameserver ADDRESS" of a file in the format of resolv.conf, as resolvconf keeps one for each
// interface.
func parseResolvConf(text string) (list found) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			list.add(fields[1])
		}
	}
	return list
}

// parseLeases reads the leases of dhclient: of each interface the last one counts.
func parseLeases(text string) map[string][]netip.Addr {
	byName := make(map[string][]netip.Addr)
	var name string
	var list found
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), ";"))
		switch {
		case len(fields) == 0:
		case fields[0] == "lease" || fields[0] == "lease6":
			name, list = "", nil
		case fields[0] == "interface" && len(fields) == 2:
			name = strings.Trim(fields[1], `"`)
		case len(fields) > 2 && fields[0] == "option" && (fields[1] == "domain-name-servers" || fields[1] == "dhcp6.name-servers"):
			for server := range strings.SplitSeq(strings.Join(fields[2:], ""), ",") {
				list.add(server)
			}
		case fields[0] == "}" && name != "" && len(byName) < maxLinks:
			byName[name] = list
		}
	}
	return byName
}

// maxLinks bounds how many interfaces are remembered of one file.
const maxLinks = 256
