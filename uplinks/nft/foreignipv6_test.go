package nft

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
)

// expectOf compares what is bypassed of a family.
func (h *foreignHost) expectOf(of family, want ...string) {
	h.t.Helper()
	bypassed := h.foreign.Bypassed
	if of.proto == unix.NFPROTO_IPV6 {
		bypassed = h.foreign.BypassedV6
	}
	var got []string
	h.do(func() (err error) {
		got, err = bypassed(h.tap, []int{h.lan})
		return err
	})
	if !slices.Equal(got, want) {
		h.t.Errorf("bypassed of %s:\n %s\nwant:\n %s", of.name, strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// TestBypassedOfEachFamily: rules count for the packets that they see.
func TestBypassedOfEachFamily(t *testing.T) {
	forward, post := nftables.ChainHookForward, nftables.ChainHookPostrouting
	only := func(of family) []expr.Any { return join(of.routed(), drop()) }
	atLAN := func(of family) testChain {
		return testChain{id: "netdev n " + of.name, hook: nftables.ChainHookIngress, device: "lan0", rules: rules(join(of.packets(), drop()))}
	}
	letThrough := rules(join(ofIPv6.routed(), from("lan0"), to("tapgw0"), accept()), join(ofIPv6.routed(), from("tapgw0"), to("lan0"), accept()))
	for name, c := range map[string]struct {
		chain  testChain
		v4, v6 bool
	}{
		"forward rule of both":      {testChain{id: "inet f forward", hook: forward, rules: rules(drop())}, true, true},
		"forward rule of IPv4":      {testChain{id: "ip f forward", hook: forward, rules: rules(drop())}, true, false},
		"forward rule of IPv6":      {testChain{id: "ip6 f forward", hook: forward, rules: rules(drop())}, false, true},
		"masquerade of IPv6":        {testChain{id: "ip6 f post", hook: post, kind: "nat", rules: rules(masquerade())}, false, true},
		"masquerade of an uplink":   {testChain{id: "ip6 f post", hook: post, kind: "nat", rules: rules(join(to("wan0"), masquerade()))}, false, false},
		"drop of IPv4 in both":      {testChain{id: "inet f forward", hook: forward, rules: rules(only(ofIPv4))}, true, false},
		"drop of IPv6 in both":      {testChain{id: "inet f forward", hook: forward, rules: rules(only(ofIPv6))}, false, true},
		"IPv4 at a device":          {atLAN(ofIPv4), true, false},
		"IPv6 at a device":          {atLAN(ofIPv6), false, true},
		"the host's own":            {testChain{id: "ip6 f input", hook: nftables.ChainHookInput, drops: true}, false, false},
		"accepted of IPv6 for sure": {testChain{id: "ip6 f forward", hook: forward, drops: true, rules: append(letThrough, count(), drop())}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newForeignHost(t)
			h.add(c.chain)
			line := "nftables: chain " + c.chain.id + has
			for of, acts := range map[*family]bool{&ofIPv4: c.v4, &ofIPv6: c.v6} {
				if acts {
					h.expectOf(*of, line)
				} else {
					h.expectOf(*of)
				}
			}
		})
	}
	h := newForeignHost(t)
	h.add(testChain{id: "ip6 f forward", hook: forward, drops: true})
	h.expectOf(ofIPv6, "nftables: chain ip6 f forward drops by default")
	h.expectOf(ofIPv4)
}

func TestBypassedIPsecOfIPv6(t *testing.T) {
	h := newForeignHost(t)
	_, from, err := net.ParseCIDR("2001:db8::/32")
	labtest.Must(t, err)
	_, to, err := net.ParseCIDR("2001:db8:1::/48")
	labtest.Must(t, err)
	h.do(func() error {
		return netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: from, Dst: to, Dir: netlink.XFRM_DIR_FWD, Action: netlink.XFRM_POLICY_BLOCK})
	})
	h.expectOf(ofIPv4)
	h.expectOf(ofIPv6, "IPsec: policies for forwarded packets: 1")
}

// TestPastChainsOfIPv6 count where there are sessions of it.
func TestPastChainsOfIPv6(t *testing.T) {
	h := newForeignHost(t)
	h.add(testChain{id: "netdev n six", hook: nftables.ChainHookIngress, device: "wan0", rules: rules(join(ofIPv6.packets(), count()))})
	h.expectPast(Datapath{})
	h.expectPast(Datapath{IPv6: true}, "nftables: chain netdev n six at the ingress of wan0")
}

// TestBypassedLeavesOutOursOfIPv6: all our tables, while we live and afterwards.
func TestBypassedLeavesOutOursOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.wantedV6())
	h := &foreignHost{t: t, ns: w.host, foreign: NewForeign()}
	defer h.foreign.Close()
	h.tap, h.lan = h.index("tapgw0"), h.index("lan0")
	h.expectOf(ofIPv6)
	w.must(r.socket.close())
	h.expectOf(ofIPv6)
}
