package top

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tapgw/api"
)

// TestPinning: the client of a selected session is pinned to the selected uplink, and no other after the list was sorted anew.
func TestPinning(t *testing.T) {
	d := healthy()
	m := view(t, d, Options{})
	m.look(120, 24)
	m.press("P")
	if got := m.shown(); !strings.Contains(got, "> 192.168.1.20") || !strings.Contains(got, "Select a session") {
		t.Error(got)
	}
	m.press("2", "P")
	if got := m.shown(); !strings.Contains(got, "Pin 192.168.1.20 to wifi? a: for all sites, u: unpin, n: no, s: for www.example.com") {
		t.Error(got)
	}
	m.press("n", "P", "a", "P", "s")
	d.Table[0], d.Table[1], d.Table[2] = d.Table[2], d.Table[0], d.Table[1]
	if got := m.look(120, 24); !strings.Contains(got, "> 192.168.1.20") {
		t.Errorf("the selection did not follow its session:\n%s", got)
	}
	m.press("down", "P", "a")
	want := `[pin 192.168.1.20 "" to wifi, false pin 192.168.1.20 "www.example.com" to wifi, false pin 100.64.0.2 "" to wifi, false]`
	if got := fmt.Sprint(d.Calls()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := m.shown(); !strings.Contains(got, "this host uses wifi") {
		t.Error(got)
	}
}

// TestUnpinning: what ends is the pin by which the session would be placed.
func TestUnpinning(t *testing.T) {
	d := healthy()
	client := netip.MustParseAddr("192.168.1.20")
	d.Pinned = []api.Pin{
		{Inside: netip.MustParseAddr("192.168.1.33"), Uplink: "wifi"}, {Inside: client, Site: "ample.com", Uplink: "wifi"},
		{Inside: client, Site: "198.51.101.0/24", Uplink: "wifi"}, {Inside: client, Site: "example.com", Uplink: "fibre"}, {Inside: client, Uplink: "wifi"},
	}
	m := view(t, d, Options{})
	m.look(120, 24)
	m.press("P", "P", "u")
	if got := fmt.Sprint(d.Calls()); got != `[unpin 192.168.1.20 "example.com"]` || !strings.Contains(m.shown(), "example.com is not pinned to fibre any more") {
		t.Errorf("%s\n%s", got, m.shown())
	}
	d.Pinned = []api.Pin{{Uplink: "wifi"}}
	m.press("P", "u")
	if got := m.shown(); len(d.Calls()) != 1 || !strings.Contains(got, "192.168.1.20 is not pinned there") {
		t.Error(got)
	}
	m.press("down", "P", "u")
	if got := fmt.Sprint(d.Calls()[1:]); got != `[unpin invalid IP ""]` {
		t.Error(got)
	}
}

// TestSelectedSession: it stays on the screen, goes with its session, and leaves with the last one.
func TestSelectedSession(t *testing.T) {
	d := healthy()
	for i := range uint16(50) {
		one := d.Table[0]
		one.Inside = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.9"), 1000+i)
		d.Table = append(d.Table, one)
	}
	m := view(t, d, Options{})
	m.look(100, 24)
	m.press("tab")
	for range 60 {
		m.press("down")
	}
	at := func(want int) {
		t.Helper()
		if m.row != want || m.sessionAt() != want || m.skipped > want || m.skipped+m.page() <= want {
			t.Errorf("row %d of %d, screen from %d, want %d", m.row, len(m.sessions), m.skipped, want)
		}
		if got := m.shown(); strings.Count(got, "\n> ") != 1 {
			t.Error(got)
		}
	}
	at(52)
	m.press("pgup", "up")
	at(51 - m.page())
	d.Table = d.Table[:20]
	m.look(100, 24)
	at(19)
	m.press("tab", "up")
	if got := m.shown(); strings.Contains(got, "\n> ") {
		t.Errorf("still selected:\n%s", got)
	}
	m.press("tab")
	d.Table = nil
	m.look(100, 24)
	m.press("down", "P", "pgdown")
	if m.among {
		t.Error("none is there, and one selected")
	}
}
