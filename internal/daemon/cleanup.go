package daemon

import (
	"errors"
	"fmt"
	"os"

	"tapgw/configs"
	"tapgw/internal/hostconf"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
	"tapgw/uplinks/rtnl"
)

// Cleanup removes what a killed daemon left in the kernel and undoes its changes to the host. It returns what it removed,
// one clause each. While a daemon runs the error wraps hostconf.ErrRunning.
func Cleanup(o Options) (removed []string, err error) {
	socket := o.Socket
	if socket == "" {
		socket = configs.Default().API.Socket
		if loaded, err := configs.Load(configs.Options{Path: o.ConfigPath, Env: os.Environ()}); err == nil {
			socket = loaded.Config.API.Socket
		}
	}
	lock, err := hostconf.Lock(lockFile(socket))
	if err != nil {
		return nil, fmt.Errorf("%w; stop it first, it cleans up by itself", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	rules, err := nft.Open() // it refuses beside a daemon with another socket
	if err != nil {
		return nil, err
	}
	removed, err = cleanRoutes(undoFile(socket))
	return removed, errors.Join(err, rules.Close())
}

// cleanRoutes removes routes and rules and restores what the journal of changes says.
func cleanRoutes(undo string) (removed []string, err error) {
	kernel, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	reconciler := rtnl.NewReconciler(kernel)
	report, err := reconciler.Apply(uplinks.Wanted{})
	if n := report.RemovedRoutes + report.RemovedRules; n > 0 {
		removed = append(removed, fmt.Sprintf("%d routes and %d rules", report.RemovedRoutes, report.RemovedRules))
	}
	if err != nil {
		return removed, err
	}
	host, err := hostconf.Open(undo)
	if err != nil {
		return removed, err
	}
	return removed, errors.Join(restoreDemoted(reconciler, host), host.RestoreAll())
}
