package tftp

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"tapgw/helper"
)

var session = helper.Session{
	Proto: protoUDP, Inside: netip.MustParseAddrPort("192.168.1.10:40000"),
	Outside: netip.MustParseAddrPort("198.51.100.1:50000"), Remote: netip.MustParseAddrPort("203.0.113.69:69"),
}

// rewrite gives one payload to a new conversation, and returns what went on and what was announced.
func rewrite(d helper.Direction, payload []byte) (out []byte, announced []helper.Related) {
	c := Helper{}.Begin(session, func(r helper.Related) (netip.AddrPort, bool) {
		announced = append(announced, r)
		return session.Outside, true
	})
	return c.Rewrite(d, payload), announced
}

func TestRequestsAreAnsweredFromAnyPort(t *testing.T) {
	want := []helper.Related{{Proto: protoUDP, Inside: session.Inside, Remote: netip.MustParseAddrPort("203.0.113.69:0")}}
	for _, in := range []string{"\x00\x01file\x00octet\x00", "\x00\x02file\x00netascii\x00"} {
		if out, got := rewrite(helper.Outbound, []byte(in)); string(out) != in || !slices.Equal(got, want) {
			t.Errorf("%q became %q and announced %v", in, out, got)
		}
	}
	for _, in := range []string{"", "\x00", "\x00\x01", "\x00\x03\x00\x01data", "\x00\x04\x00\x01", "\x00\x05\x00\x01no\x00", "\x01\x01file"} {
		if out, got := rewrite(helper.Outbound, []byte(in)); string(out) != in || len(got) > 0 {
			t.Errorf("%q became %q and announced %v", in, out, got)
		}
	}
	if _, got := rewrite(helper.Inbound, []byte("\x00\x01file\x00octet\x00")); len(got) > 0 {
		t.Errorf("a server's request announced %v", got)
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte("\x00\x01file\x00octet\x00"), true)
	f.Add([]byte("\x00\x03\x00\x01data"), false)
	f.Fuzz(func(t *testing.T, in []byte, outbound bool) {
		d := helper.Inbound
		if outbound {
			d = helper.Outbound
		}
		out, announced := rewrite(d, in)
		if !bytes.Equal(out, in) || len(announced) > 1 || len(announced) == 1 && announced[0].Inside != session.Inside {
			t.Errorf("%q became %q and announced %v", in, out, announced)
		}
	})
}
