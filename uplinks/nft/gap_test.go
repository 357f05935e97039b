package nft

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestHiddenAllTheTime: while the rules change, nothing that is hidden reaches the host, which would answer with a reset.
func TestHiddenAllTheTime(t *testing.T) {
	for name, change := range map[string]func(*Wanted, int){
		"a LAN":             func(w *Wanted, i int) { w.LAN = i%2 == 0 },
		"an untracked port": func(w *Wanted, i int) { w.Untracked = []int{7}[:i%2] },
		"hosts to turn for": func(w *Wanted, i int) { w.Turned = []Turned{{Name: "lo", Index: 1}}[:i%2] },
		"the guard":         func(w *Wanted, i int) { w.Uplinks[0].Guard = i%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			wanted := w.wanted()
			r := w.apply(wanted)
			server := w.listenUDP(w.host, poolPort)
			sent := w.flood(hostOnISP1, poolPort)
			for i := range 100 {
				change(&wanted, i)
				w.must(r.Apply(wanted))
			}
			t.Logf("%d datagrams were sent", sent())
			n := w.arrived(server)
			if n > 0 {
				t.Errorf("%d of them reached the host", n)
			}
		})
	}
}

// slips is how many datagrams may reach the host in 100 changes of the table that hides them: the kernel runs the new chain before
// the old one, and one that meets each in the other's generation passes both.
const slips = 5

// TestIPv6HiddenAllTheTime: while uplinks are renumbered, what is hidden at an address that stays does not reach the host.
func TestIPv6HiddenAllTheTime(t *testing.T) {
	w := newWorldV6(t)
	wanted := w.wantedV6()
	r := w.apply(wanted)
	server := w.listenUDP(w.host, poolPort)
	sent := w.flood(hostOnISP1V6, poolPort)
	for i := range 100 {
		wanted.Uplinks[1].Addresses = []netip.Addr{netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})}
		wanted.AddressesV6 = wanted.Uplinks[1].Addresses
		w.must(r.Apply(wanted))
	}
	t.Logf("%d datagrams were sent", sent())
	if n := w.arrived(server); n > slips {
		t.Errorf("%d of them reached the host", n)
	}
}

// arrived counts the datagrams that a socket has received.
func (w *world) arrived(server net.PacketConn) (n int) {
	w.t.Helper()
	w.must(server.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
	for buf := make([]byte, 10); ; n++ {
		if _, _, err := server.ReadFrom(buf); err != nil {
			return n
		}
	}
}

// flood sends datagrams to an address of the host until it is told to stop, and says how many.
func (w *world) flood(addr string, port int) (stop func() int) {
	w.t.Helper()
	done, total := make(chan struct{}), make(chan int)
	conn, err := w.isp1.ListenPacket("udp"+w.version, ":0")
	w.must(err)
	to := &net.UDPAddr{IP: net.ParseIP(addr), Port: port}
	go func() {
		defer conn.Close()
		for n := 0; ; n++ {
			select {
			case <-done:
				total <- n
				return
			default:
				_, _ = conn.WriteTo([]byte("flood"), to)
			}
		}
	}()
	return func() int { close(done); return <-total }
}
