package tray

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/golden"
	"tapgw/internal/tray/icon"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var all = api.Access{Change: true}

// healthy is a gateway with two uplinks.
func healthy() api.Status {
	return api.Status{Sessions: 27, Uplinks: []api.Uplink{
		{Name: "fibre", Interface: "eth0", State: api.StateUp, Since: noon.Add(-3 * time.Hour), RxBps: 44e6, TxBps: 241e3, Load: 0.18,
			Sessions: 20, RTTMs: 27},
		{Name: "usb_0", Interface: "usb0", State: api.StateUp, Since: noon.Add(-time.Minute), RxBps: 24.4e6, TxBps: 151e3, Load: 0.61,
			Sessions: 7, RTTMs: 9.4, Metered: true, Usage: api.Usage{UsedBytes: 16e9, CapBytes: 20e9}},
	}}
}

// mixed has an uplink in each other state, and one that has IPv6 only.
func mixed() api.Status {
	s := healthy()
	for state, reason := range map[string]string{
		api.StateDown: "no reply from 1.1.1.1, 8.8.8.8", api.StateDegraded: "loss 12 %", api.StatePortal: "answers are redirected",
		api.StateProbing: "", api.StateDisabled: "by the administrator",
	} {
		s.Uplinks = append(s.Uplinks, api.Uplink{Name: "is-" + state, State: state, Reason: reason, Since: noon.Add(-time.Second)})
	}
	slices.SortFunc(s.Uplinks, func(a, b api.Uplink) int { return strings.Compare(a.Name, b.Name) })
	s.Uplinks[0].IPv6 = api.IPv6{State: api.StateDown, Reason: "no reply"}
	s.Uplinks = append(s.Uplinks, api.Uplink{Name: "six", State: api.StateDown, Reason: "no address", IPv6: api.IPv6{
		State: api.StateUp, Since: noon.Add(-time.Hour), RTTMs: 12, Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}})
	return s
}

// waiting is a gateway that is paused.
func waiting() api.Status {
	s := healthy()
	s.PausedUntil, s.Uplinks[0].Preferred = time.Date(2026, 11, 21, 12, 5, 0, 0, time.Local), true
	return s
}

// evil has all that a panel could take for anything else than text, and numbers beyond all bounds.
func evil() api.Status {
	bad := "<b>&amp;\x1b[2J\n\u202e_x</b>" + strings.Repeat("y", 500)
	return api.Status{Sessions: -1, Uplinks: []api.Uplink{{
		Name: bad, State: bad, Reason: bad, RxBps: math.Inf(1), TxBps: -1, Load: 1e300, RTTMs: math.Inf(1), Sessions: 1 << 62,
		IPv6: api.IPv6{State: bad, Reason: bad}, Usage: api.Usage{UsedBytes: 1<<64 - 1, CapBytes: 1},
	}}}
}

func TestViews(t *testing.T) {
	for name, v := range map[string]view{
		"healthy":  running(healthy(), all, noon),
		"mixed":    running(mixed(), all, noon),
		"readonly": running(healthy(), api.Access{Hint: "join the group: sudo usermod -aG tapgw $USER"}, noon),
		"paused":   running(waiting(), all, noon),
		"none":     running(api.Status{}, all, noon),
		"stopped":  stopped(errors.New("no daemon answers on /run/tapgw/tapgw.sock; start it with \"sudo systemctl start tapgw\"")),
		"evil":     running(evil(), all, noon),
	} {
		golden.Text(t, filepath.Join("testdata", name+".txt"), written(v))
	}
}

// written is a view as text.
func written(v view) string {
	var b strings.Builder
	fmt.Fprintf(&b, "icon %s\n%s\n\n", shapesOf(v.links), v.tooltip)
	write(&b, "", v.menu)
	return b.String()
}

func write(b *strings.Builder, indent string, entries []entry) {
	for _, e := range entries {
		if e.label == "" {
			fmt.Fprintf(b, "%s---\n", indent)
			continue
		}
		mark := map[check]string{0: "", unchecked: "[ ] ", checked: "[x] "}[e.check]
		fmt.Fprintf(b, "%s%s%s%s%s\n", indent, shapesOf(e.links), mark, e.label, told(e))
		write(b, indent+"    ", e.children)
	}
}

// told says what an entry does.
func told(e entry) string {
	if !e.usable() {
		return " (tells)"
	}
	if e.act == (action{}) {
		return ""
	}
	return fmt.Sprintf(" -> %d %.20q %v", e.act.verb, e.act.uplink, e.act.on)
}

func shapesOf(links []icon.Link) (s string) {
	for _, l := range links {
		s += fmt.Sprintf("<%s %.2f> ", []string{"bar", "ladder", "cross", "mark", "dots", "dash", "off", "paused"}[l.Shape], l.Load)
	}
	return s
}

// TestNothingIsMarkup: what comes from outside is never more than text, and short.
func TestNothingIsMarkup(t *testing.T) {
	var check func(entries []entry)
	check = func(entries []entry) {
		for _, e := range entries {
			if strings.ContainsAny(e.label, "<>&\x1b\n\u202e") || len(e.label) > 1000 {
				t.Errorf("the menu says %q", e.label)
			}
			check(e.children)
		}
	}
	v := running(evil(), api.Access{Hint: evil().Uplinks[0].Name}, noon)
	check(v.menu)
	if strings.ContainsAny(v.tooltip, "<>&\x1b\u202e") {
		t.Errorf("the tooltip says %q", v.tooltip)
	}
}
