package icon

import (
	"image"
	"image/color"
	"math"

	"golang.org/x/image/vector"
)

// All lies on a grid of 22 units, so that it is sharp at 22 and 44 pixels.
const (
	grid   float32 = 22
	top    float32 = 1
	bottom float32 = 21
	height         = bottom - top
)

// The colours have a contrast of 3 at least (WCAG 2.1, 1.4.11) to light and to dark panels, but for faint, which only says how
// high a bar may become.
var (
	good  = color.NRGBA{0x1d, 0x9a, 0x4b, 0xff}
	fair  = color.NRGBA{0xc3, 0x79, 0x00, 0xff}
	bad   = color.NRGBA{0xe5, 0x48, 0x4d, 0xff}
	quiet = color.NRGBA{0x86, 0x86, 0x86, 0xff}
	faint = color.NRGBA{0x80, 0x80, 0x80, 0x66}
)

type canvas struct {
	image *image.RGBA
	unit  float32 // pixels
}

func newCanvas(size int) *canvas {
	return &canvas{image.NewRGBA(image.Rect(0, 0, size, size)), float32(size) / grid}
}

// box is a rectangle with round corners.
func (c *canvas) box(paint color.Color, x0, y0, x1, y1 float32) {
	const round = 0.75
	p := c.begin(x0+round, y0)
	p.line(x1-round, y0).bend(x1, y0, x1, y0+round)
	p.line(x1, y1-round).bend(x1, y1, x1-round, y1)
	p.line(x0+round, y1).bend(x0, y1, x0, y1-round)
	p.line(x0, y0+round).bend(x0, y0, x0+round, y0)
	p.fill(paint)
}

// stroke is a line of the given thickness.
func (c *canvas) stroke(paint color.Color, x0, y0, x1, y1, thick float32) {
	scale := thick / 2 / float32(math.Hypot(float64(x1-x0), float64(y1-y0)))
	dx, dy := (y0-y1)*scale, (x1-x0)*scale
	c.begin(x0+dx, y0+dy).line(x1+dx, y1+dy).line(x1-dx, y1-dy).line(x0-dx, y0-dy).fill(paint)
}

// path is an outline in units.
type path struct {
	*canvas
	pen *vector.Rasterizer
}

func (c *canvas) begin(x, y float32) *path {
	size := c.image.Bounds().Dx()
	p := &path{c, vector.NewRasterizer(size, size)}
	p.pen.MoveTo(x*c.unit, y*c.unit)
	return p
}

func (p *path) line(x, y float32) *path {
	p.pen.LineTo(x*p.unit, y*p.unit)
	return p
}

// bend goes to x, y by a corner.
func (p *path) bend(cornerX, cornerY, x, y float32) {
	p.pen.QuadTo(cornerX*p.unit, cornerY*p.unit, x*p.unit, y*p.unit)
}

func (p *path) fill(paint color.Color) {
	p.pen.ClosePath()
	p.pen.Draw(p.image, p.image.Bounds(), image.NewUniform(paint), image.Point{})
}
