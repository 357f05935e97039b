package rtnl

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// Report is what Apply changed. All empty means that the kernel was as wanted.
type Report struct {
	Rules  []uplinks.Rule  // added
	Routes []uplinks.Route // added or replaced
	// Lost holds what we had installed before, still want, and somebody else (or a device that went down) removed.
	LostRules  []uplinks.Rule
	LostRoutes []uplinks.Route

	RemovedRules  []string // ours, no longer wanted, in words
	RemovedRoutes []string
	Demoted       []Record // to be kept for Restore
}

// Changed reports whether anything was changed.
func (r *Report) Changed() bool {
	return len(r.Rules)+len(r.Routes)+len(r.RemovedRules)+len(r.RemovedRoutes)+len(r.Demoted) > 0
}

// Reconciler makes rules and routes of ours what is wanted, and touches nothing else but the routes to be demoted. It is
// not safe for concurrent use.
type Reconciler struct {
	k         *Kernel
	installed map[any]bool // rules and routes present after the last Apply
	demoted   []Record     // by this process
}

// NewReconciler returns a reconciler that has installed nothing yet.
func NewReconciler(k *Kernel) *Reconciler { return &Reconciler{k: k, installed: make(map[any]bool)} }

// present is what the kernel has of ours.
type present struct {
	rules  []netlink.Rule
	routes []netlink.Route
}

func (k *Kernel) present() (present, error) {
	var p present
	for _, family := range families {
		rules, err := dump("rules", func() ([]netlink.Rule, error) { return k.h.RuleList(family) })
		if err != nil {
			return present{}, err
		}
		routes, err := k.routes(family, unix.RT_TABLE_UNSPEC)
		if err != nil {
			return present{}, err
		}
		p.rules = append(p.rules, slices.DeleteFunc(rules, func(r netlink.Rule) bool { return !ourRule(r) })...)
		p.routes = append(p.routes, slices.DeleteFunc(routes, func(r netlink.Route) bool { return r.Protocol != uplinks.Protocol })...)
	}
	return p, nil
}

// ourRule keeps rules of others in our range of priorities out.
func ourRule(r netlink.Rule) bool {
	inRange := r.Priority >= uplinks.ResolverRule && r.Priority <= uplinks.RuleLast
	return inRange && (r.Protocol == uplinks.Protocol || ourTable(r.Table))
}

func ourTable(table int) bool {
	return table >= uplinks.TableBase && table <= uplinks.PauseTable
}

// Apply makes the kernel equal to w: first additions in the order of w, then demotions, then removals in reverse. A single
// failure (a device that went away meanwhile, say) does not stop the rest; all are joined in the error, and the next Apply
// tries again.
func (r *Reconciler) Apply(w uplinks.Wanted) (Report, error) {
	have, err := r.k.present()
	if err != nil {
		return Report{}, err
	}
	var report Report
	var errs []error
	inTables := func(route uplinks.Route) bool { return route.Table != uplinks.TableMain }
	errs = append(errs, r.addRoutes(w.Routes, inTables, have, &report)...)
	errs = append(errs, r.addRules(w.Rules, have, &report)...)
	errs = append(errs, r.addRoutes(w.Routes, func(route uplinks.Route) bool { return !inTables(route) }, have, &report)...)
	for _, d := range w.Demote {
		record, err := r.demote(d, w.Demote)
		if record != nil {
			report.Demoted = append(report.Demoted, *record)
		}
		errs = append(errs, err)
	}
	errs = append(errs, r.k.remove(surplus(w, have), &report)...)
	r.remember(w)
	return report, errors.Join(errs...)
}

// remember notes what stands now, or should: what could not be added counts as lost when it is added later, which is
// harmless.
func (r *Reconciler) remember(w uplinks.Wanted) {
	clear(r.installed)
	for _, rule := range w.Rules {
		r.installed[rule] = true
	}
	for _, route := range w.Routes {
		r.installed[route] = true
	}
}

