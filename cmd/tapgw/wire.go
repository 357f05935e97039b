package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tapgw/configs"
	"tapgw/internal/daemon"
	"tapgw/internal/demo"
	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

func daemonOptions(o RunOptions) daemon.Options {
	return daemon.Options{ConfigPath: o.ConfigPath, Socket: o.Socket, Datapath: o.Datapath, Version: o.Version, Logger: o.Logger}
}

func runDaemon(ctx context.Context, o RunOptions) error {
	survive()
	return daemon.Run(ctx, daemonOptions(o))
}

// survive keeps what would end another program from ending the daemon before it has put the host back: the end of a
// pipe that it logs to, and a request to reload while it starts or stops.
func survive() {
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
}

func cleanup(_ context.Context, o RunOptions) ([]daemon.Cleaned, error) {
	return daemon.Cleanup(daemonOptions(o))
}

func loadConfig(path string) (*configs.Loaded, error) {
	return configs.Load(configs.Options{Path: path, Env: os.Environ()})
}

func checkConfig(path string) (warnings []string, err error) {
	loaded, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	for _, w := range loaded.Warnings {
		warnings = append(warnings, w.Error())
	}
	return warnings, nil
}

func showConfig(path string) ([]byte, error) {
	loaded, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	return loaded.Show(), nil
}

// configuredSocket is where the daemon with that configuration listens.
func configuredSocket(path string) string {
	loaded, err := loadConfig(path)
	if err != nil {
		return "" // whoever asks wants a daemon, not to hear of a file
	}
	return loaded.Config.API.Socket
}

// initConfig looks at this machine as the daemon would; it changes nothing and needs no privilege.
func initConfig(context.Context) ([]byte, error) {
	kernel, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	facts, err := kernel.Read()
	if err != nil {
		return nil, fmt.Errorf("look at the network: %w", err)
	}
	tracker := uplinks.NewTracker(uplinks.TrackerConfig{TapName: configs.Default().TAP.Name})
	snapshot, _ := tracker.Update(time.Now(), facts)
	var found []configs.FoundUplink
	for _, u := range snapshot.Uplinks {
		found = append(found, configs.FoundUplink{Interface: u.Interface, Gateway: u.Gateway, Addresses: u.Addresses, Speed: u.CapacityDown})
	}
	return configs.Init(found), nil
}

func runDemo(ctx context.Context, o DemoOptions) error {
	return demo.Run(ctx, demo.Options{Out: o.Out, Rich: o.Colour, Logger: o.Logger})
}
