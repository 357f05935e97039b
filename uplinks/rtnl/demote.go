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

// demote re-adds a default route with a higher metric and all its other attributes, then removes the original. It returns
// nil when the route is not there any more.
func (k *Kernel) demote(d uplinks.Demotion) (*Record, error) {
	route, err := k.find(d.Route)
	if route == nil || err != nil {
		return nil, err
	}
	if err := k.move(route, d.Metric); err != nil {
		return nil, fmt.Errorf("move the default route with metric %d to %d: %w", d.Route.Metric, d.Metric, err)
	}
	return &Record{Original: d.Route, Metric: d.Metric}, nil
}

// find looks for a route that has r's next hop, among several perhaps.
func (k *Kernel) find(r uplinks.Route) (*netlink.Route, error) {
	routes, err := k.routes(r.Table)
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
	clearState(route)
	moved := *route
	moved.Priority = metric
	if err := k.h.RouteAdd(&moved); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := k.h.RouteDel(route); err != nil && !gone(err) {
		return err
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

// Restore gives demoted routes their metric back. A route that somebody removed meanwhile stays removed.
func (r *Reconciler) Restore(records []Record) error {
	var errs []error
	for _, record := range records {
		demoted := record.Original
		demoted.Metric = record.Metric
		route, err := r.k.find(demoted)
		if err == nil && route != nil {
			err = r.k.move(route, record.Original.Metric)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("restore the default route with metric %d: %w", record.Original.Metric, err))
		}
	}
	return errors.Join(errs...)
}
