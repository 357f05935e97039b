package rtnl

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// Record tells how to undo one demotion. It is written to disk, so that `tapgw cleanup` can undo what a crash left.
type Record struct {
	Original uplinks.Route `json:"original"`
	Metric   int           `json:"metric"` // that it has now
}

// errTaken means that another route has the metric.
var errTaken = errors.New("another default route has that metric")

// demote re-adds a default route with a higher metric and all its other attributes, then removes the original. It returns
// nil when the route is not there any more. What stands for an earlier gateway of the same device goes, for the owner could
// not have added the new route beside it; but not what is demoted together with d, which stood beside it.
func (r *Reconciler) demote(d uplinks.Demotion, together []uplinks.Demotion) (*Record, error) {
	route, err := r.k.find(d.Route)
	if route == nil || err != nil {
		return nil, err
	}
	if err := r.k.move(route, d.Metric); err != nil {
		return nil, fmt.Errorf("move the default route with metric %d to %d: %w", d.Route.Metric, d.Metric, err)
	}
	record := Record{Original: d.Route, Metric: d.Metric}
	stale := func(old Record) bool {
		beside := old.Original != d.Route && slices.ContainsFunc(together, func(o uplinks.Demotion) bool { return o.Route == old.Original })
		return sameSlot(old.Original, d.Route) && !beside
	}
	for _, old := range r.demoted {
		if stale(old) && old != record {
			err = errors.Join(err, r.k.drop(old))
		}
	}
	r.demoted = append(slices.DeleteFunc(r.demoted, stale), record)
	return &record, err
}

// sameSlot reports whether the owner of a default route could not have added the other beside it.
func sameSlot(a, b uplinks.Route) bool {
	return a.Dst == b.Dst && a.Index == b.Index && a.Metric == b.Metric
}

// drop removes a demoted route.
func (k *Kernel) drop(record Record) error {
	route, err := k.find(record.demoted())
	if route == nil || err != nil {
		return err
	}
	clearState(route)
	if err := k.h.RouteDel(route); err != nil && !gone(err) {
		return fmt.Errorf("remove the outdated default route with metric %d: %w", record.Metric, err)
	}
	return nil
}

// demoted is the route as it is now.
func (record Record) demoted() uplinks.Route {
	r := record.Original
	r.Metric = record.Metric
	return r
}

// find looks for a route that has r's next hop, among several perhaps.
func (k *Kernel) find(r uplinks.Route) (*netlink.Route, error) {
	routes, err := k.routes(familyOf(r.Dst.Addr()), r.Table)
	if err != nil {
		return nil, err
	}
	for i := range routes {
		if slices.Contains(fromRoute(&routes[i]), r) {
			return &routes[i], nil
		}
	}
	return nil, nil
}

// move gives a route another metric. An equal route that stands there already serves as well.
func (k *Kernel) move(route *netlink.Route, metric int) error {
	return k.moveBy(k.h.RouteAdd, route, metric)
}

func (k *Kernel) moveBy(add func(*netlink.Route) error, route *netlink.Route, metric int) error {
	clearState(route)
	moved := *route
	moved.Priority = metric
	err := add(&moved)
	if errors.Is(err, unix.EEXIST) {
		err = k.mustEqual(&moved)
	}
	if err != nil {
		return err
	}
	if err := k.h.RouteDel(route); err != nil && !gone(err) {
		return err
	}
	return nil
}

// mustEqual returns errTaken unless the kernel has that very route.
func (k *Kernel) mustEqual(route *netlink.Route) error {
	for _, hop := range fromRoute(route) {
		if found, err := k.find(hop); err != nil || found == nil {
			return errors.Join(errTaken, err)
		}
	}
	return nil
}

// clearState drops flags that the kernel reports but does not accept.
func clearState(r *netlink.Route) {
	r.Flags &= unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
	hops := r.MultiPath
	r.MultiPath = nil
	for _, hop := range hops {
		one := *hop
		one.Flags &= unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
		r.MultiPath = append(r.MultiPath, &one)
	}
}

// Restore gives demoted routes their metric back, in the order in which they were demoted. A route that somebody removed
// meanwhile stays removed.
func (r *Reconciler) Restore(records []Record) error {
	var errs []error
	for _, record := range records {
		if err := r.k.restore(record, records); err != nil {
			errs = append(errs, fmt.Errorf("restore the default route with metric %d: %w", record.Original.Metric, err))
		}
	}
	r.demoted = nil
	return errors.Join(errs...)
}

func (k *Kernel) restore(record Record, records []Record) error {
	route, err := k.find(record.demoted())
	if route == nil || err != nil {
		return err
	}
	err = k.move(route, record.Original.Metric)
	if !errors.Is(err, errTaken) {
		return err
	}
	restored, listing := k.onlyRestored(record.Original, records)
	if !restored {
		return errors.Join(err, listing)
	}
	return k.moveBy(k.h.RouteAppend, route, record.Original.Metric)
}

// onlyRestored reports whether all routes that the kernel holds to be the same entry as r were demoted as well: several may
// have had the metric, or got it one after the other while we ran.
func (k *Kernel) onlyRestored(r uplinks.Route, records []Record) (bool, error) {
	routes, err := k.routes(familyOf(r.Dst.Addr()), r.Table)
	if err != nil {
		return false, err
	}
	for i := range routes {
		demoted := slices.ContainsFunc(records, func(o Record) bool { return slices.Contains(fromRoute(&routes[i]), o.Original) })
		if sameKey(routes[i], r) && !demoted {
			return false, nil
		}
	}
	return true, nil
}
