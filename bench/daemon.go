package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
)

// patience bounds every wait for readiness.
const patience = 20 * time.Second

// daemonConfig leaves everything at its default but the datapath, the size of the table and, so that each of 100,000
// endpoints finds a port, the outside ports, and that one host of the LAN may do all; and the targets of probes, as the laboratory
// resolves no names, for which one uplink is degraded sooner than the other.
const daemonConfig = `nat: {%s: %d, ports: 1024-65535, limits: {sessions_per_host: off, new_per_second: off}}
datapath: {mode: %s, lan_shortcut: %s}
probe: {targets: [1.1.1.1, 8.8.8.8, 'icmp://2606:4700:4700::1111', 'icmp://2001:4860:4860::8888']}
`

// variant is a way to run tapgw.
type variant struct {
	name     string
	datapath string // api.DatapathKernel or api.DatapathUserspace, which is also its word in the configuration
	shortcut string // auto or off
	rules    bool   // the host has rules for what it forwards, and tracks connections
	watched  bool
}

var variants = []variant{
	{nameShortcut, api.DatapathKernel, "auto", false, false},
	{nameWatched, api.DatapathKernel, "auto", false, true},
	{namePlain, api.DatapathKernel, "off", true, false},
	{nameUserspace, api.DatapathUserspace, "off", false, false},
}

// daemon is a running tapgw.
type daemon struct {
	*lab.Daemon
	dir    string
	client *api.Client

	mu  sync.Mutex
	log []string // its last lines
}

// maker runs the given program as the gateway.
func (v variant) maker(binary string) maker {
	return maker{v.name, func(ctx context.Context, r room) (*peer, error) {
		var d *daemon
		p := &peer{name: v.name, family: r.family, rates: r.rates, translates: true}
		p, err := newPeer(ctx, p, func() (err error) {
			if err := v.prepare(p.lab.Gateway, r); err != nil {
				return err
			}
			config := fmt.Sprintf(daemonConfig, r.family.room, r.sessions, v.datapath, v.shortcut) + capacities(r.rates)
			if d, err = startDaemon(p.lab.Gateway, binary, config); err != nil {
				return err
			}
			p.stop, p.sessions, p.memory = d.stop, d.sessions, d.memory
			if v.datapath == api.DatapathKernel {
				p.sent = d.sent
			}
			return d.awaitUp(ctx, r.family)
		})
		if err != nil {
			return nil, err
		}
		if err := v.await(ctx, d); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", v.name, err), p.close())
		}
		unwatch := func() {}
		if v.watched {
			unwatch, err = d.watch(ctx, p.lab.Gateway)
		}
		p.stop = func() error {
			unwatch()
			return errors.Join(v.verify(context.WithoutCancel(ctx), d), d.stop())
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		return p, nil
	}}
}

// await gives the daemon time to become what it was told to be: it must have seen a LAN to go past the host's forwarding.
func (v variant) await(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := v.verify(ctx, d)
		if err == nil || sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// prepare gives the host rules for what it forwards. More sessions than connection tracking may hold (a limit of the
// machine, not of the namespace) are the flood's, which is exempt then.
func (v variant) prepare(gateway *lab.Namespace, r room) error {
	if !v.rules {
		return nil
	}
	limit, err := readNumber(gateway, "net/netfilter/nf_conntrack_max")
	if err == nil {
		err = addForwardRules(gateway, r.family)
	}
	if err == nil && r.sessions > limit {
		err = exemptFlood(gateway, r.family)
	}
	return err
}

// verify fails when the daemon does not run as it was told to: what it fell back to is not what the row is about.
func (v variant) verify(ctx context.Context, d *daemon) error {
	status, err := d.client.Status(ctx)
	if err != nil {
		return d.explain(err)
	}
	if shortcut := v.shortcut == "auto"; status.Datapath != v.datapath || status.LANShortcut != shortcut {
		return d.explain(fmt.Errorf("it runs the %s datapath (LAN shortcut: %t), not the %s datapath (%t)",
			status.Datapath, status.LANShortcut, v.datapath, shortcut))
	}
	return nil
}

func startDaemon(ns *lab.Namespace, binary, config string) (d *daemon, err error) {
	d = new(daemon)
	if d.dir, err = os.MkdirTemp("", "tapgw-bench-"); err != nil {
		return nil, err
	}
	file, socket := filepath.Join(d.dir, "tapgw.yaml"), filepath.Join(d.dir, "tapgw.sock")
	d.client = &api.Client{Socket: socket}
	if err = os.WriteFile(file, []byte(config), 0o600); err == nil {
		d.Daemon, err = ns.StartDaemon(d.note, binary, "run", "--config", file, "--socket", socket)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	return d, nil
}

// note keeps the last lines of the daemon.
func (d *daemon) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, line)
	d.log = d.log[max(0, len(d.log)-20):]
}

// awaitUp waits until the daemon captures traffic and all its uplinks are up.
func (d *daemon) awaitUp(ctx context.Context, f *family) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.AwaitReady(ctx); err != nil {
		return d.explain(err)
	}
	for {
		status, err := d.client.Status(ctx)
		if err == nil && f.allUp(status) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return d.explain(fmt.Errorf("the uplinks of tapgw did not come up: %w", errors.Join(err, ctx.Err())))
		}
	}
}

func (f *family) allUp(s api.Status) bool {
	for _, u := range s.Uplinks {
		if f.state(u) != api.StateUp {
			return false
		}
	}
	return len(s.Uplinks) > 0
}

// explain adds the daemon's last lines to an error.
func (d *daemon) explain(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Errorf("%w\n%s", err, strings.Join(d.log, "\n"))
}

// stop ends the daemon as an administrator would, then by force. A daemon that had ended by itself is an error.
func (d *daemon) stop() error {
	defer os.RemoveAll(d.dir)
	select {
	case <-d.Exited:
		return d.explain(errors.Join(errors.New("tapgw had ended"), d.Err))
	default:
	}
	_ = d.Signal(syscall.SIGTERM)
	if err := errors.Join(d.AwaitEnd(patience), d.Err); err != nil {
		return d.explain(fmt.Errorf("stop tapgw: %w", err))
	}
	return nil
}

// sessions is how many the daemon holds.
func (d *daemon) sessions() (int, error) {
	status, err := d.client.Status(context.Background())
	return status.Sessions, err
}

// sent is how many packets the daemon itself has sent by the uplinks, as its metrics say.
func (d *daemon) sent() (packets uint64, err error) {
	found := false
	err = d.scrape(context.Background(), func(line string) error {
		if !strings.HasPrefix(line, "tapgw_uplink_datapath_transmit_packets_total{") {
			return nil
		}
		found = true
		_, value, _ := strings.Cut(line, "} ")
		n, err := strconv.ParseFloat(value, 64)
		packets += uint64(n)
		return err
	})
	if err == nil && !found {
		err = errors.New("the metrics do not tell what tapgw has sent")
	}
	return packets, err
}

// scrape reads the daemon's metrics line by line.
func (d *daemon) scrape(ctx context.Context, take func(line string) error) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.client.Socket)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tapgw/metrics", nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	if err != nil {
		return d.explain(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if err := take(lines.Text()); err != nil {
			return fmt.Errorf("metrics read %q: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}

// memory is all that the daemon occupies: the arrays that it shares with the kernel, and its resident set without them.
func (d *daemon) memory() (m memory, err error) {
	arrays, err := mapBytes(d.PID())
	if err != nil {
		return m, err
	}
	resident, err := residentBytes(d.PID())
	return memory{bytes: arrays + resident, whole: true, reserved: arrays > 0}, err
}
