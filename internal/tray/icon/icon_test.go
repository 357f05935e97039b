package icon

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"tapgw/internal/golden"
)

// pictures are what the golden files show.
var pictures = map[string][]Link{
	"idle":   {{}, {}},
	"busy":   {{Load: 0.7}, {Load: 0.35}, {Load: 1}},
	"states": {{Load: 0.5}, {Shape: Ladder, Load: 0.5}, {Shape: Cross}, {Shape: Mark}, {Shape: Dots}, {Shape: Dash}},
	"failed": {{Load: 0.8}, {Shape: Cross}},
	"portal": {{Load: 0.2}, {Shape: Mark}, {Shape: Dash}},
	"poor":   {{Shape: Ladder, Load: 0.1}, {Shape: Ladder, Load: 0.8}, {Shape: Dots}},
	"single": {{Load: 0.4}},
	"many":   slices.Repeat([]Link{{Load: 0.5}}, 9),
	"off":    {{Shape: Off}},
	"paused": {{Shape: Paused}},
}

func TestPictures(t *testing.T) {
	for name, links := range pictures {
		got := Encode(Draw(links, 44))
		if !same(t, got, golden.File(t, filepath.Join("testdata", name+".png"), got)) {
			t.Errorf("%s.png looks different; look at it after go test ./internal/tray/icon -update", name)
		}
	}
}

// same compares pixels, as compressors differ.
func same(t *testing.T, a, b []byte) bool {
	t.Helper()
	first, second := decode(t, a), decode(t, b)
	return first.Bounds() == second.Bounds() && slices.Equal(first.Pix, second.Pix)
}

func decode(t *testing.T, file []byte) *image.NRGBA {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	flat, ok := m.(*image.NRGBA)
	if !ok {
		t.Fatalf("the picture is %T", m)
	}
	return flat
}

// panels are the colours of light and dark ones: Adwaita's, Breeze's and plain.
var panels = []color.NRGBA{
	{0xff, 0xff, 0xff, 0xff}, {0xf6, 0xf5, 0xf4, 0xff}, {0xef, 0xf0, 0xf1, 0xff}, {0, 0, 0, 0xff}, {0x2d, 0x2d, 0x2d, 0xff}, {0x2a, 0x2e, 0x32, 0xff},
}

func TestColoursCanBeSeen(t *testing.T) {
	for name, c := range map[string]color.NRGBA{"good": good, "fair": fair, "bad": bad, "quiet": quiet} {
		for _, panel := range panels {
			if r := contrast(c, panel); r < 3 {
				t.Errorf("%s on %v has a contrast of %.2f, less than 3", name, panel, r)
			}
		}
	}
}

// contrast is that of WCAG 2.1.
func contrast(a, b color.NRGBA) float64 {
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x/y, y/x)
}

func luminance(c color.NRGBA) float64 {
	linear := func(v uint8) float64 {
		if s := float64(v) / 255; s > 0.04045 {
			return math.Pow((s+0.055)/1.055, 2.4)
		}
		return float64(v) / 255 / 12.92
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

// TestShapesDifferWithoutColours: whoever sees no colours, and whoever has seven uplinks, can tell the states apart.
func TestShapesDifferWithoutColours(t *testing.T) {
	for _, n := range []int{1, 2, 4, maxLinks} {
		seen := make(map[string]Shape)
		for shape := Bar; shape <= Dash; shape++ {
			links := slices.Repeat([]Link{{Shape: shape, Load: 0.5}}, n)
			outline := alphas(Draw(links, 22))
			if other, twice := seen[outline]; twice {
				t.Errorf("%d links: shapes %d and %d look the same", n, other, shape)
			}
			seen[outline] = shape
		}
	}
}

// alphas says where something is drawn, in no colour: each pixel is none, faint or full.
func alphas(m *image.RGBA) string {
	var b []byte
	for i := 3; i < len(m.Pix); i += 4 {
		b = append(b, "-+#"[int(m.Pix[i])*2/255])
	}
	return string(b)
}

// TestEveryStepIsSeen: a bar grows with each step, and what is no number or beyond all bounds is drawn too.
func TestEveryStepIsSeen(t *testing.T) {
	last := 0
	for i := 3; i <= steps; i++ {
		m := Draw([]Link{{Load: float64(i) / steps}}, 44)
		full := 0
		for y := range 44 {
			if m.RGBAAt(22, y).A == 0xff {
				full++
			}
		}
		if full <= last {
			t.Errorf("a load of %d/%d is %d pixels high, %d less one", i, steps, full, last)
		}
		last = full
	}
	for _, load := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300} {
		if s := Steps(load); !(s >= 0 && s <= 1) {
			t.Errorf("Steps(%v) is %v", load, s)
		}
	}
}
