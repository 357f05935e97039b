package lab_test

import (
	"net/netip"
	"slices"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestServerOfNames(t *testing.T) {
	n := labtest.Namespace(t, "n")
	servers, err := lab.StartNames(n, loopback, lab.Zone{
		"www.example": {"edge.test"}, "edge.test": {"192.0.2.1", "192.0.2.2", "2001:db8::1"}, "loop.test": {"loop.test"},
	})
	labtest.Must(t, err)
	defer servers.Close()
	for network, want := range map[string][]netip.Addr{
		"ip4": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, "ip6": {netip.MustParseAddr("2001:db8::1")},
	} {
		got, err := n.Resolve(labtest.Context(t), loopback, network, "www.example")
		slices.SortFunc(got, netip.Addr.Compare)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", network, got, err, want)
		}
	}
	for _, name := range []string{"loop.test", "nobody.test"} {
		if got, err := n.Resolve(labtest.Context(t), loopback, "ip4", name); err == nil {
			t.Errorf("%s is %v", name, got)
		}
	}
}
