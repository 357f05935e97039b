package ftp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
)

// fromDigit is text from its first digit on (RFC 1123 §4.1.2.6: nothing else marks where the numbers begin).
func fromDigit(text []byte) []byte {
	i := bytes.IndexAny(text, "0123456789")
	if i < 0 {
		return nil
	}
	return text[i:]
}

// parseSix reads an IPv4 address and a port as six numbers (RFC 959 §4.1.2); what follows them does not matter.
func parseSix(text []byte) (netip.AddrPort, bool) {
	var v [6]byte
	for i := range v {
		n, rest, ok := number(text, 255)
		if !ok {
			return netip.AddrPort{}, false
		}
		v[i] = byte(n)
		if text = rest; i == len(v)-1 {
			break
		}
		if text, ok = bytes.CutPrefix(text, []byte(",")); !ok {
			return netip.AddrPort{}, false
		}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(v[:4])), uint16(v[4])<<8|uint16(v[5])), v[4]|v[5] != 0
}

// number reads a decimal number of at most five digits up to a limit.
func number(text []byte, limit uint64) (n uint64, rest []byte, ok bool) {
	digits := 0
	for digits < min(len(text), 5) && text[digits] >= '0' && text[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseUint(string(text[:digits]), 10, 32)
	return n, text[digits:], err == nil && n <= limit
}

func formatSix(a netip.AddrPort) []byte {
	ip := a.Addr().As4()
	return fmt.Appendf(nil, "%d,%d,%d,%d,%d,%d", ip[0], ip[1], ip[2], ip[3], a.Port()>>8, a.Port()&255)
}

// parseExtended reads |1|address|port| with any delimiter (RFC 2428 §2).
func parseExtended(text []byte) (netip.AddrPort, bool) {
	if len(text) == 0 {
		return netip.AddrPort{}, false
	}
	fields := bytes.SplitN(text, text[:1], 5)
	if len(fields) != 5 || !isDelimiter(text[0]) || len(bytes.TrimRight(fields[4], " ")) > 0 {
		return netip.AddrPort{}, false
	}
	addr, err := netip.ParseAddr(string(fields[2]))
	port, rest, ok := number(fields[3], 65535)
	if err != nil || !ok || len(rest) > 0 || port == 0 || addr.Zone() != "" {
		return netip.AddrPort{}, false
	}
	family := "1"
	if addr.Is6() {
		family = "2"
	}
	return netip.AddrPortFrom(addr, uint16(port)), string(fields[1]) == family
}

func formatExtended(a netip.AddrPort, delimiter byte) []byte {
	family := 1
	if a.Addr().Is6() {
		family = 2
	}
	return fmt.Appendf(nil, "%[1]c%[2]d%[1]c%[3]s%[1]c%[4]d%[1]c", delimiter, family, a.Addr(), a.Port())
}

// parseExtendedPort reads the (|||port|) of a reply, whose address is the server's (RFC 2428 §3).
func parseExtendedPort(text []byte, server netip.Addr) (netip.AddrPort, bool) {
	_, text, ok := bytes.Cut(text, []byte("("))
	if !ok || len(text) < 4 || !isDelimiter(text[0]) || text[1] != text[0] || text[2] != text[0] {
		return netip.AddrPort{}, false
	}
	port, rest, ok := number(text[3:], 65535)
	if !ok || port == 0 || len(rest) == 0 || rest[0] != text[0] {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(server, uint16(port)), true
}

// isDelimiter reports whether c may part the fields (RFC 2428 §2): printable, and no part of one.
func isDelimiter(c byte) bool { return c > ' ' && c < 0x7f && (c < '0' || c > '9') }
