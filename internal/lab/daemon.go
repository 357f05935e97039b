package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Daemon is tapgw running in a namespace.
type Daemon struct {
	Ready  chan struct{} // closed once it has said that it is
	Exited chan struct{} // closed when it has ended and all its output was read
	Err    error         // of the process, after Exited

	cmd *exec.Cmd
}

// StartDaemon runs a program whose output says "ready" when it is, and hands each line of it to line, on one goroutine. It is
// killed when this process dies.
func (n *Namespace) StartDaemon(line func(string), program string, args ...string) (*Daemon, error) {
	d := &Daemon{Ready: make(chan struct{}), Exited: make(chan struct{}), cmd: exec.Command(program, args...)}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go d.run(n, line, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return d, nil
}

// run stays on one thread for the daemon's whole life, because the daemon is killed when the thread that started it ends.
func (d *Daemon) run(n *Namespace, line func(string), started chan<- error) {
	begun := false
	err := n.Do(func() error {
		output, writer, err := os.Pipe()
		if err != nil {
			return err
		}
		defer output.Close()
		d.cmd.Stdout, d.cmd.Stderr = writer, writer
		err = d.cmd.Start()
		writer.Close()
		if err != nil {
			return err
		}
		begun = true
		started <- nil
		d.follow(bufio.NewScanner(output), line)
		return d.cmd.Wait()
	})
	if !begun {
		started <- err
		return
	}
	d.Err = err
	close(d.Exited)
}

// follow passes the output on and notices readiness.
func (d *Daemon) follow(output *bufio.Scanner, line func(string)) {
	for said := false; output.Scan(); {
		line(output.Text())
		if !said && strings.Contains(output.Text(), "ready") {
			said = true
			close(d.Ready)
		}
	}
}

// PID is the process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends it a signal.
func (d *Daemon) Signal(s os.Signal) error { return d.cmd.Process.Signal(s) }

// ErrDaemon is returned by AwaitReady and Stop when a daemon does not do what it should.
var ErrDaemon = errors.New("tapgw misbehaves")

// AwaitReady waits until it says that it is ready.
func (d *Daemon) AwaitReady(ctx context.Context) error {
	select {
	case <-d.Ready:
		return nil
	case <-d.Exited:
		return errors.Join(fmt.Errorf("%w: it ended before it was ready", ErrDaemon), d.Err)
	case <-ctx.Done():
		return fmt.Errorf("%w: it did not become ready: %w", ErrDaemon, ctx.Err())
	}
}

// AwaitEnd waits until it has ended, and kills it when that takes longer than allowed, which is an error.
func (d *Daemon) AwaitEnd(within time.Duration) error {
	select {
	case <-d.Exited:
		return nil
	case <-time.After(within):
		_ = d.cmd.Process.Kill()
		<-d.Exited
		return fmt.Errorf("%w: it did not end and was killed", ErrDaemon)
	}
}
