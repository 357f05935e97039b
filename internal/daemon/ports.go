package daemon

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
)

// maxQueues bounds the readers of a device.
const maxQueues = 4

// queues is how many descriptors each of our devices has: where the kernel carries known sessions one for each processor. A
// second reader for everything did not pay on two cores, where hosts and daemon share them.
func (d *Daemon) queues() int {
	if d.fast == nil {
		return 1
	}
	return min(runtime.NumCPU(), maxQueues)
}

func (d *Daemon) tapConfig(mtu int) tapdev.Config {
	c := d.cfg()
	return tapdev.Config{
		Name: c.TAP.Name, Address: c.TAP.Address, Gateway: c.TAP.Gateway(), MAC: tapMAC, GatewayMAC: gatewayMAC,
		IPv6: d.tapIPv6(), MTU: mtu, Queues: d.queues(),
	}
}

// largestMTU is what the TAP must carry, bytes.
func largestMTU(s *uplinks.Snapshot) int {
	mtu := 0
	for _, u := range s.Uplinks {
		if u.Index != 0 {
			mtu = max(mtu, u.MTU)
		}
	}
	if mtu == 0 {
		return 1500
	}
	return mtu
}

// startTAP reads the device's queues until it is closed or gone. Any other end of a reader has the control loop end the
// daemon: a host whose packets nobody reads is better off without the TAP.
func (d *Daemon) startTAP(tap *tapdev.Device) {
	for number := range tap.Queues() {
		d.readers.Go(func() {
			if err := d.pumps.runTAP(tap, number); err != nil {
				err = fmt.Errorf("the TAP cannot be read any more, start tapgw again: %w", err)
				d.pumps.failure.Store(&err)
				d.lookAgain()
			}
		})
	}
}

// checkTAP repairs the TAP, or makes it anew when somebody deleted it.
func (d *Daemon) checkTAP(s *uplinks.Snapshot) error {
	tap := d.pumps.tap.Load()
	repaired, err := tap.Check(largestMTU(s))
	for _, what := range repaired {
		d.repaired("TAP: " + what)
	}
	if !errors.Is(err, tapdev.ErrGone) && !errors.Is(err, net.ErrClosed) { // closed: it could not be made anew last time
		return errors.Join(err, d.attachTAP())
	}
	_ = tap.Close() // its descriptors lead nowhere
	tap, err = tapdev.Create(d.tapConfig(largestMTU(s)))
	if err != nil {
		return fmt.Errorf("make the deleted TAP anew: %w", err)
	}
	d.pumps.tap.Store(tap)
	d.startTAP(tap)
	d.repaired("TAP: deleted by someone, made anew")
	return d.attachTAP()
}

// checkUpcall is checkTAP for the give-back device.
func (d *Daemon) checkUpcall() error {
	old := d.pumps.upcall.Load()
	repaired, err := old.Check()
	for _, what := range repaired {
		d.repaired("give-back device: " + what)
	}
	if !errors.Is(err, tapdev.ErrGone) {
		return errors.Join(err, d.attachUpcall())
	}
	if err := d.openUpcall(); err != nil {
		return fmt.Errorf("make the deleted give-back device anew: %w", err)
	}
	_ = old.Close() // its descriptor leads nowhere
	for id, p := range d.ports {
		if !p.taken {
			d.bindUpcall(id, p.config.Index)
		}
	}
	if d.fast != nil {
		d.startUpcall()
	}
	d.repaired("give-back device: deleted by someone, made anew")
	return d.attachUpcall()
}

// bindUpcall makes what is given back appear on the uplink's device.
func (d *Daemon) bindUpcall(id uint8, index int) {
	if err := d.pumps.upcall.Load().BindUplink(id, index); err != nil {
		d.log.Warn("packets that are not ours reach sockets of this host, but no firewall rule that names the uplink",
			"index", index, "error", err)
	}
}

// reopenEvery is how soon after it was opened a port whose reader failed is opened anew, so that one that fails at once
// costs little.
const reopenEvery = time.Second

// errPortFailed: the reader of a port ended, and it is too soon for another.
var errPortFailed = errors.New("its packets cannot be read, the sockets are opened anew in a moment")

// openPort is an uplink's sockets and what they were opened with.
type openPort struct {
	*wire.Port
	config wire.Config
	taken  bool   // the fast path takes what is received; the sockets only send
	filter string // what the socket filter was made of
	opened time.Time
	failed *atomic.Bool // set when its reader ended with an error
}

// fits reports whether the sockets are of the uplink's present device.
func (p *openPort) fits(u *uplinks.Uplink) bool {
	return p.config.Index == u.Index && p.config.MAC == u.MAC && p.config.HeaderLess == u.HeaderLess
}

