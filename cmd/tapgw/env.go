package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"tapgw/api"
	"tapgw/internal/capture"
	"tapgw/internal/daemon"
	"tapgw/internal/doctor"
	"tapgw/internal/portal"
)

// Env is everything the commands touch outside of themselves, so that tests can give them a world of their own.
type Env struct {
	Args     []string // without the program's name
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Now      func() time.Time // its location is the one times are shown in
	Terminal bool             // stdout is one
	Console  bool             // stderr is one
	Journal  bool             // stderr goes to systemd's journal
	Version  string

	// Run is the daemon, until ctx ends.
	Run func(ctx context.Context, o RunOptions) error
	// Cleanup takes back what a crashed daemon left behind and says what that was.
	Cleanup func(ctx context.Context, o RunOptions) ([]daemon.Cleaned, error)
	// Demo shows the main job in namespaces of its own.
	Demo func(ctx context.Context, o DemoOptions) error
	// CheckConfig reports all that is wrong with the file at path ("" means the default), or what is probably not meant;
	// found is false where there is no default file.
	CheckConfig func(path string) (found bool, warnings []string, err error)
	// ShowConfig returns the configuration that the file at path, the environment and the defaults make, as YAML.
	ShowConfig func(path string) ([]byte, error)
	// Socket returns the control socket of the file at path ("" means the default), "" when that cannot be used.
	Socket func(path string) string
	// Resolve returns the addresses of a name.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Way binds connections to one family of an uplink.
	Way func(ctx context.Context, o Outlet) (portal.Way, error)
	// Browser returns the command of a browser that takes a proxy on its command line, "" for none.
	Browser func() string
	// Exec replaces this program by a command, and returns only when it cannot.
	Exec func(command []string) error
	// InitConfig returns a commented configuration to start from.
	InitConfig func(ctx context.Context) ([]byte, error)
	// Examine looks at the host, with the names of the configuration at configPath ("" means the default).
	Examine func(ctx context.Context, o doctor.Options, configPath string) ([]doctor.Finding, error)
	// CapturePoints are those of the uplink with that interface, with the names of the configuration at configPath.
	CapturePoints func(configPath, uplink string, s api.Status) ([]capture.Point, error)
	// KernelState lists what the kernel holds of this host's network.
	KernelState func() ([]byte, error)
}

// RunOptions is what the command line says to the daemon and to cleanup.
type RunOptions struct {
	ConfigPath string // "" means the default
	Socket     string // "" leaves it to the configuration
	Datapath   string // auto, kernel or userspace; "" leaves it to the configuration
	Wait       bool   // for the first uplink
	Version    string
	Logger     *slog.Logger
}

// DemoOptions is what the command line says to the demo.
type DemoOptions struct {
	Out    io.Writer
	Colour bool
	Logger *slog.Logger
}

// Exit statuses, which scripts rely on.
const (
	exitOK            = 0
	exitFailure       = 1
	exitUsage         = 2
	exitTimeout       = 3
	exitSomeUplinks   = 4
	exitNoUplink      = 5
	exitNoDaemon      = 8
	exitUnknownUplink = 10
	exitNotRun        = 126
	exitNoCommand     = 127
)

// exitError is an answer, not a failure: everything has been printed already.
type exitError int

func (s exitError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// statusError is a failure with an exit status of its own.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

// execute runs the command line of e and returns the exit status.
func execute(ctx context.Context, e *Env) int {
	root := newRoot(e)
	root.SetArgs(e.Args)
	err := root.ExecuteContext(ctx)
	var status exitError
	if errors.As(err, &status) {
		return int(status)
	}
	if err != nil {
		fmt.Fprintf(e.Stderr, "tapgw: %s\n", cleanLines(err.Error()))
	}
	return codeOf(err)
}

func codeOf(err error) int {
	var usage usageError
	var own statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	case errors.Is(err, api.ErrUnknownUplink):
		return exitUnknownUplink
	}
	return exitFailure
}
