package e2e

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// ipv6Is waits until an uplink has a state to IPv6.
func (w world) ipv6Is(uplink, state string, since time.Time) {
	w.t.Helper()
	if w.uplink(uplink).IPv6.State == state {
		return
	}
	w.events.await(uplink+" "+state+" to IPv6", since, func(e api.Event) bool {
		return e.Kind == api.EventState && e.Family == api.FamilyIPv6 && e.Uplink == uplink && e.To == state
	})
}

// TestSidesOfUplinks: each uplink has a state for either family; IPv6 that fails leaves IPv4 alone.
func TestSidesOfUplinks(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{IPv6: true}, inTurn)
	first := w.Uplinks[0]
	w.ipv6Is("wan1", api.StateUp, time.Time{})
	w.ipv6Is("wan2", api.StateUp, time.Time{})
	for _, u := range w.Uplinks {
		v := w.uplink(u.Device).IPv6
		if !slices.Equal(v.Addresses, []netip.Addr{u.AddrV6()}) || v.Gateway != u.NextHopV6() || v.RTTMs <= 0 {
			t.Errorf("%s: %+v", u.Device, v)
		}
	}
	begun := time.Now()
	labtest.Must(t, first.ISP.Sysctl("net/ipv6/conf/all/forwarding", "0"))
	w.ipv6Is("wan1", api.StateDown, begun)
	if u := w.uplink("wan1"); u.State != api.StateUp || u.IPv6.Reason == "" {
		t.Errorf("IPv4 is %s, IPv6 %s (%s)", u.State, u.IPv6.State, u.IPv6.Reason)
	}
	labtest.Must(t, first.ISP.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	w.ipv6Is("wan1", api.StateUp, begun)
	w.events.none(0, begun, func(e api.Event) bool { return e.Kind == api.EventState && e.Family == api.FamilyIPv4 })
}

// TestOwnIPv6Address: what carries an uplink's own address leaves by that uplink, whichever default route is better.
func TestOwnIPv6Address(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{IPv6: true}, inTurn)
	w.ipv6Is("wan1", api.StateUp, time.Time{})
	w.ipv6Is("wan2", api.StateUp, time.Time{})
	for _, u := range w.Uplinks {
		d := &net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: u.AddrV6().AsSlice()}}
		conn, err := w.Gateway.DialWith(labtest.Context(t), d, "tcp6", netip.AddrPortFrom(lab.ServerAddrsV6[0], lab.PortTCPEcho).String())
		labtest.Must(t, err)
		defer func() { labtest.Must(t, conn.Close()) }()
		labtest.Must(t, talker{Conn: conn}.talk())
	}
}
