// Package daemon wires the parts into the running gateway: it opens what must be opened, keeps the kernel as the uplinks
// want it, and takes everything back at the end. Nothing but commands imports it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/internal/apiserver"
	"tapgw/internal/hostconf"
	"tapgw/internal/lannames"
	"tapgw/internal/metrics"
	"tapgw/internal/owner"
	"tapgw/internal/resolvers"
	"tapgw/names"
	"tapgw/nat"
	"tapgw/probe"
	"tapgw/tapgw"
	"tapgw/tapgw/fastpath"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
	"tapgw/uplinks/rtnl"
)

// Options is what the command line says.
type Options struct {
	ConfigPath string // "" means the default
	Socket     string // "" leaves it to the configuration
	Datapath   string // auto, kernel or userspace; "" leaves it to the configuration
	Wait       bool   // start without an uplink too
	Version    string
	Logger     *slog.Logger
}

// ErrNoUplink is returned by Run when the host has no way to the Internet to begin with.
var ErrNoUplink = errors.New("no uplink found")

// Daemon is a running gateway. Its control loop (control.go) owns everything that is not said to be shared.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	started time.Time
	config  atomic.Pointer[configs.Loaded] // shared

	kernel    *rtnl.Kernel
	watcher   *rtnl.Watcher // shared
	shaken    *rtnl.Shaken
	owners    *owner.Finder // nil where the kernel does not tell; shared
	programs  *owner.Finder // for people who look, so that packets do not wait for them; nil as owners; shared
	rates     sessionRates  // shared
	routes    *rtnl.Reconciler
	rules     *nft.Rules
	foreign   *nft.Foreign
	host      *hostconf.Guard
	lock      *hostconf.InstanceLock
	tracker   *uplinks.Tracker
	dns       *resolvers.Reader
	lanNames  *lannames.Book // shared
	prober    *prober
	tables    tables             // shared
	fast      *fastpath.Programs // nil while userspace carries all packets; shared
	noFast    noFastPath         // why, fixed once everything is open
	lan       lanPath
	untracked untracked
	ruleset   ruleset
	turned    turned
	bypass    bypass
	used      *dataUse
	gateway   *tapgw.DualStack
	numbers   ruleNumbers // shared
	hosts     *hosts      // shared
	meters    tapgw.Meters
	pumps     *pumps
	journal   *journal                  // shared
	tally     *tally                    // shared
	paused    atomic.Pointer[time.Time] // until when, nil while traffic is captured; shared
	pins      []pin
	hostPins  atomic.Pointer[[]hostPin] // nil for none; shared
	asking    chan struct{}             // a token for each that asks probes' targets; shared
	past      *past                     // shared
	api       *apiserver.Server

	pool     []nat.PortRange // outside ports
	seed     uint64          // of the give-back addresses
	ports    map[uint8]openPort
	services services
	held     heldPorts                        // shared
	snapshot atomic.Pointer[uplinks.Snapshot] // shared

	loads [uplinks.MaxUplinks]atomic.Pointer[probe.Load] // as of the latest sample; shared

	tapAddresses uplinks.TapAddresses // of IPv6
	domainBook   *names.Book          // names of addresses, shared

	manager     manager
	complaints  complaints         // that were logged
	refused     complaints         // about hosts whose new sessions are refused
	rivalry     rivalry            // with whoever removes our routes
	unfinished  bool               // the last look left something to do
	renewed     map[side]time.Time // when a silent gateway was last asked for its MAC address anew
	failingBack atomic.Bool        // shared
	dead        map[side]*dead     // what is down while another works
	heard       map[side]heard     // by probes

	tasks        *errgroup.Group
	readers      sync.WaitGroup       // of frames; they end when what they read from is closed
	changed      chan struct{}        // the kernel's facts may have changed
	checkDue     chan struct{}        // the periodic look
	pace         atomic.Pointer[pace] // of the looks; shared
	processors   processors           // shared
	rulesChanged chan struct{}        // somebody changed rules of nftables
	verdicts     chan verdict
	suspicions   chan suspicion
	waiting      chan struct{} // first packets wait for an answer
	commands     chan command
	stopped      chan struct{} // closed when the control loop has ended
}

// gcPercent is a quarter of what is usual: sessions lie elsewhere, so the heap is small and soon collected, while garbage stays resident.
const gcPercent = 25

