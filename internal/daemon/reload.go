package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/nat"
	"tapgw/uplinks"
)

// reloadOnHangup reads the configuration anew at SIGHUP.
func (d *Daemon) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := d.ask(d.reload); err != nil && ctx.Err() == nil {
				d.log.Error("reload refused, the old configuration stays in force", "error", err)
			}
		}
	}
}

// reload reads the file anew. It runs in the control loop.
func (d *Daemon) reload() error {
	defer d.notifyReloading()()
	err := d.applyFile()
	d.tally.reloaded(err, time.Now())
	return err
}

// applyFile applies a valid new file without touching a session, and refuses a bad one as a whole.
func (d *Daemon) applyFile() error {
	loaded, err := configs.Load(configs.Options{Path: d.opts.ConfigPath, Env: os.Environ()})
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrBadConfig, err)
	}
	if keys := configs.NeedsRestart(*d.cfg(), loaded.Config); len(keys) > 0 {
		return fmt.Errorf("%w: %s can only change with a restart of the daemon", api.ErrConflict, strings.Join(keys, ", "))
	}
	if err := d.setPlan(d.plan(&loaded.Config)); err != nil {
		return fmt.Errorf("%w: %w", api.ErrBadConfig, err)
	}
	d.config.Store(loaded)
	clear(d.dead) // connections on uplinks that are dead already may be reset now
	d.tables.each(func(_ uplinks.Family, table *nat.Table) {
		table.SetTimeouts(timeouts(&loaded.Config))
		table.SetFiltering(filtering(&loaded.Config))
	})
	d.setLimits(&loaded.Config)
	d.gateway.SetTCP(tcpOptions(&loaded.Config))
	d.gateway.SetHelpers(helpers(&loaded.Config))
	d.tracker.Configure(d.trackerConfig(&loaded.Config))
	d.used.SetPlans(plans(&loaded.Config))
	d.followUsage(time.Now())
	if plan := probePlan(&loaded.Config); !reflect.DeepEqual(plan, d.prober.plan) {
		d.prober.replan(plan)
	}
	d.log.Info("configuration reloaded", "file", loaded.Path)
	d.journal.Publish(api.Event{Time: time.Now(), Kind: api.EventReload, Message: "a new configuration is in force"})
	return nil
}

// setUplink runs in the control loop.
func (d *Daemon) setUplink(name string, enabled bool) error {
	if err := d.tracker.SetDisabled(name, !enabled); err != nil {
		return d.unknown(name, err)
	}
	if enabled {
		d.allowUsage(name)
	}
	return nil
}

func (d *Daemon) names() (names []string) {
	for _, u := range d.snapshot.Load().Uplinks {
		names = append(names, u.Name)
	}
	return names
}
