package main

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"tapgw/api"
	"tapgw/internal/human"
)

// What the live view writes in the same way.
var (
	duration, seconds, since    = human.Duration, human.Seconds, human.Since
	scaled, rate, amount, count = human.Scaled, human.Rate, human.Amount, human.Count
	rtt, percent                = human.RTT, human.Percent
	clean, cut                  = human.Clean, human.Cut
)

// likely is the confidence from which a capacity is shown as a fact.
const likely = 0.5

// speed is what an uplink can carry down, in at most six columns of bits per second, with a question mark while it is only assumed.
func speed(c api.Capacity) string {
	if c.DownBps < 1 {
		return "-"
	}
	text := strings.ReplaceAll(scaled(c.DownBps), " ", "")
	if c.Confidence < likely {
		return text + "?"
	}
	return text
}

// bar draws a load from 0 to 1, with its number.
func bar(load float64) string {
	const cells = 6
	full := int(math.Round(cells * min(max(load, 0), 1)))
	return fmt.Sprintf("[%s%s] %4s", strings.Repeat("#", full), strings.Repeat("-", cells-full), percent(load))
}

// addresses is the first of list and how many more there are.
func addresses(list []netip.Addr) string {
	switch len(list) {
	case 0:
		return "-"
	case 1:
		return list[0].String()
	}
	return fmt.Sprintf("%s +%d", list[0], len(list)-1)
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
