package tapdev

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// checkName refuses what the kernel would cut off, or replace by a number.
func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "%/: \t\n") {
		return fmt.Errorf("name %q: 1 to %d characters are allowed, none of %%, / or space", name, unix.IFNAMSIZ-1)
	}
	return nil
}

// lock keeps two daemons from making the same device at once. It is an abstract socket: its names belong to the network
// namespace, as those of devices do, and it vanishes with the process.
func lock(name string) (unlock func(), err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@tapgw-create-" + name}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("another process is making it: %w (%w)", ErrExists, err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

// RemoveLeftover deletes a device of that name that a killed process left between makePersistent and attach, and reports
// whether there was one. Any other device of the name is ErrExists.
func RemoveLeftover(name string) (removed bool, err error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	unlock, err := lock(name)
	if err != nil {
		return false, err
	}
	defer unlock()
	return clearLeftover(handle, name)
}

func clearLeftover(handle *netlink.Handle, name string) (removed bool, err error) {
	link, err := handle.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for an older device: %w", err)
	}
	tap, ok := link.(*netlink.Tuntap)
	if !ok || tap.Mode != netlink.TUNTAP_MODE_TAP || tap.NonPersist || inUse(tap) {
		return false, fmt.Errorf("%w: stop the other daemon, or choose another name", ErrExists)
	}
	if err := handle.LinkDel(link); err != nil {
		return false, fmt.Errorf("delete the leftover device: %w", err)
	}
	return true, nil
}

// inUse reports whether a process has the device open. The kernel counts queues only of multi-queue devices; of others
// it refuses a second opener.
func inUse(tap *netlink.Tuntap) bool {
	multi := tap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
	if multi {
		return tap.Queues+tap.DisabledQueues > 0
	}
	fd, err := openQueue(tap.Name, false)
	if err != nil {
		return true
	}
	_ = unix.Close(fd)
	return false
}

// makePersistent has water make the device, so that openQueue may then choose flags that water does not know.
func makePersistent(name string, multiQueue bool) error {
	tap, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{
		Name: name, Persist: true, MultiQueue: multiQueue,
	}})
	if err != nil {
		return openError(err)
	}
	return tap.Close()
}

func openError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w (%w)", ErrNoTun, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (%w)", ErrNoPermission, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (%w)", ErrExists, err)
	default:
		return fmt.Errorf("open TAP: %w", err)
	}
}

// openQueue opens an existing device by name with a virtio header and all offloads this kernel has.
func openQueue(name string, multiQueue bool) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, openError(err)
	}
	if err := setUpQueue(fd, name, multiQueue); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpQueue(fd int, name string, multiQueue bool) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("device name %q: %w", name, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return openError(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, packet.VnetLen); err != nil {
		return fmt.Errorf("TUNSETVNETHDRSZ: %w", err)
	}
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso); err != nil { // Linux before 6.2 has no USO
		return fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	return nil
}

// removeHalfMade deletes the device when attaching failed while it was still persistent.
func (d *Device) removeHalfMade() error {
	link, err := d.handle.LinkByName(d.cfg.Name)
	if err != nil {
		return nil //nolint:nilerr // no device is what is wanted
	}
	return d.handle.LinkDel(link)
}
