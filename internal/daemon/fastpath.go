package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"tapgw/configs"
	"tapgw/internal/metrics"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw/fastpath"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
)

// noFastPath is why userspace carries all packets.
type noFastPath struct {
	text string
	code metrics.Reason
}

// explainFastPath is what people and metrics are told of an error of package fastpath.
func explainFastPath(err error) noFastPath {
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "fastpath: "), "\n")
	for _, known := range []struct {
		err  error
		code metrics.Reason
	}{
		{fastpath.ErrPermission, metrics.ReasonPermission}, {fastpath.ErrUnsupported, metrics.ReasonUnsupported},
		{fastpath.ErrRefused, metrics.ReasonRefused}, {fastpath.ErrMemory, metrics.ReasonMemory},
	} {
		if errors.Is(err, known.err) {
			return noFastPath{strings.TrimPrefix(known.err.Error(), "fastpath: "), known.code}
		}
	}
	return noFastPath{text, metrics.ReasonOther}
}

// datapathMode is who is to carry the packets of known sessions.
func (d *Daemon) datapathMode() configs.DatapathMode {
	return cmp.Or(configs.DatapathMode(d.opts.Datapath), d.cfg().Datapath.Mode)
}

// loadFastPath puts the memory of the session tables where the kernel sees it, unless the user or the kernel wants otherwise;
// v6 is nil where IPv6 is not captured.
func (d *Daemon) loadFastPath(n, v6 *nat.Config) error {
	if d.datapathMode() == configs.DatapathUserspace {
		d.noFast = noFastPath{"the configuration wants it so", metrics.ReasonConfigured}
		return nil
	}
	c := fastpath.Config{
		Seed: n.Seed, MaxSessions: n.MaxSessions, Secret: wire.GiveBackMAC(d.seed, 0),
		TAPMAC: tapMAC, GatewayMAC: gatewayMAC, UpcallMAC: upcallMAC,
	}
	if v6 != nil {
		c.MaxSessionsV6 = v6.MaxSessions
	}
	programs, err := fastpath.Load(c)
	if err != nil {
		return d.withoutFastPath(err)
	}
	d.fast, n.Memory = programs, programs.Memory()
	if v6 != nil {
		v6.Seed, v6.Memory = n.Seed, programs.MemoryV6()
	}
	return programs.SetClock(d.pumps.clock.fromMonotonic())
}

// withoutFastPath goes on in userspace, if the user lets it.
func (d *Daemon) withoutFastPath(err error) error {
	if d.datapathMode() == configs.DatapathKernel {
		return fmt.Errorf("datapath.mode is kernel, which cannot be: %w", err)
	}
	d.noFast = explainFastPath(err) // told when ready
	d.log.Debug("no fast path", "error", err)
	return nil
}

// attachDevices starts the fast path on our own devices. The kernel may refuse that even where it loads the programs.
func (d *Daemon) attachDevices() error {
	if d.fast == nil {
		return nil
	}
	err := errors.Join(d.attachUpcall(), d.attachTAP())
	if err == nil {
		d.pumps.called = true
		d.startUpcall()
		return nil
	}
	programs := d.fast
	d.fast = nil
	return errors.Join(programs.Close(), d.withoutFastPath(err))
}

// attachTAP and attachUpcall do nothing where the programs are attached.
func (d *Daemon) attachTAP() error {
	if d.fast == nil {
		return nil
	}
	return d.fast.AttachTAP(d.pumps.tap.Load().Index())
}

func (d *Daemon) attachUpcall() error {
	if d.fast == nil {
		return nil
	}
	return d.fast.AttachUpcall(d.pumps.upcall.Load().Index())
}

// startUpcall reads what the programs hand over, until the device is closed or gone.
func (d *Daemon) startUpcall() {
	upcall := d.pumps.upcall.Load()
	d.processors.provide(2 * len(upcall.Queues()))
	for number := range upcall.Queues() {
		d.readers.Go(func() {
			if err := d.pumps.runUpcall(upcall, number); err != nil {
				err = fmt.Errorf("the upcall device cannot be read any more, start tapgw again: %w", err)
				d.pumps.failure.Store(&err)
				d.lookAgain()
			}
		})
	}
}