func (r *Reconciler) addRules(wanted []uplinks.Rule, have present, report *Report) (errs []error) {
	for _, rule := range wanted {
		if slices.ContainsFunc(have.rules, func(h netlink.Rule) bool { return sameRule(h, rule) }) {
			continue
		}
		if err := r.k.h.RuleAdd(toRule(rule)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add rule %d for table %d: %w", rule.Priority, rule.Table, err))
			continue
		}
		report.Rules = append(report.Rules, rule)
		if r.installed[rule] {
			report.LostRules = append(report.LostRules, rule)
		}
	}
	return errs
}

func (r *Reconciler) addRoutes(wanted []uplinks.Route, pick func(uplinks.Route) bool, have present, report *Report) (errs []error) {
	for _, route := range wanted {
		if !pick(route) || slices.ContainsFunc(have.routes, func(h netlink.Route) bool { return sameRoute(h, route) }) {
			continue
		}
		if err := r.k.putRoute(route, have); err != nil {
			errs = append(errs, fmt.Errorf("add route %s metric %d to table %d: %w", route.Dst, route.Metric, route.Table, err))
			continue
		}
		report.Routes = append(report.Routes, route)
		if r.installed[route] {
			report.LostRoutes = append(report.LostRoutes, route)
		}
	}
	return errs
}

// putRoute adds a route. In a table of ours, or where ours has the same destination and metric, it replaces without a gap;
// a foreign route of table main is never replaced.
func (k *Kernel) putRoute(route uplinks.Route, have present) error {
	replace := ourTable(route.Table) || slices.ContainsFunc(have.routes, func(h netlink.Route) bool { return sameKey(h, route) })
	if replace {
		return k.h.RouteReplace(toRoute(route))
	}
	return k.h.RouteAdd(toRoute(route))
}

// surplus is what of ours is not wanted. A route whose key is wanted with another next hop has been replaced.
func surplus(w uplinks.Wanted, have present) present {
	var s present
	for _, h := range have.rules {
		if !slices.ContainsFunc(w.Rules, func(r uplinks.Rule) bool { return sameRule(h, r) }) {
			s.rules = append(s.rules, h)
		}
	}
	for _, h := range have.routes {
		if !slices.ContainsFunc(w.Routes, func(r uplinks.Route) bool { return sameKey(h, r) }) {
			s.routes = append(s.routes, h)
		}
	}
	return s
}

// remove deletes routes of main, then rules, then the tables behind them. What is gone already counts as removed.
func (k *Kernel) remove(s present, report *Report) (errs []error) {
	routes := func(main bool) {
		for _, route := range s.routes {
			if (route.Table == uplinks.TableMain) != main {
				continue
			}
			clearState(&route)
			if err := k.h.RouteDel(&route); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("remove route %s from table %d: %w", destination(&route), route.Table, err))
				continue
			}
			report.RemovedRoutes = append(report.RemovedRoutes,
				fmt.Sprintf("%s of table %d with metric %d", destination(&route), route.Table, route.Priority))
		}
	}
	routes(true)
	for _, rule := range s.rules {
		if err := k.h.RuleDel(&rule); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove rule %d: %w", rule.Priority, err))
			continue
		}
		report.RemovedRules = append(report.RemovedRules, fmt.Sprintf("%d from %s to table %d", rule.Priority, ruleSource(rule), rule.Table))
	}
	routes(false)
	return errs
}

func ruleSource(r netlink.Rule) string {
	if r.Src == nil {
		return "all"
	}
	return r.Src.String()
}

func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// Cleanup removes every rule and route of ours, also those that an earlier process left.
func (r *Reconciler) Cleanup() error {
	have, err := r.k.present()
	if err != nil {
		return err
	}
	clear(r.installed)
	var report Report
	return errors.Join(r.k.remove(have, &report)...)
}
