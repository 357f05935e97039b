package packet

import "testing"

// gre is a GRE packet from 10.0.0.2 to 192.0.2.1 with a payload.
func gre(payload ...byte) []byte {
	b := make([]byte, EthernetLen+minIPv4, EthernetLen+minIPv4+len(payload))
	b[12] = etherIPv4 >> 8
	ip := b[EthernetLen:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, byte(minIPv4+len(payload)), 64, ProtoGRE
	copy(ip[12:], []byte{10, 0, 0, 2, 192, 0, 2, 1})
	return append(b, payload...)
}

// TestCalls: what is told apart by a call identifier has the enhanced header in the form that PPTP has it.
func TestCalls(t *testing.T) {
	for name, c := range map[string]struct {
		payload []byte
		want    Kind
		id      uint16
	}{
		"a call":                {[]byte{0x30, 0x81, 0x88, 0x0b, 0, 4, 1, 2, 0, 0, 0, 1}, Call, 0x102},
		"its acknowledgement":   {[]byte{0x20, 0x81, 0x88, 0x0b, 0, 0, 1, 2}, Call, 0x102},
		"call 0":                {[]byte{0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 0}, Portless, 0},
		"no key":                {[]byte{0x10, 0x81, 0x88, 0x0b, 0, 4, 1, 2}, Portless, 0},
		"with a checksum":       {[]byte{0xb0, 0x81, 0x88, 0x0b, 0, 4, 1, 2}, Portless, 0},
		"with a route":          {[]byte{0x70, 0x81, 0x88, 0x0b, 0, 4, 1, 2}, Portless, 0},
		"of version 0":          {[]byte{0x30, 0x80, 0x88, 0x0b, 0, 4, 1, 2}, Portless, 0},
		"of another protocol":   {[]byte{0x30, 0x81, 0x08, 0x00, 0, 4, 1, 2}, Portless, 0},
		"cut in the identifier": {[]byte{0x30, 0x81, 0x88, 0x0b, 0, 4, 1}, Portless, 0},
		"nothing":               {nil, Portless, 0},
	} {
		var p Packet
		if p.Decode(gre(c.payload...)); p.Kind != c.want || p.DstPort != c.id || p.SrcPort != 0 {
			t.Errorf("%s is %+v", name, p)
		}
	}
}
