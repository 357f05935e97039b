package wire_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/uplinks/wire"
)

func TestHeldBySocket(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	lo := netip.MustParseAddr("127.0.0.1")
	labtest.Must(t, ns.Do(func() error {
		var lc net.ListenConfig
		tcp, err := lc.Listen(context.Background(), "tcp4", "0.0.0.0:2000")
		labtest.Must(t, err)
		udp, err := lc.ListenPacket(context.Background(), "udp4", "127.0.0.1:3000")
		labtest.Must(t, err)
		for _, c := range []struct {
			proto uint8
			addr  netip.Addr
			port  uint16
			held  bool
		}{
			{6, lo, 2000, true}, {17, lo, 2000, false}, {17, lo, 3000, true}, {6, lo, 3000, false},
			{17, netip.MustParseAddr("127.0.0.2"), 3000, false}, {6, netip.MustParseAddr("192.0.2.1"), 2000, false},
		} {
			if got := wire.HeldBySocket(c.proto, c.addr, c.port); got != c.held {
				t.Errorf("%+v: %t", c, got)
			}
		}
		var cache wire.HeldCache
		now := time.Unix(1000, 0)
		held := func(after time.Duration) bool { return cache.Held(17, lo, 3000, now.Add(after)) }
		if !held(0) {
			t.Error("cache: free")
		}
		_ = udp.Close()
		if !held(time.Second / 2) {
			t.Error("cache: not repeated")
		}
		if held(time.Second) {
			t.Error("cache: stale")
		}
		return tcp.Close()
	}))
}

// TestHeldInBothFamilies: a socket of IPv6 on all addresses holds the port of IPv4 too, unless it says otherwise.
func TestHeldInBothFamilies(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	labtest.Must(t, ns.Do(func() error {
		var lc net.ListenConfig
		for _, at := range [][2]string{{"tcp", "[::]:2000"}, {"tcp6", "[::]:2001"}, {"tcp4", "0.0.0.0:2002"}, {"tcp6", "[::1]:2003"}} {
			l, err := lc.Listen(context.Background(), at[0], at[1])
			labtest.Must(t, err)
			defer l.Close()
		}
		dual, err := lc.ListenPacket(context.Background(), "udp", "[::]:3000")
		labtest.Must(t, err)
		defer dual.Close()
		for _, c := range []struct {
			proto    uint8
			port     uint16
			in4, in6 bool
		}{{6, 2000, true, true}, {6, 2001, false, true}, {6, 2002, true, false}, {6, 2003, false, true}, {6, 2004, false, false}, {17, 3000, true, true}, {17, 2000, false, false}} {
			var cache wire.HeldCache
			for addr, held := range map[netip.Addr]bool{v4: c.in4, v6: c.in6} {
				if got := cache.Held(c.proto, addr, c.port, time.Unix(1000, 0)); got != held {
					t.Errorf("protocol %d, port %d of %s: %t", c.proto, c.port, addr, got)
				}
			}
		}
		if wire.HeldBySocket(6, netip.MustParseAddr("2001:db8::1"), 2000) {
			t.Error("a port of an address that is nobody's is held")
		}
		return nil
	}))
}

func TestGiveBackMAC(t *testing.T) {
	seen := map[[6]byte]bool{}
	for seed := range uint64(4) {
		for id := range 256 {
			mac := wire.GiveBackMAC(seed, uint8(id))
			if mac[0]&3 != 2 {
				t.Fatalf("% x is not local and unicast", mac)
			}
			if seen[mac] {
				t.Fatalf("% x twice", mac)
			}
			seen[mac] = true
		}
	}
}
