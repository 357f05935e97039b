package wire_test

import (
	"context"
	"net"
	"slices"
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/uplinks/wire"
)

// TestServices: listed are sockets that wait on any address, of IPv4 or IPv6, and no clients or services of one address.
func TestServices(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	labtest.Must(t, ns.Do(func() error {
		for _, at := range [][2]string{{"udp4", "0.0.0.0:51820"}, {"udp6", "[::]:53"}, {"udp4", "127.0.0.1:5060"}} {
			c, err := net.ListenPacket(at[0], at[1])
			labtest.Must(t, err)
			defer c.Close()
		}
		client, err := new(net.Dialer).DialContext(context.Background(), "udp4", "127.0.0.1:5060")
		labtest.Must(t, err)
		defer client.Close()
		got, err := wire.Services()
		if !slices.Equal(got, []uint16{53, 51820}) {
			t.Errorf("services %v", got)
		}
		return err
	}))
}
