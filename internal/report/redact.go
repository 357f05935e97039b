package report

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Redactor replaces addresses and names by others: the same by the same within one report, and what lies in one subnet by what
// lies in one subnet. Nobody can tell what was replaced, as the key is forgotten.
type Redactor struct {
	key       []byte
	host      string // the name of this host
	addresses map[netip.Addr]netip.Addr
	names     map[string]string
}

// NewRedactor returns one for a report about the host of that name.
func NewRedactor(host string) *Redactor {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return &Redactor{key: key, host: host, addresses: map[netip.Addr]netip.Addr{}, names: map[string]string{}}
}

var (
	// What comes before an address may be a letter: in JSON the beginning of a line is \n.
	hardware = regexp.MustCompile(`[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b`)
	// Names of devices that systemd makes of hardware addresses, as of phones and sticks.
	device = regexp.MustCompile(`\b(en|wl|ww)x([0-9a-f]{12})\b`)
	ipv4   = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}\b)?`)
	ipv6   = regexp.MustCompile(`[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:/\d{1,3}\b)?`)
	domain = regexp.MustCompile(`(?i)\b(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z][a-z0-9-]*[a-z0-9]\b`)
	// What rules of nftables compare with, in the listing that a report has.
	raw = regexp.MustCompile(`("(?:Data|Key|KeyEnd|Val|Mask|Xor|FromData|ToData)":)"[A-Za-z0-9+/=]*"`)
	// Elements of its sets there.
	element = regexp.MustCompile(`\b(key|end|value) [0-9a-f]{8,}\b`)
)

// Redact replaces all of that in a text.
func (r *Redactor) Redact(text []byte) []byte {
	s := raw.ReplaceAllString(string(text), `$1"`+removed+`"`)
	s = element.ReplaceAllString(s, `$1 `+removed)
	s = device.ReplaceAllStringFunc(s, r.device)
	s = hardware.ReplaceAllStringFunc(s, r.hardware)
	s = ipv6.ReplaceAllStringFunc(s, r.subnet)
	s = ipv4.ReplaceAllStringFunc(s, r.subnet)
	s = domain.ReplaceAllStringFunc(s, r.domain)
	if r.host != "" && r.host != "localhost" {
		own := regexp.MustCompile(`\b` + regexp.QuoteMeta(r.host) + `\b`)
		s = own.ReplaceAllString(s, "this-host")
	}
	return []byte(s)
}

// hardware keeps the maker of a network card, and replaces its number.
func (r *Redactor) hardware(s string) string {
	mac, err := net.ParseMAC(s)
	if err != nil || mac.String() == "00:00:00:00:00:00" || mac.String() == "ff:ff:ff:ff:ff:ff" {
		return s
	}
	copy(mac[3:], r.sum(mac))
	return mac.String()
}

// device replaces the hardware address in the name of a device as it is replaced elsewhere.
func (r *Redactor) device(s string) string {
	name := device.FindStringSubmatch(s)
	mac, _ := hex.DecodeString(name[2]) // it is nothing else
	return name[1] + "x" + strings.ReplaceAll(r.hardware(net.HardwareAddr(mac).String()), ":", "")
}

// subnet replaces an address with or without the length of its prefix, and keeps the zeroes behind the prefix.
func (r *Redactor) subnet(s string) string {
	text, length, prefixed := strings.Cut(s, "/")
	end := strings.TrimRight(text, ":.")
	if strings.HasSuffix(text, "::") {
		end = text
	}
	a, err := netip.ParseAddr(end)
	if err != nil {
		return s
	}
	other := r.address(a)
	if bits, err := strconv.Atoi(length); prefixed && err == nil {
		if p, err := a.Prefix(bits); err == nil && p.Addr() == a {
			p, _ = other.Prefix(bits)
			other = p.Addr()
		}
	}
	return other.String() + s[len(end):]
}

// known are the beginnings that say what kind of address one is, and mean nobody: they stay.
var known = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/64"),
}

// nobodys are addresses that say nothing of anybody: they stay as they are, those that tapgw gives its device among them.
var nobodys = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"), netip.MustParsePrefix("::/127"), netip.MustParsePrefix("ff00::/8"),
}

// publicBits is how many bits of other addresses stay.
const publicBits = 8

// address replaces an address bit by bit, each depending on those before it: two addresses have afterwards as many bits in
// common as before. The first bit always changes, so that no address is by chance what it was.
func (r *Redactor) address(a netip.Addr) netip.Addr {
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(nobodys, has) {
		return a
	}
	if other, ok := r.addresses[a]; ok {
		return other
	}
	keep := publicBits
	if i := slices.IndexFunc(known, has); i >= 0 {
		keep = known[i].Bits()
	}
	b := a.AsSlice()
	b[keep/8] ^= 0x80 >> (keep % 8)
	for bit := keep + 1; bit < a.BitLen(); bit++ {
		p, _ := a.Prefix(bit)
		b[bit/8] ^= r.sum([]byte(p.String()))[0] & (0x80 >> (bit % 8))
	}
	other, _ := netip.AddrFromSlice(b)
	r.addresses[a] = other
	return other
}

func (r *Redactor) sum(of []byte) []byte {
	h := hmac.New(sha256.New, r.key)
	h.Write(of)
	return h.Sum(nil)
}

// files are endings that make a word the name of a file, and none of a site.
var files = []string{"yaml", "sock", "json", "jsonl", "conf", "service", "txt", "go", "d"}

// settings are how the names of sysctls begin.
var settings = regexp.MustCompile(`^net\.(?:ipv4|ipv6|core|netfilter)\b`)

// domain replaces names of sites and hosts.
func (r *Redactor) domain(s string) string {
	s = strings.ToLower(s)
	last := s[strings.LastIndexByte(s, '.')+1:]
	if slices.Contains(files, last) || settings.MatchString(s) {
		return s
	}
	if r.names[s] == "" {
		r.names[s] = fmt.Sprintf("name%d.example", len(r.names)+1)
	}
	return r.names[s]
}
