package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"tapgw/internal/lab"
)

const (
	downloads = 16 // that share the uplinks
	mbit      = 1_000_000
)

// fillTask measures the share of the uplinks' summed capacity that downloads get.
func fillTask(rates string) task {
	return task{
		"fill-" + strings.ReplaceAll(rates, "/", "-"), onAllMemory,
		func(settings) room { return room{family: ipv4, sessions: busySessions, rates: rates} }, false, fill,
		[]line{{label: fmt.Sprintf("%d downloads, of %s Mbit/s", downloads, rates), bars: filled, absolute: true}},
	}
}

// ratesOf reads what a room says of its uplinks.
func ratesOf(rates string) (all []uint64) {
	for word := range strings.SplitSeq(rates, "/") {
		if n, err := strconv.ParseUint(word, 10, 32); err == nil {
			all = append(all, n*mbit)
		}
	}
	return all
}

// shaped are uplinks of these rates, nil for the usual ones.
func shaped(rates string) (uplinks []lab.UplinkOptions) {
	for _, rate := range ratesOf(rates) {
		uplinks = append(uplinks, lab.UplinkOptions{Down: rate, Up: rate})
	}
	return uplinks
}

// capacities is the configuration of such uplinks.
func capacities(rates string) (yaml string) {
	for i, rate := range ratesOf(rates) {
		if i == 0 {
			yaml = "uplinks:\n"
		}
		yaml += fmt.Sprintf("- {interface: wan%d, capacity: {up: %dMbit, down: %[2]dMbit}}\n", i+1, rate/mbit)
	}
	return yaml
}

// fill returns what the uplinks receive while downloads run, to the sum of their capacities.
func fill(ctx context.Context, p *peer, s settings) ([]float64, error) {
	end, err := openBulk(ctx, p.family, p.host().Namespace, downloads, modeSend, new(atomic.Uint64))
	if err != nil {
		return nil, err
	}
	defer end()
	rate, err := counted(ctx, s.fill/2, s.fill, p.received) // half of it more for slow start
	sum := uint64(0)
	for _, r := range ratesOf(p.rates) {
		sum += r
	}
	return []float64{rate * 8 / float64(sum)}, err
}

// received is how many bytes the uplinks' devices have received.
func (p *peer) received() (bytes uint64, err error) {
	for _, u := range p.lab.Uplinks {
		link, err := p.lab.Gateway.Handle().LinkByName(u.Device)
		if err != nil {
			return 0, err
		}
		bytes += link.Attrs().Statistics.RxBytes
	}
	return bytes, nil
}
