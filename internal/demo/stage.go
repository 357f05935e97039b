package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"tapgw/internal/lab"
)

// The uplinks by their place in everything that is counted per uplink.
const (
	first  = 0 // the faster one, which is cut
	second = 1
	count  = 2
)

// mega is a million: rates are in bits per second.
const mega = 1e6

var (
	uplinkNames = [count]string{"isp1", "isp2"}   // for the daemon
	titles      = [count]string{"ISP 1", "ISP 2"} // for people
	capacities  = [count]float64{30 * mega, 20 * mega}
)

var server = lab.ServerAddrs[0]

// stage is the small internet with the gateway running in it.
type stage struct {
	net     *lab.Topology
	servers *lab.Servers
	folder  *folder
	gateway *gateway
	log     *journal
}

// build sets the stage up and starts the gateway. What it has built by the time it fails, close takes down.
func (s *stage) build(ctx context.Context) (err error) {
	if s.net, err = lab.Build(lab.Options{Uplinks: shaped()}); err != nil {
		return err
	}
	if s.servers, err = lab.StartHTTP(s.net.Internet, lab.PortHTTP, tellCaller(lab.NewHandler())); err != nil {
		return err
	}
	// A LAN host has always talked to its router before, by which the gateway knows that it has a LAN to forward for.
	if _, err := s.net.Hosts[0].Ping(ctx, lab.GatewayLANAddr); err != nil {
		return err
	}
	if s.folder, err = newFolder(); err != nil {
		return err
	}
	if err := os.WriteFile(s.folder.path(configFile), []byte(config(s.net)), 0o600); err != nil {
		return fmt.Errorf("write the gateway's configuration: %w", err)
	}
	s.gateway, err = startGateway(s.net.Gateway, s.folder, s.log)
	return err
}

// awaitUsable waits until all uplinks are in use.
func (s *stage) awaitUsable(ctx context.Context) error {
	for _, name := range uplinkNames {
		if err := s.gateway.states.await(ctx, name, true); err != nil {
			return err
		}
	}
	return nil
}

func shaped() []lab.UplinkOptions {
	var list []lab.UplinkOptions
	for _, c := range capacities {
		list = append(list, lab.UplinkOptions{Down: uint64(c), Up: uint64(c)})
	}
	return list
}

// config tells the gateway what its uplinks can carry, as a user would.
func config(t *lab.Topology) string {
	text := "uplinks:\n"
	for i, u := range t.Uplinks {
		text += fmt.Sprintf("  - {name: %s, interface: %s, capacity: {down: %.0fMbit, up: %.0fMbit}}\n",
			uplinkNames[i], u.Device, capacities[i]/mega, capacities[i]/mega)
	}
	return text
}

// uplinkOf returns the uplink behind which the servers saw addr, or -1.
func (s *stage) uplinkOf(addr netip.Addr) int {
	for i, u := range s.net.Uplinks {
		if u.Addr() == addr {
			return i
		}
	}
	return -1
}

// cut makes the first provider lose everything while the link to it stays up: the failure that only probes notice.
func (s *stage) cut() error { return s.net.Uplinks[first].SetFaults(lab.Blackhole) }

func (s *stage) mend() error { return s.net.Uplinks[first].SetFaults() }

// close ends the gateway and takes the stage down; what was never built is skipped.
func (s *stage) close() error {
	var errs []error
	if s.gateway != nil {
		errs = append(errs, s.gateway.close())
	}
	if s.folder != nil {
		errs = append(errs, s.folder.Close())
	}
	if s.servers != nil {
		errs = append(errs, s.servers.Close())
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	return errors.Join(errs...)
}
