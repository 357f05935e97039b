package wire_test

import (
	"context"
	"net"
	"slices"
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/uplinks/wire"
)

// TestSockets: services are sockets that wait on any address, of IPv4 or IPv6, and no clients or services of one address.
func TestSockets(t *testing.T) {
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
		web, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:8080")
		labtest.Must(t, err)
		defer web.Close()
		reader, err := wire.OpenSocketReader()
		labtest.Must(t, err)
		defer reader.Close()
		got, err := reader.Read()
		labtest.Must(t, err)
		if !slices.Equal(got.Services, []uint16{53, 51820}) {
			t.Errorf("services %v", got.Services)
		}
		for port, want := range map[uint16][2]bool{53: {false, true}, 5060: {false, true}, 8080: {true, false}, 9: {false, false}} {
			if tcp, udp := got.TCP.Has(port), got.UDP.Has(port); tcp != want[0] || udp != want[1] {
				t.Errorf("port %d is held by TCP: %t, by UDP: %t, want %v", port, tcp, udp, want)
			}
		}
		return nil
	}))
}
