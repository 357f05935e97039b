package tapgw

import (
	"net/netip"
	"testing"
)

// wan1Before is an address of uplink 1 that is deprecated, of a prefix that is translated.
var wan1Before = netip.MustParseAddr("2001:db8:100:1::2")

func newRetired(t *testing.T) *prefixes {
	t.Helper()
	w := newPrefixes(t)
	w.ups[0].V6.Addresses = []netip.Addr{wan1V6, wan1Before}
	w.ups[0].V6.Retired = []netip.Addr{wan1Before}
	w.publishV6()
	return w
}

// TestRetiredAddressAnswers: a service of the host answers from the deprecated address that it was spoken to, and nothing else begins there.
func TestRetiredAddressAnswers(t *testing.T) {
	w := newRetired(t)
	w.both.SetServices([]uint16{700}, nil)
	if src, _ := endsOf(w.outV6(udpV6(t, strayV6, 4000, serverV6, 53, "x"), 1)); src != wan1V6 {
		t.Errorf("a new session has %s", src)
	}
	w.expect(w.both.Inbound(udpV6(t, serverV6, 4000, wan1Before, 700, "question"), 1, start), Ignore, NoReason)
	if src, _ := endsOf(w.outV6(udpV6(t, tapV6, 700, serverV6, 4000, "answer"), 1)); src != wan1Before {
		t.Errorf("the answer has %s", src)
	}
}

// TestAddressesInTranslatedPrefixes: what is sent to an uplink's own address is the host's, whatever prefix it lies in.
func TestAddressesInTranslatedPrefixes(t *testing.T) {
	w := newRetired(t)
	w.ups[0].V6.NPTv6 = append(w.ups[0].V6.NPTv6, pairOf("2001:db8:1::/48", "2001:db8:1::/48")) // the provider's, untranslated
	w.publishV6()
	for _, a := range []netip.Addr{wan1V6, wan1Before} {
		if res := w.both.Inbound(udpV6(t, serverV6, 4000, a, 80, "x"), 1, start); res.Verdict != GiveBack {
			t.Errorf("from outside to %s: verdict %d %q", a, res.Verdict, res.Reason)
		}
		if res := w.both.Outbound(udpV6(t, insideV6, 4000, a, 80, "x"), start); res.Verdict != Return {
			t.Errorf("from inside to %s: verdict %d %q", a, res.Verdict, res.Reason)
		}
	}
}