// followPorts opens, re-binds and closes sockets until each uplink that has a device has its own.
func (d *Daemon) followPorts(s *uplinks.Snapshot) error {
	var errs []error
	for id := range d.ports {
		if u := s.ByID(id); u == nil || u.Index == 0 {
			errs = append(errs, d.closePort(id))
		}
	}
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		if err := d.followPort(s, u); err != nil {
			errs = append(errs, fmt.Errorf("uplink %s: %w", u.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) followPort(s *uplinks.Snapshot, u *uplinks.Uplink) error {
	p, open := d.ports[u.ID]
	failed := open && p.failed.Load()
	if failed && p.fits(u) && time.Since(p.opened) < reopenEvery {
		return errPortFailed
	}
	if failed || open && !p.fits(u) {
		if err := d.closePort(u.ID); err != nil {
			return err
		}
		open = false
	}
	if !open {
		var err error
		if p, err = d.openPort(u); err != nil {
			return err
		}
	}
	if p.config.GatewayMAC != u.GatewayMAC || p.config.GatewayMACV6 != u.V6.GatewayMAC || p.config.MTU != u.MTU {
		p.config.GatewayMAC, p.config.GatewayMACV6, p.config.MTU = u.GatewayMAC, u.V6.GatewayMAC, u.MTU
		p.SetNextHop(u.GatewayMAC, u.V6.GatewayMAC, u.MTU)
	}
	var err error
	if !p.taken {
		err = d.setFilter(s, &p, u)
	}
	d.ports[u.ID] = p
	return err
}

// openPort opens the sockets and starts reading them.
func (d *Daemon) openPort(u *uplinks.Uplink) (openPort, error) {
	taken := d.take(u)
	c := wire.Config{
		Index: u.Index, MAC: u.MAC, GatewayMAC: u.GatewayMAC, GatewayMACV6: u.V6.GatewayMAC, MTU: u.MTU, HeaderLess: u.HeaderLess,
		SendOnly: taken,
	}
	port, err := wire.Open(c)
	if err != nil {
		return openPort{}, err
	}
	p := openPort{Port: port, config: c, taken: taken, opened: time.Now(), failed: new(atomic.Bool)}
	d.meters[u.ID].Reset()
	d.pumps.ports[u.ID].Store(port)
	if !taken {
		d.bindUpcall(u.ID, u.Index)
		d.startPort(u, &p)
	}
	return p, nil
}

// take has the fast path take what an uplink receives, and reports whether it does.
func (d *Daemon) take(u *uplinks.Uplink) bool {
	if d.fast == nil {
		return false
	}
	err := d.fast.AttachUplink(u.ID, u.Index, u.HeaderLess)
	if err != nil {
		d.log.Warn("no fast path for what an uplink receives, userspace takes it", "uplink", u.Name, "error", err)
	}
	return err == nil
}

// startPort reads what an uplink receives.
func (d *Daemon) startPort(u *uplinks.Uplink, p *openPort) {
	d.processors.provide(2*d.queues() + len(d.ports))
	port, failed := p.Port, p.failed
	d.readers.Go(func() {
		if err := d.pumps.runUplink(u.ID, port); err != nil {
			d.log.Error("the uplink cannot be read, opening its sockets anew", "uplink", u.Name, "error", err)
			failed.Store(true)
			d.lookAgain()
		}
	})
}

// setFilter has an uplink receive what is sent to any uplink's addresses: of another's, what is for its mappings must not come
// to the host's stack.
func (d *Daemon) setFilter(s *uplinks.Snapshot, p *openPort, u *uplinks.Uplink) error {
	f := wire.FilterConfig{
		Addresses: d.received(s, u), Prefixes: d.prefixes(s), Services: d.services.visible, Secret: wire.GiveBackMAC(d.seed, u.ID),
	}
	for _, one := range s.Uplinks {
		f.Whole = append(f.Whole, d.carried(one, (*uplinks.Side).Whole)...)
	}
	filter := fmt.Sprint(f.Addresses, f.Whole, f.Prefixes, f.Services)
	if p.filter == filter {
		return nil
	}
	for _, r := range d.pool {
		f.Ports = append(f.Ports, wire.PortRange(r))
	}
	if err := p.SetFilter(f); err != nil {
		return err
	}
	p.filter = filter
	return nil
}

func (d *Daemon) closePort(id uint8) error {
	p := d.ports[id]
	delete(d.ports, id)
	d.pumps.ports[id].Store(nil)
	d.meters[id].Reset()
	errs := []error{d.pumps.upcall.Load().BindUplink(id, 0), p.Close()}
	if p.taken {
		errs = append(errs, d.fast.DetachUplink(id))
	}
	return errors.Join(errs...)
}

// close ends all pumps that are left: those of the TAP and what gives back.
func (p *pumps) close() error {
	var errs []error
	if tap := p.tap.Load(); tap != nil {
		errs = append(errs, tap.Close())
	}
	if upcall := p.upcall.Load(); upcall != nil {
		errs = append(errs, upcall.Close())
	}
	return errors.Join(errs...)
}
