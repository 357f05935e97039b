package configs

import (
	_ "embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

//go:embed reference.yaml
var reference string

// Reference is the annotated file with every key and its default.
func Reference() []byte { return []byte(reference) }

// FoundUplink is what a machine says of one of its uplinks.
type FoundUplink struct {
	Interface string
	Gateway   netip.Addr // invalid on point-to-point links
	Addresses []netip.Addr
	Speed     uint64 // of the link in bits per second, 0 unknown
}

const initHead = `# Configuration of tapgw, begun for this machine by "tapgw config init".
# Lines that begin with "#" show defaults or suggestions: remove the "#" to change them.
# Afterwards: tapgw config check && tapgw reload

## uplinks: the ways to the Internet. Only the ones listed here are used; remove the block to use every one found.
`

// Init writes a commented file for exactly this machine: the uplinks found, and everything else as suggestions.
func Init(found []FoundUplink) []byte {
	var b strings.Builder
	b.WriteString(initHead)
	seen := []string{}
	for _, u := range found {
		if _, err := parseInterface(u.Interface); err != nil || u.Interface == "" || slices.Contains(seen, u.Interface) {
			continue
		}
		if len(seen) == 0 {
			b.WriteString("uplinks:\n")
		}
		if seen = append(seen, u.Interface); len(seen) > MaxUplinks {
			break
		}
		u.write(&b, len(seen))
	}
	if len(seen) == 0 {
		b.WriteString("# None was found on this machine now.\n# uplinks:\n#   - interface: eth0\n")
	}
	b.WriteString(suggestions())
	return []byte(b.String())
}

// write adds one element. What DHCP may change stays a comment, or it would be pinned.
func (u FoundUplink) write(b *strings.Builder, number int) {
	name := u.Interface
	if _, err := parseName(name); err != nil {
		name = fmt.Sprintf("uplink%d", number)
	}
	fmt.Fprintf(b, "  - name: %s\n    interface: %s\n", scalarText(name), scalarText(u.Interface))
	if u.Gateway.IsValid() {
		fmt.Fprintf(b, "    # gateway: %s   # found now; follows the routing table as long as it is a comment\n", u.Gateway)
	}
	if len(u.Addresses) > 0 {
		fmt.Fprintf(b, "    # addresses: [%s]   # found now; follows the interface as long as it is a comment\n", joinAddrs(u.Addresses))
	}
	rate, note := "100Mbit", "the link does not tell its speed; write what the ISP delivers"
	if u.Speed >= minRate {
		rate, note = formatRate(u.Speed), "the speed of the link; write what the ISP delivers"
	}
	fmt.Fprintf(b, "    # capacity: {up: %s, down: %s}   # %s\n    # weight: 1\n    # tier: 0\n", rate, rate, note)
}

func joinAddrs(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// scalarText is s as YAML, quoted where needed.
func scalarText(s string) string { return strings.TrimSuffix(string(encode(text(s))), "\n") }

// suggestions are the sections of the reference but the uplinks, with every line turned into a comment.
func suggestions() string {
	var b strings.Builder
	for i, part := range strings.Split(reference, "\n\n## ") {
		if i == 0 || strings.HasPrefix(part, uplinksKey) {
			continue
		}
		b.WriteString("\n## ")
		for j, line := range strings.Split(strings.TrimRight(part, "\n"), "\n") {
			if j > 0 && !strings.HasPrefix(line, "## ") {
				b.WriteString("# ")
			}
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}