// Run is the gateway until ctx ends; then it returns nil with the host as it was before.
func Run(ctx context.Context, o Options) error {
	loaded, err := configs.Load(configs.Options{Path: o.ConfigPath, Env: os.Environ()})
	if err != nil {
		return err
	}
	for _, w := range loaded.Warnings {
		o.Logger.Warn("configuration", "warning", w.Error())
	}
	debug.SetGCPercent(gcPercent)
	if err := relaxWatcher(); err != nil {
		o.Logger.Debug("Go's runtime wakes up more often than it must", "error", err)
	}
	d := newDaemon(o, loaded)
	if err := d.open(); err != nil {
		return oneLine(err, d.close())
	}
	if err := oneLine(d.serve(ctx), d.close()); err != nil {
		return err
	}
	d.log.Info("stopped, the network is as it was before")
	return nil
}

func newDaemon(o Options, c *configs.Loaded) *Daemon {
	past, tally := newPast(o.Logger), newTally(time.Now())
	d := &Daemon{
		opts: o, log: o.Logger, started: time.Now(), dns: resolvers.New(), lanNames: lannames.New(), foreign: nft.NewForeign(), past: past, tally: tally, journal: newJournal(o.Logger, past.History, tally), manager: newManager(o.Logger), used: newDataUse(o.Logger), seed: rand.Uint64(),
		ports: make(map[uint8]openPort), renewed: make(map[side]time.Time), dead: make(map[side]*dead), heard: make(map[side]heard), changed: make(chan struct{}, 1), rulesChanged: make(chan struct{}, 1),
		checkDue: make(chan struct{}, 1), verdicts: make(chan verdict, 2*uplinks.MaxUplinks),
		suspicions: make(chan suspicion, 2*uplinks.MaxUplinks), waiting: make(chan struct{}, 1),
		commands: make(chan command), stopped: make(chan struct{}), asking: make(chan struct{}, maxAsking),
	}
	d.config.Store(c)
	d.snapshot.Store(uplinks.NewSnapshot(nil))
	demand := uplinks.NewDemand()
	for i := range d.meters {
		d.meters[i] = uplinks.NewMeter(demand)
	}
	return d
}

func (d *Daemon) cfg() *configs.Config { return &d.config.Load().Config }

func (d *Daemon) socket() string {
	if d.opts.Socket != "" {
		return d.opts.Socket
	}
	return d.cfg().API.Socket
}

// undoFile is where the changes that outlive a crash are written down: beside the socket.
func undoFile(socket string) string { return filepath.Join(filepath.Dir(socket), "undo.json") }

// lockFile keeps a second daemon from starting.
func lockFile(socket string) string { return filepath.Join(filepath.Dir(socket), "lock") }

// open acquires everything that can fail for want of a privilege, a device or an uplink, and changes no route yet.
func (d *Daemon) open() (err error) {
	c := d.cfg()
	if d.lock, err = hostconf.Lock(lockFile(d.socket())); err != nil {
		return err
	}
	if err := d.openKernel(); err != nil {
		return err
	}
	facts, err := d.readFacts(time.Now())
	if err != nil {
		return err
	}
	d.tracker = uplinks.NewTracker(d.trackerConfig(c))
	snapshot, _ := d.tracker.Update(time.Now(), facts)
	if err := d.requireUplink(snapshot); err != nil {
		return err
	}
	d.tracker = uplinks.NewTracker(d.trackerConfig(c)) // so that the first converge reports what appeared
	d.openUsage(snapshot)
	d.past.open(pastPath(d.socket()))
	if err := d.openTables(c); err != nil {
		return err
	}
	d.api = d.apiServer()
	if err := d.api.Listen(); err != nil {
		return err
	}
	if _, err := removeFilters(d.kernel); err != nil {
		d.log.Debug("filters of a killed daemon may be left", "error", err)
	}
	if err := d.openDevices(largestMTU(snapshot)); err != nil {
		return err
	}
	if d.rules, err = nft.Open(); err != nil {
		return err
	}
	if err := checkTAPAddress(c, facts); err != nil {
		return err
	}
	if d.host, err = hostconf.Open(undoFile(d.socket())); err != nil {
		return err
	}
	if err := d.adoptPins(); err != nil {
		return err
	}
	return d.adoptTAPAddresses(facts)
}

// requireUplink fails where there is none, unless one may come later.
func (d *Daemon) requireUplink(s *uplinks.Snapshot) error {
	if len(s.Uplinks) > 0 {
		return nil
	}
	if !d.opts.Wait {
		return fmt.Errorf("%w: connect to the Internet first (`ip route` must show a default route), name one in the configuration under uplinks, or start without one (--wait)", ErrNoUplink)
	}
	d.log.Info("no uplink yet, waiting for one")
	return nil
}

// openKernel opens what reads and changes addresses, routes and rules.
func (d *Daemon) openKernel() (err error) {
	if d.kernel, err = rtnl.Open(); err != nil {
		return err
	}
	d.hosts = newHosts(d.kernel)
	d.routes = rtnl.NewReconciler(d.kernel)
	d.openOwners()
	d.shaken, err = rtnl.NewShaken()
	return err
}

