package nft

import (
	"net"
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
			sent := w.flood(poolPort)
			for i := range 100 {
				change(&wanted, i)
				w.must(r.Apply(wanted))
			}
			t.Logf("%d datagrams were sent", sent())
			w.must(server.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
			n := 0
			for buf := make([]byte, 10); ; n++ {
				if _, _, err := server.ReadFrom(buf); err != nil {
					break
				}
			}
			if n > 0 {
				t.Errorf("%d of them reached the host", n)
			}
		})
	}
}

// flood sends datagrams to the host's first uplink until it is told to stop, and says how many.
func (w *world) flood(port int) (stop func() int) {
	w.t.Helper()
	done, total := make(chan struct{}), make(chan int)
	conn, err := w.isp1.ListenPacket("udp4", ":0")
	w.must(err)
	to := &net.UDPAddr{IP: net.ParseIP(hostOnISP1), Port: port}
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