// verifyFastPath lists the devices that somebody detached programs from, and readies all that these served to be made anew:
// the sockets of an uplink whose device was away for a moment are as dead as its program.
func (d *Daemon) verifyFastPath() (lost []int, err error) {
	if d.fast == nil {
		return nil, nil
	}
	lost, err = d.fast.Verify()
	errs := []error{err}
	for id, p := range d.ports {
		if p.taken && slices.Contains(lost, p.config.Index) {
			errs = append(errs, d.closePort(id))
		}
	}
	for _, index := range lost {
		d.lan.forget(index)
	}
	return lost, errors.Join(errs...)
}

// tellDetached tells of programs that had to be attached anew, but not of devices that have gone.
func (d *Daemon) tellDetached(lost []int) {
	for _, index := range lost {
		if device, err := net.InterfaceByIndex(index); err == nil {
			d.repaired("fast path: detached from " + device.Name + " by someone")
		}
	}
}

// setClock tells the kernel that the machine has slept.
func (d *Daemon) setClock() error {
	if d.fast == nil {
		return nil
	}
	return d.fast.SetClock(d.pumps.clock.fromMonotonic())
}

// setRerouted has the kernel look again where packets of LAN sessions would go without it.
func (d *Daemon) setRerouted() error {
	if d.fast == nil {
		return nil
	}
	return d.fast.SetRerouted(d.pumps.clock.tick())
}

// setHost tells the kernel of which packets for the host itself go on from the uplink.
func (d *Daemon) setHost() error {
	if d.fast == nil {
		return nil
	}
	var errs []error
	for _, f := range uplinks.Families {
		addr := netip.Addr{}
		if d.untracked.onward[f] {
			addr = d.hostOn(f)
		}
		errs = append(errs, d.fast.SetHost(f, addr))
	}
	return errors.Join(errs...)
}

// setUplinks tells the kernel at once what the uplinks are now; sessions of another generation, or of an uplink that
// others replace, are Go's from then on.
func (d *Daemon) setUplinks(old, s *uplinks.Snapshot) error {
	if d.fast == nil {
		return nil
	}
	errs := []error{d.fast.SetPrefixes(d.prefixes(s))}
	d.tables.each(func(f uplinks.Family, _ *nat.Table) {
		errs = append(errs, d.setSides(f, old, s.For(f)))
	})
	return errors.Join(errs...)
}

// setSides is setUplinks for one family.
func (d *Daemon) setSides(f uplinks.Family, old, s *uplinks.Snapshot) error {
	var errs []error
	for _, u := range old.Uplinks {
		if s.ByID(u.ID) == nil {
			errs = append(errs, d.fast.SetUplink(u.ID, f, fastpath.Uplink{}), d.fast.SetAddresses(u.ID, f, nil))
		}
	}
	for _, u := range s.Uplinks {
		errs = append(errs, d.fast.SetUplink(u.ID, f, fastpath.Uplink{
			Generation: u.Generation, Index: u.Index, MAC: u.MAC, Gateway: u.Gateway, MTU: u.MTU, HeaderLess: u.HeaderLess,
			Ready: u.Ready(), Usable: u.Ready() && !d.gateway.For(f).Avoids(u),
		}))
	}
	return errors.Join(errs...)
}

// announceAddresses lets the kernel know the uplinks' addresses before the first session uses one, or the host's stack would
// answer the replies.
func (d *Daemon) announceAddresses(s *uplinks.Snapshot) error {
	if d.fast == nil {
		return nil
	}
	var errs []error
	d.tables.each(func(f uplinks.Family, _ *nat.Table) {
		for _, u := range s.For(f).Uplinks {
			errs = append(errs, d.fast.AddAddresses(u.ID, f, u.Outside()))
		}
	})
	return errors.Join(errs...)
}

// preparePorts makes the port arrays of an uplink's side, so that no first packet has to wait for them, and shows them to the
// kernel.
func (d *Daemon) preparePorts(f uplinks.Family, u *uplinks.Uplink) error {
	var arrays []nat.PortArrays
	for _, a := range u.Whole() {
		arrays = append(arrays, nat.PortArrays{Outside: packet.AddrOf(a), TCP: nat.WholeAddress, UDP: nat.WholeAddress})
	}
	arrays = append(arrays, d.tables[f].Prepare(u.ID, u.Shared())...)
	if d.fast == nil {
		return nil
	}
	return d.fast.SetAddresses(u.ID, f, arrays)
}
