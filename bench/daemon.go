package main

import (
	"context"
	"errors"
	"fmt"
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

// daemonConfig leaves everything at its default but the size of the table and, so that each of 100,000 endpoints finds a
// port, the outside ports.
const daemonConfig = "nat: {max_sessions: %d, ports: 1024-65535}\n"

// daemon is a running tapgw.
type daemon struct {
	*lab.Daemon
	dir    string
	client *api.Client

	mu  sync.Mutex
	log []string // its last lines
}

// tapgwMaker runs the given program as the gateway.
func tapgwMaker(binary string) func(context.Context, int) (*peer, error) {
	return func(ctx context.Context, sessions int) (*peer, error) {
		return newPeer(ctx, "tapgw", func(p *peer) error {
			d, err := startDaemon(p.lab.Gateway, binary, fmt.Sprintf(daemonConfig, sessions))
			if err != nil {
				return err
			}
			p.stop = d.stop
			p.memory = d.memory
			return d.awaitUp(ctx)
		})
	}
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
func (d *daemon) awaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.AwaitReady(ctx); err != nil {
		return d.explain(err)
	}
	for {
		status, err := d.client.Status(ctx)
		if err == nil && allUp(status) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return d.explain(fmt.Errorf("the uplinks of tapgw did not come up: %w", errors.Join(err, ctx.Err())))
		}
	}
}

func allUp(s api.Status) bool {
	for _, u := range s.Uplinks {
		if u.State != api.StateUp {
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

// memory is the resident set of the daemon.
func (d *daemon) memory() (m memory, err error) {
	status, err := d.client.Status(context.Background())
	if err != nil {
		return m, err
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.PID()))
	if err != nil {
		return m, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return m, fmt.Errorf("/proc/PID/statm reads %q", statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return memory{sessions: status.Sessions, bytes: pages * uint64(os.Getpagesize()), whole: true}, err
}
