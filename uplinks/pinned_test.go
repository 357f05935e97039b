package uplinks

import "testing"

// TestPinnedGateway: the MAC address of a gateway that the user has entered himself is known as such.
func TestPinnedGateway(t *testing.T) {
	for state, want := range map[int]bool{permanentNeighbour: true, 0x02: false} {
		w := twoISPs()
		w.Neighbours = append(w.Neighbours, Neighbour{Index: 2, Addr: addr("192.168.1.1"), MAC: [6]byte{2, 9}, State: state})
		s, _ := NewTracker(healthy()).Update(t0, w.Facts)
		if u := byName(t, s, "eth0"); u.Pinned != want || u.GatewayMAC != [6]byte{2, 9} {
			t.Errorf("state %#x: %+v", state, u.Side)
		}
	}
}
