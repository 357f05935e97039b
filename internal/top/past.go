package top

import "strings"

// maxPast is how many rates are remembered, which is as many as fit on a wide screen.
const maxPast = 120

// past is how fast an uplink has been, the latest last.
type past struct{ down, up []float64 }

// with is the past with one more pair of rates.
func (p *past) with(down, up float64) *past {
	if p == nil {
		p = &past{}
	}
	p.down, p.up = pushed(p.down, down), pushed(p.up, up)
	return p
}

func pushed(list []float64, v float64) []float64 {
	list = append(list, v)
	return list[max(0, len(list)-maxPast):]
}

// The heights of a graph's columns.
var (
	blocks = []rune("▁▂▃▄▅▆▇█")
	marks  = []rune("_.-:=+*#") // for terminals without the others
)

// quiet is the rate in bits per second that fills no graph, so that the noise of an idle line does not look like a load.
const quiet = 10_000

// graph draws the latest of the rates, each as high as its share of the highest.
func graph(rates []float64, columns int, heights []rune) string {
	rates = rates[max(0, len(rates)-columns):]
	highest := float64(quiet)
	for _, r := range rates {
		highest = max(highest, r)
	}
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", columns-len(rates)))
	for _, r := range rates {
		share := min(max(r/highest, 0), 1)
		b.WriteRune(heights[min(int(share*float64(len(heights))), len(heights)-1)])
	}
	return b.String()
}
