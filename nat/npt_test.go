package nat

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

func prefixPair(t interface{ Fatal(...any) }, inside, outside string) PrefixPair {
	p, err := NewPrefixPair(netip.MustParsePrefix(inside), netip.MustParsePrefix(outside))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func addrOf(s string) packet.Addr { return packet.AddrOf(netip.MustParseAddr(s)) }

// TestRFC6296_S3_4_S3_7_Vectors: the RFC's own example, and others that were calculated by hand, in both directions.
func TestRFC6296_S3_4_S3_7_Vectors(t *testing.T) {
	for _, c := range []struct{ inside, outside, from, to string }{
		{"fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:1::1234", "2001:db8:1:d550::1234"},
		{"fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405::", "2001:db8:1:d54f::"},
		{"fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:2ab0::1", "2001:db8:1::1"}, // a sum of 0xffff is written as 0
		{"fd01:203:405:100::/56", "2001:db8:1:200::/56", "fd01:203:405:1ab::5", "2001:db8:1:2ab:d44f::5"},
		{"fd01:203:405:100::/56", "2001:db8:1:200::/56", "fd01:203:405:1ab:ffff:5::1", "2001:db8:1:2ab:ffff:d454::1"},
		{"fd01:203:405:10::/60", "2001:db8:1:20::/60", "fd01:203:405:1a:2aff:fe00:1:2", "2001:db8:1:2a:3f:fe00:1:2"},
		{"fd01:203:405:1::/64", "2001:db8:1:2::/64", "fd01:203:405:1::1234", "2001:db8:1:2:d54e::1234"},
		{"fd01:203:405:1::/64", "2001:db8:1:2::/64", "fd01:203:405:1:ffff:ffff:ffff:1", "2001:db8:1:2:ffff:ffff:ffff:d54f"},
		{"fd01:203:405:1:2::/80", "2001:db8:1:2:3::/80", "fd01:203:405:1:2::7", "2001:db8:1:2:3:d54d:0:7"},
		{"2001:db8:7::/48", "2001:db8:7::/48", "2001:db8:7:ffff::1", "2001:db8:7:ffff::1"}, // native, nothing to do
	} {
		p := prefixPair(t, c.inside, c.outside)
		if got, why := p.Out(addrOf(c.from)); got != addrOf(c.to) || why != Translated {
			t.Errorf("%s to %s: %s became %s (%d), want %s", c.inside, c.outside, c.from, got.Netip(), why, c.to)
		}
		if got, why := p.In(addrOf(c.to)); got != addrOf(c.from) || why != Translated {
			t.Errorf("%s to %s: %s went back to %s (%d), want %s", c.inside, c.outside, c.to, got.Netip(), why, c.from)
		}
	}
}

// TestRFC6296_S3_1_Lengths: prefixes need not be equally long, nor of whole words; the shorter one is extended by zeros.
func TestRFC6296_S3_1_Lengths(t *testing.T) {
	for _, c := range []struct{ inside, outside, from, to string }{
		{"fd00:1::/48", "2001:db8:a::/56", "fd00:1:0:17::9", "2001:db8:a:17:cf3e::9"},
		{"fd00:1::/48", "2001:db8:a::/56", "fd00:1:0:117::9", ""},
		{"fd00:1::/56", "2001:db8:a::/48", "fd00:1:0:17::9", "2001:db8:a:17:cf3e::9"},
		{"fd00::/10", "2001:db8::/33", "fd00:0:1234:5::9", "2001:db8:1234:cf4c::9"},
		{"fd00:1:2::/47", "2001:db8:a::/47", "fd00:1:3:5::9", "2001:db8:b:cf45::9"},
	} {
		p := prefixPair(t, c.inside, c.outside)
		got, why := p.Out(addrOf(c.from))
		if c.to == "" {
			if why != Foreign {
				t.Errorf("%s to %s: %s became %s", c.inside, c.outside, c.from, got.Netip())
			}
			continue
		}
		if got != addrOf(c.to) {
			t.Errorf("%s to %s: %s became %s (%d), want %s", c.inside, c.outside, c.from, got.Netip(), why, c.to)
		}
	}
	for _, bad := range [][2]string{
		{"10.0.0.0/8", "2001:db8::/48"}, {"fd00::/48", "192.0.2.0/24"}, {"fd00::/113", "2001:db8::/48"}, {"fd00::/48", "ff02::/16"},
		{"fe80::/64", "2001:db8::/64"}, {"::/0", "2001:db8::/48"}, {"fd00::/48", "::/96"}, {"::ffff:10.0.0.0/104", "2001:db8::/48"},
	} {
		if p, err := NewPrefixPair(netip.MustParsePrefix(bad[0]), netip.MustParsePrefix(bad[1])); err == nil {
			t.Errorf("%v: %+v", bad, p)
		}
	}
	if _, err := NewPrefixPair(netip.Prefix{}, netip.MustParsePrefix("fd00::/48")); err == nil {
		t.Error("no prefix at all is taken for one")
	}
}

// TestRFC6296_S4_2_S3_7a_Unmapped: what has no address on the other side, and why.
func TestRFC6296_S4_2_S3_7a_Unmapped(t *testing.T) {
	short, long := prefixPair(t, "fd01:203:405::/48", "2001:db8:1::/48"), prefixPair(t, "fd01:203:405:1::/64", "2001:db8:1:2::/64")
	for _, c := range []struct {
		pair PrefixPair
		addr string
		why  Unmapped
	}{
		{short, "fd01:203:405:ffff::1", NoSubnet},
		{short, "2001:db8:1:ffff::1", NoSubnet},
		{short, "fd01:203:406::1", Foreign},
		{long, "fd01:203:405:1:ffff:ffff:ffff:ffff", NoSubnet},
		{long, "fd01:203:405:1::", NoHost},
		{long, "2001:db8:1:2::", NoHost},
		{long, "2001:db8:1:2:d54e::", NoHost},   // would be that of all zeros inside
		{long, "fd01:203:405:1:2ab1::", NoHost}, // … and this one outside
		{long, "2001:db8:1:3::1", Foreign},
	} {
		way := c.pair.Out
		if a := addrOf(c.addr); a.Hi>>56 == 0x20 {
			way = c.pair.In
		}
		if got, why := way(addrOf(c.addr)); why != c.why || got != (packet.Addr{}) {
			t.Errorf("%s: %s (%d), want %d", c.addr, got.Netip(), why, c.why)
		}
	}
}

// checkPair: an address that has one on the other side goes there and back, stays in the prefix, and adds to no checksum.
func checkPair(t interface{ Fatalf(string, ...any) }, p PrefixPair, a packet.Addr) {
	to, why := p.Out(a)
	if why != Translated {
		if to != (packet.Addr{}) || why == Foreign && p.HasInside(a) {
			t.Fatalf("%s: %s, %d", a.Netip(), to.Netip(), why)
		}
		return
	}
	if back, why := p.In(to); back != a || why != Translated || !p.HasOutside(to) {
		t.Fatalf("%s became %s, which goes back to %s (%d)", a.Netip(), to.Netip(), back.Netip(), why)
	}
	one, other := packet.PseudoHeader(a, packet.Addr{}, 0, 0), packet.PseudoHeader(to, packet.Addr{}, 0, 0)
	if one%0xffff != other%0xffff {
		t.Fatalf("%s became %s, whose sum is %#x instead of %#x", a.Netip(), to.Netip(), other, one)
	}
}

func drawWord(t *rapid.T, what string) uint64 {
	if rapid.IntRange(0, 2).Draw(t, what+" is special") == 0 {
		return rapid.SampledFrom([]uint64{0, 0xffff, 0xfffe, 1}).Draw(t, what)
	}
	return uint64(rapid.Uint16().Draw(t, what))
}

// TestRFC6296_S2_6_ChecksumNeutral: for prefixes of any lengths the translation is one to one, and no checksum changes; nor does a
// packet's in the table's rewriting, byte by byte.
func TestRFC6296_S2_6_ChecksumNeutral(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var host packet.Addr
		for i := range 8 {
			host = withWord(host, i, uint16(drawWord(rt, "word")))
		}
		length := rapid.IntRange(8, longestToAdjust).Draw(rt, "length")
		within := func(first uint64) netip.Prefix {
			a := drawV6(rt, "prefix")
			a.Hi = a.Hi&(1<<56-1) | first<<56
			return netip.PrefixFrom(a.Netip(), length).Masked()
		}
		inside, outside := within(0xfd), within(0x20)
		p, err := NewPrefixPair(inside, outside)
		if err != nil {
			rt.Fatal(err)
		}
		host.Hi = p.inside.Hi | host.Hi&^p.mask.Hi
		host.Lo = p.inside.Lo | host.Lo&^p.mask.Lo
		checkPair(rt, p, host)
		outsideAddr, why := p.Out(host)
		if why != Translated {
			return
		}
		f := drawFlowV6(rt)
		f.src = host
		frame, decoded := f.frame(rt)
		before := append([]byte(nil), frame[decoded.L4:]...)
		RewriteOut(frame, decoded, &Translation{Key: Key{Inside: host}, Outside: outsideAddr, OutsidePort: decoded.SrcPort}, false)
		if string(frame[decoded.L4:]) != string(before) {
			rt.Fatalf("the transport changed: %x, was %x", frame[decoded.L4:], before)
		}
	})
}

