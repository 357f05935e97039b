package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
)

const (
	readyWithin = 10 * time.Second
	endWithin   = 5 * time.Second // after which the gateway is killed
	folderFD    = 3               // in the child: the first descriptor behind the standard ones
)

var (
	errEnded    = errors.New("the gateway ended by itself")
	errNotReady = fmt.Errorf("the gateway was not ready within %s", readyWithin)
)

// gateway is the daemon, running as a child process in the gateway's namespace.
type gateway struct {
	client *api.Client
	log    *journal
	states *states
	end    context.CancelFunc
	ended  chan struct{} // closed when the process has ended
	err    error         // of the process, after ended
}

func startGateway(ns *lab.Namespace, f *folder, log *journal) (*gateway, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{client: &api.Client{Socket: f.path(socketFile)}, log: log, states: newStates(), end: cancel, ended: make(chan struct{})}
	cmd := ns.Command(ctx, program, "run", "--socket", inherited(folderFD, socketFile), "--config", inherited(folderFD, configFile))
	cmd.Env = []string{} // a setting of the caller's own gateway must not reach this one
	cmd.ExtraFiles = []*os.File{f.File}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endWithin
	// A group of its own keeps the terminal's Ctrl-C from it, so that it is ended in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go g.run(cmd, started)
	if err := <-started; err != nil {
		cancel()
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	return g, nil
}

// run keeps its thread for as long as the child lives: the death signal comes when the thread that started it ends.
func (g *gateway) run(cmd *lab.Cmd, started chan<- error) {
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	g.err = cmd.Wait()
	close(g.ended)
}

// follow waits until the gateway is ready and then listens to it until it ends.
func (g *gateway) follow(ctx context.Context) error {
	timeout := time.NewTimer(readyWithin)
	defer timeout.Stop()
	select {
	case <-g.log.ready:
		return g.client.Events(ctx, g.states.note)
	case <-timeout.C:
		return errNotReady
	case <-ctx.Done():
		return nil
	}
}

// guard returns a context that ends when the gateway does, or when it cannot be followed; its cause says so.
func (g *gateway) guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		if err := g.follow(ctx); err != nil {
			rest(ctx, time.Second) // a stream ends with the gateway, whose end says more
			cancel(err)
		}
	}()
	go func() {
		select {
		case <-g.ended:
			cancel(g.died())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// died is the error of a gateway that has ended before it was told to.
func (g *gateway) died() error {
	if g.err != nil {
		return fmt.Errorf("%w: %w", errEnded, g.err)
	}
	return errEnded
}

// close ends the gateway in order and waits for it.
func (g *gateway) close() error {
	select {
	case <-g.ended:
		return nil // whoever needed it has said so
	default:
	}
	g.end()
	<-g.ended
	if g.err != nil && !errors.Is(g.err, context.Canceled) {
		return fmt.Errorf("end the gateway: %w", g.err)
	}
	return nil
}
