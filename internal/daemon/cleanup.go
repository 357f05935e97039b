package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"tapgw/configs"
	"tapgw/internal/apiserver"
	"tapgw/internal/hostconf"
	"tapgw/tapgw/fastpath"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
	"tapgw/uplinks/rtnl"
)

// Cleaned is one thing that Cleanup took back. Scripts rely on the words of Action and Kind.
type Cleaned struct {
	Action string `json:"action"` // removed, restored, released or closed
	Kind   string `json:"kind"`   // route, rule, default route, nftables, filter, sysctl, neighbour, connections, cgroup, device, socket or file
	Name   string `json:"name"`
}

// cleaner collects what was done and what failed; a failure does not stop the rest.
type cleaner struct {
	socket string
	tap    configs.TAP
	log    *slog.Logger
	left   []netip.Addr // addresses of IPv6 that the TAP had
	done   []Cleaned
	errs   []error
}

func (c *cleaner) note(action, kind string, names ...string) {
	for _, n := range names {
		c.done = append(c.done, Cleaned{action, kind, n})
	}
}

func (c *cleaner) check(err error) { c.errs = append(c.errs, err) }

// Cleanup removes what a killed daemon left and undoes its changes to the host. It returns what it did, also beside an
// error. While a daemon runs the error wraps hostconf.ErrRunning.
func Cleanup(o Options) ([]Cleaned, error) {
	c := newCleaner(o)
	left := exists(lockFile(c.socket))
	lock, err := hostconf.Lock(lockFile(c.socket))
	if errors.Is(err, hostconf.ErrRunning) {
		return nil, fmt.Errorf("%w; stop it first, it cleans up by itself", err)
	}
	if err != nil {
		return nil, err
	}
	c.check(c.host())
	c.check(lock.Close())
	if left {
		c.note("removed", "file", lockFile(c.socket))
	}
	return c.done, oneLine(errors.Join(c.errs...))
}

// newCleaner asks the configuration; one that cannot be used must not keep the host from being cleaned.
func newCleaner(o Options) *cleaner {
	config := configs.Default()
	if loaded, err := configs.Load(configs.Options{Path: o.ConfigPath, Env: os.Environ()}); err == nil {
		config = loaded.Config
	}
	c := &cleaner{socket: cmp.Or(o.Socket, config.API.Socket), tap: config.TAP, log: o.Logger}
	return c
}

// host cleans in the order in which a daemon stops.
func (c *cleaner) host() error {
	rules, err := nft.Open() // it refuses beside a daemon with another socket
	if err != nil {
		return err
	}
	kernel, err := rtnl.Open()
	if err != nil {
		return errors.Join(err, rules.Close())
	}
	defer kernel.Close()
	c.check(c.neighbours(kernel))
	c.check(c.routes(kernel))
	c.check(c.journal(kernel))
	c.check(c.connections(kernel))
	c.check(c.tables(rules))
	c.check(c.filters(kernel))
	c.devices()
	return c.removeSocket()
}

// neighbours ends the kernel's probing of gateways, which the routes of ours still name.
func (c *cleaner) neighbours(kernel *rtnl.Kernel) error {
	kept, err := kernel.KeptNeighbours()
	errs := []error{err}
	for _, n := range kept {
		if err := kernel.ReleaseNeighbour(n.Index, n.Addr); err != nil {
			errs = append(errs, err)
			continue
		}
		c.note("released", "neighbour", n.Addr.String())
	}
	return errors.Join(errs...)
}

func (c *cleaner) routes(kernel *rtnl.Kernel) error {
	report, err := rtnl.NewReconciler(kernel).Apply(uplinks.Wanted{})
	c.note("removed", "route", report.RemovedRoutes...)
	c.note("removed", "rule", report.RemovedRules...)
	return err
}

// connections closes those from an address that was the TAP's, unless this host has it by other means now.
func (c *cleaner) connections(kernel *rtnl.Kernel) error {
	facts, err := kernel.Read()
	if err != nil {
		return err
	}
	for _, addr := range append([]netip.Addr{c.tap.Address.Addr()}, c.left...) {
		if has(facts.Addresses, addr) || has(facts.V6.Addresses, addr) {
			continue
		}
		if closed := closeConnections(addr, c.log); closed > 0 {
			c.note("closed", "connections", fmt.Sprintf("%d from %s", closed, addr))
		}
	}
	return nil
}

