// Package icon draws uplinks as bars that can be told apart at 22 pixels, on light and on dark panels, and without colours.
package icon

import (
	"bytes"
	"image"
	"image/png"
)

// Shape is what the state of an uplink looks like.
type Shape int

// The shapes. Off and Paused are those of the whole gateway.
const (
	Bar    Shape = iota // as high as the load: in use
	Ladder              // the same in pieces: in use, but not well
	Cross               // no way out
	Mark                // somebody must sign in
	Dots                // not known yet
	Dash                // switched off
	Off                 // no daemon runs
	Paused              // the daemon lets all pass by it
)

// Link is one uplink. Two that look the same are equal where Load comes from Steps.
type Link struct {
	Shape Shape
	Load  float64 // 0–1, of Bar and Ladder
}

// steps is how many heights of a bar can be told apart.
const steps = 20

// Steps rounds a load to what can be seen of it.
func Steps(load float64) float64 {
	if !(load > 0) { // nor NaN
		return 0
	}
	return float64(int(min(load, 1)*steps+0.5)) / steps
}

// maxLinks is how many fit beside each other.
const maxLinks = 7

// Draw is the picture of links, from left to right, size pixels wide and high; of more than seven it shows the first.
func Draw(links []Link, size int) *image.RGBA {
	links = links[:min(len(links), maxLinks)]
	c := newCanvas(size)
	width, gap := layout(len(links))
	x := float32(int(grid-float32(len(links))*(width+gap)+gap) / 2)
	for _, l := range links {
		c.link(l, x, width)
		x += width + gap
	}
	return c.image
}

// layout is how wide each of n links and the gap between two is, in whole units.
func layout(n int) (width, gap float32) {
	gap = 2
	if n > 4 {
		gap = 1
	}
	n = max(n, 1)
	return float32(min(8, int(grid-gap*float32(n-1))/n)), gap
}

// Encode is a picture as PNG.
func Encode(m image.Image) []byte {
	var b bytes.Buffer
	_ = png.Encode(&b, m) // fails only where the size is none or the writer does
	return b.Bytes()
}

// link draws one at x, as wide as given.
func (c *canvas) link(l Link, x, width float32) {
	middle := x + float32(int(width/2))
	switch l.Shape {
	case Bar:
		c.box(faint, x, top, x+width, bottom)
		c.box(good, x, bottom-max(2, float32(l.Load)*height), x+width, bottom)
	case Ladder:
		c.ladder(l.Load, x, width)
	case Cross:
		c.cross(x+width/2, max(width, 3))
	case Mark:
		half := min(2, float32(int(width/3+0.5)))
		c.box(fair, middle-half, 3, middle+half, 14)
		c.box(fair, middle-half, 16, middle+half, 19)
	case Dots:
		for y := float32(4); y < bottom; y += 6 {
			c.box(quiet, middle-1, y, middle+1, y+2)
		}
	case Dash:
		c.box(quiet, x, 10, x+width, 12)
	case Off:
		c.off()
	case Paused:
		c.box(quiet, 5, 3, 9, 19)
		c.box(quiet, 13, 3, 17, 19)
	}
}

// ladder is a bar of rungs, so that it is one at any load.
func (c *canvas) ladder(load float64, x, width float32) {
	const rung, gap = 3, 1
	filled := max(2, float32(load)*height)
	for y := bottom; y > top; y -= rung + gap {
		paint := faint
		if bottom-y < filled {
			paint = fair
		}
		c.box(paint, x, y-rung, x+width, y)
	}
}

// cross is as wide as given, and at least as high as can be read.
func (c *canvas) cross(middle, width float32) {
	half, tall := width/2, max(width, 8)/2
	const centre = grid / 2
	thick := min(3, max(1.5, width/3))
	c.stroke(bad, middle-half, centre-tall, middle+half, centre+tall, thick)
	c.stroke(bad, middle-half, centre+tall, middle+half, centre-tall, thick)
}

// off is empty bars, crossed out.
func (c *canvas) off() {
	for x := float32(2); x < 20; x += 7 {
		c.box(faint, x, top, x+4, bottom)
	}
	c.stroke(quiet, 1, 20, 21, 2, 3)
}
