// Package lab builds small internets out of anonymous network namespaces on one machine: hosts, a gateway, providers and
// servers, with faults, shaping, packet capture and state snapshots. The tests, the benchmark and the demo run in it.
//
// It needs root. Nothing it makes has a name outside the process, so nothing remains when the process dies.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrPrivilege is returned by New when the process may not create network namespaces.
var ErrPrivilege = errors.New("creating network namespaces needs root (CAP_SYS_ADMIN)")

// Namespace is a network namespace held by a descriptor. All methods may be called from any goroutine.
type Namespace struct {
	name   string
	ns     netns.NsHandle
	handle *netlink.Handle
}

// New makes an empty namespace whose loopback is up; name is used in messages only.
func New(name string) (*Namespace, error) {
	n := &Namespace{name: name, ns: netns.None()}
	err := onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		fd, err := openThreadNamespace()
		n.ns = netns.NsHandle(fd)
		return err
	})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("namespace %s: %w", name, ErrPrivilege)
	}
	if err == nil {
		err = n.prepare()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// Here is the namespace of the calling thread, which stays as it is.
func Here() (*Namespace, error) {
	fd, err := openThreadNamespace()
	if err != nil {
		return nil, err
	}
	n := &Namespace{name: "here", ns: netns.NsHandle(fd)}
	if n.handle, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), n.Close())
	}
	return n, nil
}

// prepare brings loopback up and stops what would put packets of its own on the wire for seconds after a device appears.
func (n *Namespace) prepare() (err error) {
	if n.handle, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	for _, path := range []string{"net/ipv6/conf/default/accept_dad", "net/ipv6/conf/default/router_solicitations"} {
		if err := n.Sysctl(path, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return n.setUp("lo", true)
}

// Name returns the name given to New.
func (n *Namespace) Name() string { return n.name }

// FD returns the descriptor of the namespace, valid until Close.
func (n *Namespace) FD() int { return int(n.ns) }

// Handle returns a netlink handle that acts inside the namespace, valid until Close.
func (n *Namespace) Handle() *netlink.Handle { return n.handle }

// Close gives the namespace up. It lives on while sockets or processes made inside it do.
func (n *Namespace) Close() error {
	if n.handle != nil {
		n.handle.Close()
		n.handle = nil
	}
	if !n.ns.IsOpen() {
		return nil
	}
	return n.ns.Close()
}

// Do runs f on the calling goroutine with its thread inside the namespace. Sockets f opens belong to the namespace for
// good; goroutines f starts do not.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.ns), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		return nil
	}, f)
}

// onThread locks the thread, moves it to another namespace with enter, runs f there and moves it back.
func onThread(enter, f func() error) error {
	runtime.LockOSThread()
	home, err := openThreadNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		back := unix.Setns(home, unix.CLONE_NEWNET)
		unix.Close(home)
		if back != nil { // still locked, so the thread dies with this goroutine and nobody else meets the wrong network
			panic(fmt.Sprintf("lab: cannot leave a network namespace: %v", back))
		}
		runtime.UnlockOSThread()
	}()
	if err := enter(); err != nil {
		return err
	}
	return f()
}

func openThreadNamespace() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc/thread-self/ns/net: %w", err)
	}
	return fd, nil
}

// Sysctl writes a setting of the namespace; path is relative to /proc/sys, as in "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(path, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644); err != nil {
			return fmt.Errorf("namespace %s: set %s=%s: %w", n.name, path, value, err)
		}
		return nil
	})
}

// ReadSysctl reads a setting of the namespace, without the trailing newline.
func (n *Namespace) ReadSysctl(path string) (value string, err error) {
	err = n.Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys", path))
		if err != nil {
			return fmt.Errorf("namespace %s: read %s: %w", n.name, path, err)
		}
		value = strings.TrimSuffix(string(b), "\n")
		return nil
	})
	return value, err
}

// Index returns the interface index of a device.
func (n *Namespace) Index(device string) (int, error) {
	link, err := n.link(device)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

func (n *Namespace) link(device string) (netlink.Link, error) {
	link, err := n.handle.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: find device %s: %w", n.name, device, err)
	}
	return link, nil
}

func (n *Namespace) setUp(device string, up bool) error {
	link, err := n.link(device)
	if err != nil {
		return err
	}
	set := n.handle.LinkSetDown
	if up {
		set = n.handle.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("namespace %s: set %s up=%t: %w", n.name, device, up, err)
	}
	return nil
}