func FuzzPrefixPair(f *testing.F) {
	f.Add([]byte{0xfd, 1, 2, 3, 4, 5}, []byte{0x20, 1, 0xd, 0xb8, 0, 1}, 48, 48, addrOf("fd01:203:405:1::1234").Hi, uint64(0x1234))
	f.Add([]byte{0xfd, 1, 2, 3, 4, 5, 0, 1}, []byte{0x20, 1, 0xd, 0xb8, 0, 1, 0, 2}, 64, 60, addrOf("fd01:203:405:1::1234").Hi, uint64(0xffffffffffff0000))
	f.Fuzz(func(t *testing.T, inside, outside []byte, insideLen, outsideLen int, hi, lo uint64) {
		prefix := func(b []byte, n int) netip.Prefix {
			var a [16]byte
			copy(a[:], b)
			return netip.PrefixFrom(netip.AddrFrom16(a), n)
		}
		p, err := NewPrefixPair(prefix(inside, insideLen), prefix(outside, outsideLen))
		if err != nil {
			return
		}
		a := packet.Addr{Hi: hi, Lo: lo}
		checkPair(t, p, a)
		a.Hi, a.Lo = p.inside.Hi|hi&^p.mask.Hi, p.inside.Lo|lo&^p.mask.Lo
		checkPair(t, p, a)
	})
}