// journal restores what the journal of changes says.
func (c *cleaner) journal(kernel *rtnl.Kernel) error {
	file := undoFile(c.socket)
	left := exists(file)
	host, err := hostconf.Open(file)
	if err != nil {
		return err
	}
	errs := []error{c.demoted(kernel, host), c.sysctls(host)}
	c.left, err = tapAddressesLeft(host)
	errs = append(errs, err, c.dropPins(host))
	unfinished, err := hostconf.RemoveUnfinished(file)
	if left && !exists(file) {
		c.note("removed", "file", file)
	}
	c.note("removed", "file", unfinished...)
	return errors.Join(append(errs, err)...)
}

func (c *cleaner) sysctls(host *hostconf.Guard) error {
	before := host.Changes()
	err := host.RestoreAll()
	after := host.Changes()
	for _, change := range before {
		if !slices.Contains(after, change) {
			c.note("restored", "sysctl", change.Path+" to "+change.Old)
		}
	}
	return err
}

// demoted gives the default routes that the daemon moved their metric back.
func (c *cleaner) demoted(kernel *rtnl.Kernel, host *hostconf.Guard) error {
	records, err := demoted(host)
	if err != nil || len(records) == 0 {
		return err
	}
	before, err := kernel.Read()
	if err != nil {
		return err
	}
	restoring := restoreDemoted(rtnl.NewReconciler(kernel), host)
	after, err := kernel.Read()
	for _, r := range records {
		moved := r.Original
		moved.Metric = r.Metric
		if hasRoute(before, moved) && !hasRoute(after, moved) {
			c.note("restored", "default route", fmt.Sprintf("by %s from metric %d to %d", nextHop(r.Original, after), r.Metric, r.Original.Metric))
		}
	}
	return errors.Join(restoring, err)
}

func hasRoute(f uplinks.Facts, r uplinks.Route) bool {
	return slices.Contains(f.Routes, r) || slices.Contains(f.V6.Routes, r)
}

// nextHop is where a route leads, in words.
func nextHop(r uplinks.Route, f uplinks.Facts) string {
	if r.Gateway.IsValid() {
		return r.Gateway.String()
	}
	for _, l := range f.Links {
		if l.Index == r.Index {
			return l.Name
		}
	}
	return fmt.Sprint("device ", r.Index)
}

// tables removes our nftables tables.
func (c *cleaner) tables(rules *nft.Rules) error {
	tables, err := rules.Left()
	closing := rules.Close()
	if closing == nil {
		c.note("removed", "nftables", tables...)
	}
	return errors.Join(err, closing)
}

// filters removes those that ran our programs, on a kernel where they stay.
func (c *cleaner) filters(kernel *rtnl.Kernel) error {
	names, err := removeFilters(kernel)
	c.note("removed", "filter", names...)
	return err
}

// removeFilters removes the filters of a killed process from all devices, and names these.
func removeFilters(kernel *rtnl.Kernel) (names []string, err error) {
	facts, err := kernel.Read()
	for _, l := range facts.Links {
		removed, failed := fastpath.RemoveLeftovers(l.Index)
		if removed {
			names = append(names, l.Name)
		}
		err = errors.Join(err, failed)
	}
	return names, err
}

// devices removes TAP devices that were being made. A device of the name that is another's is left alone.
func (c *cleaner) devices() {
	for _, name := range []string{c.tap.Name, upcallName(c.tap.Name)} {
		removed, err := tapdev.RemoveLeftover(name)
		if !errors.Is(err, tapdev.ErrExists) {
			c.check(err)
		}
		if removed {
			c.note("removed", "device", name)
		}
	}
}

func (c *cleaner) removeSocket() error {
	removed, err := apiserver.RemoveStale(c.socket)
	if removed {
		c.note("removed", "socket", c.socket)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
