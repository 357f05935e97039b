package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	dir    string
	cmd    *lab.Cmd
	client *api.Client
	ready  chan struct{} // closed when it said so
	exited chan struct{} // closed after err is set
	err    error

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
	d = &daemon{ready: make(chan struct{}), exited: make(chan struct{})}
	if d.dir, err = os.MkdirTemp("", "tapgw-bench-"); err != nil {
		return nil, err
	}
	file, socket := filepath.Join(d.dir, "tapgw.yaml"), filepath.Join(d.dir, "tapgw.sock")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	d.client = &api.Client{Socket: socket}
	d.cmd = ns.Command(context.Background(), binary, "run", "--config", file, "--socket", socket)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	output, writer, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	d.cmd.Stdout, d.cmd.Stderr = writer, writer
	started := make(chan error)
	go d.run(ns, started)
	err = <-started
	writer.Close()
	if err != nil {
		return nil, errors.Join(err, output.Close(), os.RemoveAll(d.dir))
	}
	go d.follow(output)
	return d, nil
}

// run stays on one thread for the daemon's whole life, because the daemon is killed when the thread that started it ends.
func (d *daemon) run(ns *lab.Namespace, started chan<- error) {
	err := ns.Do(func() error {
		err := d.cmd.Cmd.Start()
		started <- err
		if err != nil {
			return err
		}
		return d.cmd.Wait()
	})
	d.err = err
	close(d.exited)
}

// follow keeps the last lines and notices readiness.
func (d *daemon) follow(output io.ReadCloser) {
	defer output.Close()
	said := false
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if !said && strings.Contains(lines.Text(), "ready") {
			said = true
			close(d.ready)
		}
		d.mu.Lock()
		d.log = append(d.log, lines.Text())
		d.log = d.log[max(0, len(d.log)-20):]
		d.mu.Unlock()
	}
}

// awaitUp waits until the daemon captures traffic and all its uplinks are up.
func (d *daemon) awaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-d.ready:
	case <-d.exited:
		return d.explain(errors.Join(errors.New("tapgw ended before it was ready"), d.err))
	case <-ctx.Done():
		return d.explain(fmt.Errorf("tapgw did not become ready: %w", ctx.Err()))
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
	case <-d.exited:
		return d.explain(errors.Join(errors.New("tapgw had ended"), d.err))
	default:
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.exited
		return d.explain(errors.New("tapgw did not stop and was killed"))
	}
	var exit *exec.ExitError
	if errors.As(d.err, &exit) {
		return d.explain(fmt.Errorf("tapgw stopped with %w", exit))
	}
	return nil
}

// memory is the resident set of the daemon.
func (d *daemon) memory() (m memory, err error) {
	status, err := d.client.Status(context.Background())
	if err != nil {
		return m, err
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
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
