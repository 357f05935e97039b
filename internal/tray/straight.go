package tray

import (
	"image"

	"tapgw/internal/tray/icon"
)

// straight is a picture as PNG for a library that sends colours multiplied by their opacity to panels, which multiply them again:
// divided by it before, they arrive as they should.
func straight(m *image.RGBA) []byte {
	out := image.NewNRGBA(m.Bounds())
	for i := 0; i < len(m.Pix); i += 4 {
		alpha := uint32(m.Pix[i+3])
		out.Pix[i+3] = m.Pix[i+3]
		for c := range 3 {
			out.Pix[i+c] = divide(divide(m.Pix[i+c], alpha), alpha)
		}
	}
	return icon.Encode(out)
}

func divide(colour uint8, alpha uint32) uint8 {
	if alpha == 0 {
		return 0
	}
	return uint8(min(uint32(colour)*255/alpha, 255))
}