// openDevices makes the TAP and the give-back device; a second daemon fails here.
func (d *Daemon) openDevices(mtu int) error {
	tap, err := tapdev.Create(d.tapConfig(mtu))
	if err != nil {
		return err
	}
	d.pumps.tap.Store(tap)
	if err := d.openUpcall(); err != nil {
		return err
	}
	return d.attachDevices()
}

// openUpcall makes the give-back device.
func (d *Daemon) openUpcall() error {
	c := d.cfg()
	upcall, err := tapdev.CreateUpcall(tapdev.UpcallConfig{
		Name: upcallName(c.TAP.Name), MAC: upcallMAC, Address: c.TAP.Address.Addr(), Seed: d.seed, Queues: d.queues(),
	})
	if err == nil {
		d.pumps.upcall.Store(upcall)
	}
	return err
}

// serve runs all tasks until ctx ends or one of them fails.
func (d *Daemon) serve(ctx context.Context) (err error) {
	if d.watcher, err = rtnl.NewWatcher(d.log); err != nil {
		return err
	}
	var running context.Context
	d.tasks, running = errgroup.WithContext(ctx)
	d.startTAP(d.pumps.tap.Load()) // before anything may replace it
	d.findServices()
	d.followUsage(time.Now())
	if err := d.converge(running); err != nil {
		d.watcher.Close()
		return err
	}
	d.complain(d.followBypass(true))
	d.tasks.Go(func() error { return d.watcher.Run(running, d.changed) })
	d.tasks.Go(func() error { return d.watchRules(running) })
	d.tasks.Go(func() error { return d.control(running) })
	d.tasks.Go(func() error { return d.measure(running) })
	d.tasks.Go(func() error { return d.used.keep(running, func() bool { return len(plans(d.cfg())) > 0 }) })
	d.tasks.Go(func() error { return d.past.keep(running) })
	d.tasks.Go(func() error { return d.watchAnswers(running) })
	d.tasks.Go(func() error { return d.reloadOnHangup(running) })
	d.tasks.Go(func() error { return d.api.Run(running) })
	d.tasks.Go(func() error { return d.announce(running, d.api.Ready()) })
	return d.tasks.Wait()
}

// announce tells whoever waits that traffic is captured and the socket answers.
func (d *Daemon) announce(ctx context.Context, listening <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-listening:
	}
	debug.FreeOSMemory() // what loading the programs took and nobody needs again
	d.log.Info("ready", "uplinks", len(d.snapshot.Load().Uplinks), "tap", d.pumps.tap.Load().Name(), "socket", d.socket(),
		"dashboard", d.api.DashboardURL(), "datapath", backend{d}.datapath(), "reason", d.noFast.text)
	if len(d.snapshot.Load().Uplinks) == 1 {
		d.log.Info("one uplink", "hint", api.OneUplink)
	}
	d.notifyReady()
	return nil
}

func (d *Daemon) apiServer() *apiserver.Server {
	o := apiserver.Options{
		Socket: d.socket(), Metrics: metrics.Handler(backend{d}, d.opts.Version), Logger: d.log, Dashboard: d.dashboard(),
	}
	if m := d.cfg().API.Metrics; m.IsValid() {
		o.MetricsAddress = m.String()
	}
	return apiserver.New(backend{d}, o)
}

// close takes back everything: first the capture, so that traffic flows by plain routing while the rest goes.
func (d *Daemon) close() error {
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	if d.prober != nil {
		d.prober.close()
	}
	if d.api != nil {
		d.api.Close()
	}
	if d.host != nil {
		note(d.dropPins())
		note(d.restoreRoutes())
		note(d.host.RestoreAll()) // while our rules still guard what is forwarded
		note(d.closeCaptured())   // while they keep the resets from leaving untranslated
	}
	if d.fast != nil {
		note(d.fast.Detach())
	}
	for id := range d.ports {
		note(d.closePort(id))
	}
	if d.pumps != nil {
		note(d.pumps.close())
	}
	d.readers.Wait()
	if d.fast != nil {
		note(d.fast.Close())
	}
	if d.rules != nil {
		note(d.rules.Close())
	}
	note(d.foreign.Close())
	if d.services.reader != nil {
		d.services.reader.Close()
	}
	d.closeOwners()
	if d.shaken != nil {
		d.shaken.Close()
	}
	if d.kernel != nil {
		d.releaseNeighbours()
		d.kernel.Close()
	}
	if d.lock != nil {
		note(d.lock.Close())
	}
	return errors.Join(errs...)
}
