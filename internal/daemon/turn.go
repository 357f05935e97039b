package daemon

import (
	"errors"
	"net"
	"slices"

	"tapgw/internal/packet"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
	"tapgw/uplinks/wire"
)

// turned is what has been done for packets of the LAN to outside endpoints of ours.
type turned struct {
	upcall  *tapdev.Upcall // that the devices are bound to
	devices []uplinks.Link
	refused bool // the kernel cannot hand such packets over
}

// followTurned has what such a packet is given back by appear on the device of the LAN where it came in.
func (d *Daemon) followTurned(f uplinks.Facts) error {
	t, upcall := &d.turned, d.pumps.upcall.Load()
	devices := d.lanPorts(f)
	devices = devices[:min(len(devices), uplinks.MaxUplinks)]
	if t.upcall == upcall && slices.Equal(t.devices, devices) {
		return nil
	}
	if t.upcall == upcall {
		for n := len(devices); n < len(t.devices); n++ {
			_ = upcall.BindLAN(uint8(n), 0) // the device may have gone
		}
	}
	var errs []error
	for n, l := range devices {
		errs = append(errs, upcall.BindLAN(uint8(n), l.Index))
	}
	t.upcall, t.devices = upcall, devices
	d.pumps.turned.Store(&devices)
	err := errors.Join(errs...)
	if err != nil {
		t.upcall = nil // tried again with the next look
	}
	return err
}

// applyWanted adds to the rules what hands those packets over, and applies them. Where the kernel has no such rules, LAN hosts
// cannot reach each other by outside endpoints; where it cannot translate IPv6, the rest works without that.
func (d *Daemon) applyWanted(w nft.Wanted) error {
	if !d.turned.refused {
		for n, l := range d.turned.devices {
			w.Turned = append(w.Turned, nft.Turned{Name: l.Name, Index: l.Index, GiveBackMAC: wire.GiveBackMAC(d.seed, uint8(uplinks.MaxUplinks+n))})
		}
	}
	for {
		err := d.rules.Apply(w)
		switch {
		case errors.Is(err, nft.ErrNoMasqueradeV6) && !w.NoMasqueradeV6:
			d.ruleset.noMasqueradeV6, w.NoMasqueradeV6 = true, true
			d.log.Warn("the firewall does without a part that the kernel lacks", "error", err)
		case errors.Is(err, nft.ErrNotSupported) && len(w.Turned) > 0:
			d.turned.refused, w.Turned = true, nil
			d.log.Warn("hosts of the LAN cannot reach each other by outside addresses", "error", err)
		default:
			return err
		}
	}
}

// returnToLAN gives a frame back to the device of the LAN that it was sent to.
func (w *worker) returnToLAN(frame []byte) error {
	to := [6]byte(frame[packet.VnetLen:])
	devices := w.turned.Load()
	if devices == nil {
		return net.ErrClosed
	}
	n := slices.IndexFunc(*devices, func(l uplinks.Link) bool { return l.MAC == to })
	if n < 0 {
		return net.ErrClosed
	}
	return w.upcall.Load().GiveBackLAN(w.number, uint8(n), frame)
}
