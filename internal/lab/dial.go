package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"time"
)

// ErrNotLiteral is returned for a host name where only an IP address may stand: resolving would leave the namespace.
var ErrNotLiteral = errors.New("address must be an IP literal with a port")

// dialTimeout bounds connection attempts whose context has no deadline.
const dialTimeout = 30 * time.Second

// Dial connects from inside the namespace; addr is an IP literal and a port.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.DialWith(ctx, &net.Dialer{Timeout: dialTimeout}, network, addr)
}

// DialWith is Dial with options (local address, socket options) of the caller.
func (n *Namespace) DialWith(ctx context.Context, d *net.Dialer, network, addr string) (conn net.Conn, err error) {
	if err := checkLiteral(addr); err != nil {
		return nil, err
	}
	err = n.Do(func() error {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen accepts connections inside the namespace; addr is an IP literal, or empty for all, and a port.
func (n *Namespace) Listen(network, addr string) (listener net.Listener, err error) {
	if err := checkLiteral(addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // plain TCP, as most servers on the Internet
	err = n.Do(func() error {
		listener, err = lc.Listen(context.Background(), network, addr)
		return err
	})
	return listener, err
}

// ListenPacket opens a datagram or raw IP socket inside the namespace ("udp4", "ip4:icmp").
func (n *Namespace) ListenPacket(network, addr string) (conn net.PacketConn, err error) {
	err = n.Do(func() error {
		conn, err = net.ListenPacket(network, addr)
		return err
	})
	return conn, err
}

// HTTPClient returns a client whose every request is a connection of its own from inside the namespace.
func (n *Namespace) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		DialContext:        n.Dial,
	}}
}

// checkLiteral refuses addresses that would make the resolver run.
func checkLiteral(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err == nil && host == "" {
		return nil
	}
	if _, parse := netip.ParseAddr(host); err != nil || parse != nil {
		return fmt.Errorf("%q: %w", addr, ErrNotLiteral)
	}
	return nil
}

// Cmd is an exec.Cmd whose child is born inside a namespace.
type Cmd struct {
	*exec.Cmd
	ns *Namespace
}

// Command prepares a program that will run inside the namespace; ctx ends it.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: n}
}

// Start is exec.Cmd.Start inside the namespace.
func (c *Cmd) Start() error { return c.ns.Do(c.Cmd.Start) }

// Run is exec.Cmd.Run inside the namespace.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is exec.Cmd.Output inside the namespace.
func (c *Cmd) Output() (out []byte, err error) {
	err = c.ns.Do(func() error {
		out, err = c.Cmd.Output()
		return err
	})
	return out, err
}

// CombinedOutput is exec.Cmd.CombinedOutput inside the namespace.
func (c *Cmd) CombinedOutput() (out []byte, err error) {
	err = c.ns.Do(func() error {
		out, err = c.Cmd.CombinedOutput()
		return err
	})
	return out, err
}
