package e2e

import (
	native "encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// panelConf is Xfce's panel with nothing but icons, at the right end of the top.
const panelConf = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
	<property name="configver" type="int" value="2"/>
	<property name="panels" type="array"><value type="int" value="1"/>
		<property name="panel-1" type="empty">
			<property name="position" type="string" value="p=6;x=0;y=0"/>
			<property name="length" type="uint" value="100"/>
			<property name="position-locked" type="bool" value="true"/>
			<property name="size" type="uint" value="32"/>
			<property name="icon-size" type="uint" value="22"/>
			<property name="plugin-ids" type="array"><value type="int" value="1"/><value type="int" value="2"/></property>
		</property>
	</property>
	<property name="plugins" type="empty">
		<property name="plugin-1" type="string" value="separator"><property name="expand" type="bool" value="true"/></property>
		<property name="plugin-2" type="string" value="systray"><property name="square-icons" type="bool" value="true"/></property>
	</property>
</channel>
`

// screen is a display in memory.
type screen struct {
	t    testing.TB
	file string
}

// showPanel runs a display with a real panel in the session, whose desktop has a theme.
func showPanel(t testing.TB, g *gateway, theme string) (*desktop, screen) {
	t.Helper()
	d := newDesktop(t, g.ns, nil, "GTK_THEME="+theme)
	number := await(t, "the display", d.start("Xvfb", "-displayfd", "1", "-screen", "0", "800x480x24", "-nolisten", "tcp", "-fbdir", d.dir))
	d.env = append(d.env, "DISPLAY=:"+number)
	labtest.Must(t, d.bus.BusObject().Call("org.freedesktop.DBus.UpdateActivationEnvironment", 0, map[string]string{"DISPLAY": ":" + number}).Err)
	writeBelow(t, d.dir, "xfce4/xfconf/xfce-perchannel-xml/xfce4-panel.xml", panelConf)
	d.start("xfce4-panel", "--disable-wm-check")
	return d, screen{t, filepath.Join(d.dir, "Xvfb_screen0")}
}

// shot is the display now, as Xvfb keeps it: an X window dump (XWDFile.h).
func (s screen) shot() *image.RGBA {
	s.t.Helper()
	dump, err := os.ReadFile(s.file)
	labtest.Must(s.t, err)
	field := func(i int) int { return int(native.BigEndian.Uint32(dump[4*i:])) }
	const headerSize, width, height, bits, stride, colours = 0, 4, 5, 11, 12, 19
	if field(bits) != 32 {
		s.t.Fatalf("the display has %d bits", field(bits))
	}
	m := image.NewRGBA(image.Rect(0, 0, field(width), field(height)))
	rows := dump[field(headerSize)+12*field(colours):]
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			p := rows[y*field(stride)+4*x:]
			m.SetRGBA(x, y, color.RGBA{p[2], p[1], p[0], 0xff})
		}
	}
	return m
}

// keep leaves a picture in the artifacts of the test.
func (s screen) keep(name string, m image.Image) {
	s.t.Helper()
	f, err := os.CreateTemp(s.t.ArtifactDir(), name+" *.png")
	labtest.Must(s.t, err)
	labtest.Must(s.t, png.Encode(f, m))
	labtest.Must(s.t, f.Close())
}

// findColour returns where a colour is in the picture, and on how many pixels.
func findColour(m *image.RGBA, c color.RGBA) (where image.Rectangle, n int) {
	for y := m.Rect.Min.Y; y < m.Rect.Max.Y; y++ {
		for x := m.Rect.Min.X; x < m.Rect.Max.X; x++ {
			if near(m.RGBAAt(x, y), c) {
				where, n = where.Union(image.Rect(x, y, x+1, y+1)), n+1
			}
		}
	}
	return where, n
}

func near(a, b color.RGBA) bool {
	const most = 6
	close := func(x, y uint8) bool { return max(x, y)-min(x, y) <= most }
	return close(a.R, b.R) && close(a.G, b.G) && close(a.B, b.B)
}

// The colours of bars that are in use, and of crosses.
var (
	green = color.RGBA{0x1d, 0x9a, 0x4b, 0xff}
	red   = color.RGBA{0xe5, 0x48, 0x4d, 0xff}
)

// threeLinks are an uplink that is half full, one that is less so, and one more.
const threeLinks = inTurn + `uplinks:
  - {name: fibre, interface: wan1, capacity: {down: 4Mbit, up: 4Mbit}}
  - {name: cable, interface: wan2, capacity: {down: 8Mbit, up: 8Mbit}}
  - {name: phone, interface: wan3, metered: true, tier: 0}
`

// threeLoaded is a gateway with threeLinks, of which the third is down.
func threeLoaded(t testing.TB) *gateway {
	t.Helper()
	topology := labtest.Build(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 3)})
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, threeLinks)
	for _, name := range []string{"fibre", "cable", "phone"} {
		g.awaitState(name, api.StateUp)
	}
	labtest.Must(t, topology.Uplinks[2].Link.Cut())
	g.awaitState("phone", api.StateDown)
	for range 2 {
		conn, err := g.ns.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		t.Cleanup(flood(conn, 2_500_000))
	}
	eventually(t, "load", func() bool { return g.uplink("fibre").Load > 0.4 && g.uplink("cable").Load > 0.2 })
	return g
}

// TestTrayInAPanel: in a real panel, light or dark, the icon has bars for the uplinks in use and, right of them, a cross for the one
// that is down; so has the menu that a click opens.
func TestTrayInAPanel(t *testing.T) {
	t.Parallel()
	g := threeLoaded(t)
	for _, theme := range []string{"Adwaita", "Adwaita:dark"} {
		d, s := showPanel(t, g, theme)
		d.startTray(g)
		panel, menu := image.Rect(0, 0, 800, 32), image.Rect(0, 40, 800, 480)
		bars, cross := s.await("the icon", panel)
		if icon := bars.Union(cross); icon.Dx() > 22 || icon.Dy() > 22 || bars.Max.X > cross.Min.X || bars.Max.Y < cross.Max.Y {
			t.Errorf("%s: the bars are at %v, the cross at %v", theme, bars, cross)
		}
		d.click(bars.Max.Sub(image.Pt(2, 2)))
		if bars, cross := s.await("the menu", menu); bars.Max.Y > cross.Min.Y {
			t.Errorf("%s: in the menu, the bars are at %v, the cross at %v", theme, bars, cross)
		}
	}
}

// await waits until bars and a cross are in a part of the display, and says where. It leaves a picture in the artifacts of the test.
func (s screen) await(what string, part image.Rectangle) (bars, cross image.Rectangle) {
	s.t.Helper()
	defer func() { s.keep(what, s.shot()) }()
	eventually(s.t, what, func() bool {
		shot := s.shot().SubImage(part).(*image.RGBA)
		var greens, reds int
		bars, greens = findColour(shot, green)
		cross, reds = findColour(shot, red)
		return greens >= 8 && reds >= 4
	})
	return bars, cross
}

// click is one of the user's.
func (d *desktop) click(at image.Point) {
	d.t.Helper()
	c := d.ns.Command(d.t.Context(), "xdotool", "mousemove", fmt.Sprint(at.X), fmt.Sprint(at.Y), "click", "1")
	c.Env = d.env
	if out, err := c.CombinedOutput(); err != nil {
		d.t.Fatalf("xdotool: %v, %s", err, out)
	}
}
