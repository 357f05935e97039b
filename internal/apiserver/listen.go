package apiserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// ErrInUse means that another daemon answers on the socket.
var ErrInUse = errors.New("another tapgw is running")

const (
	dialTimeout   = 2 * time.Second
	maxMetricsTCP = 16 // connections at once
	socketMode    = 0o666
	socketDirMode = 0o755
	maxSocket     = len(unix.RawSockaddrUnix{}.Path) - 1 // less the final zero
)

// listenUnix listens on path. A socket file left by a crash is removed, a living one never.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocket {
		return nil, fmt.Errorf("the path of the control socket has %d bytes, and may have %d (set api.socket or --socket)", len(path), maxSocket)
	}
	if err := os.MkdirAll(filepath.Dir(path), socketDirMode); err != nil {
		return nil, fmt.Errorf("make the folder of the control socket (set api.socket or --socket): %w", err)
	}
	if _, err := RemoveStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket (set api.socket or --socket): %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the control socket to local users: %w", err)
	}
	return newPeerListener(l), nil
}

// RemoveStale removes a socket file that a crash left, and reports whether there was one. It fails with ErrInUse where
// somebody answers on it.
func RemoveStale(path string) (removed bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return false, fmt.Errorf("%s is not a socket; remove it, or set api.socket or --socket", path)
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err == nil {
		c.Close()
	}
	// Only a refusal proves that nobody listens: a full backlog or a timeout is a busy daemon.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return false, fmt.Errorf("%w: it answers on %s; stop it first, or give this one a socket of its own", ErrInUse, path)
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("remove the stale control socket: %w", err)
	}
	return true, nil
}

// listenLoopback listens on a TCP address of this host only: metrics are for a collector beside us.
func listenLoopback(address string) (net.Listener, error) {
	if !isLoopback(address) {
		return nil, fmt.Errorf("api.metrics: %q is not a loopback address and port; use for example 127.0.0.1:9473", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w: set api.metrics to another port, or to none", err)
	}
	return netutil.LimitListener(l, maxMetricsTCP), nil
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// hostCheck refuses requests that a web page sent to a name of its own that resolves to loopback (DNS rebinding).
func hostCheck(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			writeError(w, http.StatusForbidden, "this address answers only to its loopback name", "ask for http://127.0.0.1:PORT/metrics")
			return
		}
		next.ServeHTTP(w, r)
	})
}
