package tray

import (
	"bytes"
	"image"
	"image/png"
	"testing"

	"tapgw/internal/tray/icon"
)

// TestColoursArriveAsDrawn: a panel, which takes what the library sends for plain colours, shows those that were drawn.
func TestColoursArriveAsDrawn(t *testing.T) {
	drawn := icon.Draw([]icon.Link{{Load: 0.5}, {Shape: icon.Ladder, Load: 0.3}, {Shape: icon.Cross}}, panelIcon)
	sent, err := png.Decode(bytes.NewReader(straight(drawn)))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i := range len(drawn.Pix) / 4 {
		x, y := i%panelIcon, i/panelIcon
		want := drawn.RGBAAt(x, y)
		if want.A < 0x60 { // at edges, where colours cannot be bright
			continue
		}
		r, g, b, a := sent.At(x, y).RGBA() // as the library reads it
		seen++
		for c, pair := range [][2]uint32{{r, uint32(want.R)}, {g, uint32(want.G)}, {b, uint32(want.B)}} {
			got, plain := pair[0]>>8, min(pair[1]*255/uint32(want.A), uint32(want.A))
			if got+2 < plain || got > plain+2 || a>>8 != uint32(want.A) {
				t.Fatalf("pixel %v: colour %d is %d, not %d", image.Pt(x, y), c, got, plain)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d pixels were compared", seen)
	}
}
