package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/internal/capture"
	"tapgw/internal/daemon"
	"tapgw/internal/demo"
	"tapgw/internal/hostconf"
	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

func daemonOptions(o RunOptions) daemon.Options {
	return daemon.Options{ConfigPath: o.ConfigPath, Socket: o.Socket, Datapath: o.Datapath, Wait: o.Wait, Version: o.Version, Logger: o.Logger}
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

func checkConfig(path string) (found bool, warnings []string, err error) {
	loaded, err := loadConfig(path)
	if err != nil {
		return false, nil, err
	}
	for _, w := range loaded.Warnings {
		warnings = append(warnings, w.Error())
	}
	return loaded.Path != "", warnings, nil
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

// usableConfig is what the file says, or the default where it cannot be used.
func usableConfig(path string) configs.Config {
	loaded, err := loadConfig(path)
	if err != nil {
		return configs.Default()
	}
	return loaded.Config
}

// readFacts asks the kernel of this network namespace.
func readFacts() (uplinks.Facts, error) {
	kernel, err := rtnl.Open()
	if err != nil {
		return uplinks.Facts{}, err
	}
	defer kernel.Close()
	facts, err := kernel.Read()
	if err != nil {
		return uplinks.Facts{}, fmt.Errorf("look at the network: %w", err)
	}
	return facts, nil
}

// capturePoints are where packets of the uplink's sessions pass.
func capturePoints(configPath, uplink string, s api.Status) ([]capture.Point, error) {
	facts, err := readFacts()
	if err != nil {
		return nil, err
	}
	tap := usableConfig(configPath).TAP.Name
	var interfaces []string
	for _, u := range s.Uplinks {
		interfaces = append(interfaces, u.Interface)
	}
	lan := hostconf.LANInterfaces(hostconf.Wanted{TAP: tap, Upcall: tap + "u", Uplinks: interfaces, Facts: facts}, nil)
	return capture.Points(capture.Gateway{
		Links: facts.Links, TAP: tap, LAN: lan, Uplink: uplink, Kernel: s.Datapath == api.DatapathKernel,
	}), nil
}

// initConfig looks at this machine as the daemon would; it changes nothing and needs no privilege.
func initConfig(context.Context) ([]byte, error) {
	facts, err := readFacts()
	if err != nil {
		return nil, err
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
