package nft

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestMergeKeepsThePorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ranges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) PortRange {
			return PortRange{rapid.Uint16().Draw(t, "first"), rapid.Uint16().Draw(t, "last")}
		}), 0, 8).Draw(t, "ranges")
		merged := merge(ranges)
		for i := 1; i < len(merged); i++ {
			if int(merged[i].First) <= int(merged[i-1].Last)+1 {
				t.Fatalf("%v: neighbours touch", merged)
			}
		}
		gap, ok := largestGap(merged)
		for _, p := range interesting(ranges) {
			if contains(ranges, p) != contains(merged, p) {
				t.Fatalf("port %d: in %v %t, in %v %t", p, ranges, contains(ranges, p), merged, contains(merged, p))
			}
			if ok && contains([]PortRange{gap}, p) && (contains(ranges, p) || p < firstPort) {
				t.Fatalf("port %d is not free: gap %v, ranges %v", p, gap, ranges)
			}
			if !ok && p >= firstPort && !contains(ranges, p) {
				t.Fatalf("port %d is free, but no gap was found in %v", p, ranges)
			}
		}
	})
}

// interesting are the ports beside every boundary.
func interesting(ranges []PortRange) []uint16 {
	ports := []uint16{0, firstPort - 1, firstPort, 65535}
	for _, r := range ranges {
		ports = append(ports, r.First-1, r.First, r.First+1, r.Last-1, r.Last, r.Last+1)
	}
	return ports
}

func contains(ranges []PortRange, p uint16) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= p && p <= r.Last })
}

func TestLargestGap(t *testing.T) {
	for _, c := range []struct {
		ports []PortRange
		want  PortRange
		ok    bool
	}{
		{nil, PortRange{1024, 65535}, true},
		{pool, PortRange{32768, 60999}, true},
		{[]PortRange{{1, 60000}}, PortRange{60001, 65535}, true},
		{[]PortRange{{1024, 65534}}, PortRange{65535, 65535}, true},
		{[]PortRange{{1024, 65535}}, PortRange{}, false},
	} {
		if got, ok := largestGap(c.ports); got != c.want || ok != c.ok {
			t.Errorf("%v: got %v %t, want %v %t", c.ports, got, ok, c.want, c.ok)
		}
	}
}

// TestComparedAddressesNeedNoSet: where rules compare the addresses of uplinks, nothing looks them up.
func TestComparedAddressesNeedNoSet(t *testing.T) {
	for name, n := range uplinkCounts {
		p := newPlan(crowded(Wanted{TAP: "tapgw0", TAPIndex: 1, Ports: pool, Turned: []Turned{{Name: "lan0", Index: 2}}}, n))
		for _, want := range []string{setOutside, ofIPv6.of(setOutside)} {
			made := slices.ContainsFunc(p.part(ownedTurn).sets, func(s set) bool { return s.name == want })
			if made != (n > fewKeys) {
				t.Errorf("%s: the set %s is made: %t", name, want, made)
			}
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	masquerade := chain{table: fallback, name: "postrouting", needs: "nft_masq"}
	ingress := chain{table: ownedNetdev, name: "ingress_3", device: "wan0", needs: "netdev"}
	for _, c := range []struct {
		m     message
		errno unix.Errno
		first bool
		want  error
		text  string
	}{
		{masquerade.addRule(nil), unix.ENOENT, false, ErrNotSupported, "nft_masq"},
		{masquerade.add(), unix.EOPNOTSUPP, false, ErrNotSupported, "table ip tapgw_fallback: chain postrouting"},
		{ownedInet.add(), unix.EOPNOTSUPP, false, ErrNotSupported, "Linux 5.12"},
		{generation(), unix.EINVAL, true, ErrNotSupported, "nf_tables"},
		{ingress.add(), unix.ENOENT, false, ErrNoDevice, "wan0"},
		{ownedInet.remove(), unix.EPERM, false, ErrOwned, "table inet tapgw"},
		{batchMarker(unix.NFNL_MSG_BATCH_BEGIN), unix.EPERM, true, ErrNoPermission, "CAP_NET_ADMIN"},
	} {
		index := 1
		if c.first {
			index = 0
		}
		err := failure([]message{c.m, c.m}, index, c.errno)
		if !errors.Is(err, c.want) || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: got %q, want %q with %q", c.errno, err, c.want, c.text)
		}
	}
}
