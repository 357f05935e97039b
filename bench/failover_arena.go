package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
)

// errNever marks what should have happened and did not while it was waited for.
var errNever = errors.New("did not happen")

// setUp is what a row changes of the laboratory.
type setUp struct {
	uplink lab.UplinkOptions // both
	config string            // of the first uplink, beside its interface
}

// arenaConfig sends everything by the first uplink as long as it works.
const arenaConfig = `nat: {limits: {sessions_per_host: off, new_per_second: off}}
datapath: {mode: %s}
policy: {scheduler: failover}
uplinks: [{interface: wan1%s}, {interface: wan2, tier: 1}]
`

// arena is a laboratory with a daemon at work, whose events are recorded.
type arena struct {
	*lab.Topology
	first, second *lab.Uplink
	lan           *lab.Host
	gateway       *daemon
	events        history
	closers       []io.Closer // last in, first out
	tasks         sync.WaitGroup
	done          context.CancelFunc
}

// newArena builds one and waits until everything works.
func newArena(ctx context.Context, u setUp, s setting, program string) (a *arena, err error) {
	a = &arena{done: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.Topology, err = lab.Build(lab.Options{Uplinks: []lab.UplinkOptions{u.uplink, u.uplink}}); err != nil {
		return a, err
	}
	a.first, a.second, a.lan = a.Uplinks[0], a.Uplinks[1], a.Hosts[0]
	servers, err := lab.StartServers(a.Internet)
	if err != nil {
		return a, err
	}
	a.closers = append(a.closers, servers)
	if a.gateway, err = startDaemon(a.Gateway, program, fmt.Sprintf(arenaConfig, s.datapath, u.config)); err != nil {
		return a, err
	}
	if err := a.gateway.awaitUp(ctx, ipv4); err != nil {
		return a, err
	}
	if status, err := a.gateway.client.Status(ctx); err != nil || status.Datapath != s.datapath {
		return a, a.gateway.explain(errors.Join(err, fmt.Errorf("the datapath is %q, not %s", status.Datapath, s.datapath)))
	}
	a.follow()
	if err := a.awaitLAN(ctx); err != nil {
		return a, err
	}
	return a, a.fill(ctx, s.crowd)
}

// follow records the daemon's events until close.
func (a *arena) follow() {
	var ctx context.Context
	ctx, a.done = context.WithCancel(context.Background())
	a.tasks.Go(func() { _ = a.gateway.client.Events(ctx, a.events.add) }) // a daemon that died is told of by close
}

// awaitLAN waits until a session of the LAN gets through.
func (a *arena) awaitLAN(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := a.visit(ctx, 100*time.Millisecond)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the gateway forwards nothing: %w", err)
		}
	}
}

func (a *arena) close() (err error) {
	a.done()
	for _, c := range slices.Backward(a.closers) {
		if closing := c.Close(); !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}
	a.tasks.Wait()
	if a.gateway != nil {
		err = errors.Join(err, a.gateway.stop())
	}
	if a.Topology != nil {
		err = errors.Join(err, a.Close())
	}
	return err
}

// visit is one new session of the LAN: a datagram from a socket of its own. It returns what its answer says of its source.
func (a *arena) visit(ctx context.Context, within time.Duration) (outside netip.Addr, err error) {
	conn, err := a.lan.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return outside, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	seen, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], "visit")
	return seen.Addr(), err
}

// dial opens a TCP connection of the LAN to the echo server, which has heard from it once.
func (a *arena) dial(ctx context.Context) (net.Conn, error) {
	conn, err := a.lan.Dial(ctx, "tcp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho).String())
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, conn)
	return conn, talk(conn, patience)
}

// talk has the server echo something.
func talk(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

const (
	crowdRemotes = 250     // of each endpoint
	maxCrowd     = 50_000  // about what default tables hold
	crowdPace    = 10      // seconds in which each session carries one packet each way
	crowdBurst   = 50      // packets at once
	crowdFirst   = 20 << 9 // packets a second while the sessions are opened
)

// fill opens n sessions of UDP endpoints with 250 remotes each, and keeps them alive until close.
func (a *arena) fill(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	endpoints, err := a.crowd(n)
	if err != nil {
		return err
	}
	if err := a.open(ctx, endpoints, n); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	stopFollowing := a.done
	a.done = func() { cancel(); stopFollowing() }
	a.tasks.Go(func() {
		for speak(ctx, endpoints, n, max(n/crowdPace, crowdBurst)) == nil {
		}
	})
	return nil
}

// crowd makes the endpoints of n sessions.
func (a *arena) crowd(n int) (endpoints []net.PacketConn, err error) {
	if err := serveNetwork(a.Internet, ipv4); err != nil {
		return nil, err
	}
	for range (n + crowdRemotes - 1) / crowdRemotes {
		conn, err := a.lan.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, conn)
		endpoints = append(endpoints, conn)
	}
	return endpoints, nil
}

// open has n sessions opened; what a queue was too short for comes again.
func (a *arena) open(ctx context.Context, endpoints []net.PacketConn, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		sent := speak(ctx, endpoints, n, crowdFirst)
		held, err := a.gateway.sessions()
		if err == nil && held >= n {
			return nil
		}
		if sent != nil {
			return fmt.Errorf("%d sessions are held, not %d: %w", held, n, errors.Join(sent, err))
		}
	}
}

// speak sends one packet of each of n sessions, so many a second.
func speak(ctx context.Context, endpoints []net.PacketConn, n, rate int) error {
	for i := range n {
		to := netip.AddrPortFrom(ipv4.server(i%crowdRemotes), lab.PortUDPEcho)
		_, _ = endpoints[i/crowdRemotes].WriteTo([]byte("crowd"), net.UDPAddrFromAddrPort(to)) // refused while nothing is up
		if i%crowdBurst == 0 {
			if err := sleep(ctx, time.Second*crowdBurst/time.Duration(rate)); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// serveNetwork makes every address of the servers' network one of the Internet's own.
func serveNetwork(internet *lab.Namespace, f *family) error {
	lo, err := internet.Handle().LinkByName("lo")
	if err == nil {
		err = internet.Handle().RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
			Scope: unix.RT_SCOPE_HOST, Dst: ipNet(f.servers)})
	}
	if err != nil {
		return fmt.Errorf("route the servers' network: %w", err)
	}
	return nil
}

// history is what the daemon has told.
type history struct {
	mu     sync.Mutex
	events []api.Event
	news   chan struct{} // closed at the next event
}

func (h *history) add(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	if h.news != nil {
		close(h.news)
		h.news = nil
	}
}

// since returns the events of a moment or later, and what is closed at the next.
func (h *history) since(moment time.Time) (list []api.Event, news <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Kind != api.EventSnapshot && !e.Time.Before(moment) {
			list = append(list, e)
		}
	}
	if h.news == nil {
		h.news = make(chan struct{})
	}
	return list, h.news
}

// seen waits until the daemon says that an uplink is down, and returns when it says that was.
func (h *history) seen(ctx context.Context, uplink string, since time.Time, within time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		list, news := h.since(since)
		for _, e := range list {
			if isSwitch(e) && e.Uplink == uplink {
				return e.Time, nil
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("that %s is down %w", uplink, errNever)
		}
	}
}

// isSwitch reports whether an event takes an uplink out of use.
func isSwitch(e api.Event) bool {
	return e.Kind == api.EventState && e.From != e.To && (e.To == api.StateDown || e.To == api.StatePortal)
}
