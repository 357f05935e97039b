// Package apiserver serves the local API (package api) over a unix socket, metrics also on a loopback address, and the dashboard.
//
// Who may do what is decided by the peer's credentials: every local user may read; root, the daemon's own user and
// members of the group "tapgw" may change things. At the dashboard somebody has the rights of who had the daemon let them in.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"tapgw/api"
)

// Reader is what everybody may ask the daemon.
type Reader interface {
	Status() api.Status
	// Sessions calls yield for every session until it returns false. A slow reader of the API may hold yield up for
	// seconds, so no lock may be held around it.
	Sessions(yield func(api.Session) bool)
	// RatedSessions is Sessions with rates, which take some time to be measured unless ctx ends.
	RatedSessions(ctx context.Context, yield func(api.Session) bool)
	// Describe adds the program to a session.
	Describe(s *api.Session)
	// Why says what would become of a session.
	Why(q api.Question) (api.Why, error)
	// Pins returns which hosts and sites are pinned to uplinks.
	Pins() []api.Pin
	// Config returns the configuration in force, as YAML.
	Config() ([]byte, error)
	// History returns what the uplinks carried in one of the spans of package api; ok is false of any other.
	History(span string) (h api.History, ok bool)
	// PastEvents returns what happened, the oldest first.
	PastEvents() []api.Event
}

// Changer is what only the privileged may ask. Errors that wrap those of package api become their HTTP status.
type Changer interface {
	SetUplink(name string, enabled bool) error
	SetUsage(name string, bytes uint64) error
	Reload() error
	// Prefer has new sessions use an uplink while it is up, none for "".
	Prefer(name string) error
	// SetMetered overrides the configuration.
	SetMetered(name string, m api.Metered) error
	// Pause leaves traffic to the host's own routes for so long.
	Pause(d time.Duration) error
	Resume() error
	// Pin has a process use an uplink alone.
	Pin(name string, pid int) error
	// PinHost has the new sessions of an inside host, or of the gateway itself, use an uplink.
	PinHost(p api.Pin) error
	Unpin(inside netip.Addr, site string) error
	// Probe asks the targets of an uplink, or of all for "".
	Probe(ctx context.Context, name string) ([]api.Probe, error)
}

// Feed hands out events as they happen. The channel is closed when the follower is too slow or the feed ends; stop
// releases it. Hub is one.
type Feed interface {
	Subscribe() (events <-chan api.Event, stop func())
	// Missed returns the events after the one with that number, as far as they are remembered, and the number of the latest.
	Missed(after uint64) (missed []api.Event, last uint64)
}

// Backend is the daemon behind the API. All methods may be called concurrently.
type Backend interface {
	Reader
	Changer
	Feed
}

// Group is the name of the group whose members may change things.
const Group = "tapgw"

// Options says where to listen.
type Options struct {
	Socket         string       // path of the unix socket
	MetricsAddress string       // loopback host:port that serves /metrics too, or ""
	Metrics        http.Handler // serves /metrics
	Dashboard      Dashboard
	Logger         *slog.Logger
}

// Server serves the API of one backend. Make it with New.
type Server struct {
	backend   Backend
	opts      Options
	log       *slog.Logger
	ready     chan struct{}
	followers places // of events on the socket
	lookers   places // at the dashboard, which others than users of the socket reach
	groupID   func() (uint32, error)
	now       func() time.Time

	control, loopback net.Listener // nil before Listen
	dashboard         *dashboard
}

// Times and sizes that bound what a client can hold on to.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 5 * time.Second  // after the headers
	answerTimeout = 30 * time.Second // without progress
	idleTimeout   = 30 * time.Second
	stopTimeout   = time.Second
	maxHeader     = 16 << 10
	maxBody       = 4 << 10 // no request of ours has one
	maxFollowers  = 64
)

// New returns a server that does nothing until Listen or Run.
func New(b Backend, o Options) *Server {
	s := &Server{
		backend:   b,
		opts:      o,
		log:       o.Logger,
		ready:     make(chan struct{}),
		followers: make(places, maxFollowers),
		lookers:   make(places, maxFollowers),
		groupID:   lookupGroup,
		now:       time.Now,
	}
	s.dashboard = newDashboard(o.Dashboard, func() time.Time { return s.now() })
	return s
}

// Ready is closed once the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Listen opens the socket and the address of the metrics; requests wait there for Run. It fails at once when another
// daemon answers on the socket (ErrInUse) or an address cannot be listened on. Without a Run after it, call Close.
func (s *Server) Listen() (err error) {
	if s.control, err = listenUnix(s.opts.Socket); err != nil {
		return err
	}
	if s.opts.MetricsAddress == "" {
		return nil
	}
	if s.loopback, err = listenLoopback(s.opts.MetricsAddress); err != nil {
		s.Close()
	}
	return err
}

// Close stops listening; it may be called more than once, and before Listen.
func (s *Server) Close() {
	for _, l := range []net.Listener{s.control, s.loopback, s.dashboard.listener} {
		if l != nil {
			l.Close()
		}
	}
}

// Run serves until ctx ends and then returns nil. It listens first where Listen has not been called.
func (s *Server) Run(ctx context.Context) error {
	if s.control == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	defer s.Close()
	s.listenDashboard() // now that nothing else can fail that somebody should rather hear of
	close(s.ready)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return s.serve(ctx, s.control, s.handler()) })
	if s.loopback != nil {
		tasks.Go(func() error { return s.serve(ctx, s.loopback, hostCheck(s.metricsOnly())) })
	}
	if l := s.dashboard.listener; l != nil {
		tasks.Go(func() error { return s.serve(ctx, l, s.dashboardHandler()) })
	}
	return tasks.Wait()
}

// serve answers on l until ctx ends; what is still open then gets a moment to finish.
func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	web := &http.Server{
		Handler:           bound(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),

		DisableGeneralOptionsHandler: true, // it comes before bound
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if web.Shutdown(grace) != nil {
			web.Close()
		}
	}()
	err := web.Serve(l)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}

// lookupGroup is asked on every change, so that the group may be made while the daemon runs.
func lookupGroup() (uint32, error) {
	g, err := user.LookupGroup(Group)
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(id), err
}
