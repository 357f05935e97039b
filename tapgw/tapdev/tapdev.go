// Package tapdev makes the TAP device whose other end is this process: host, LAN and containers are routed into it, and
// frames are read and written with a virtio header, so that 64 KiB super-packets pass whole. It also makes the upcall
// device, a second TAP by which packets that turn out not to be ours are given back to the host's stack.
package tapdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks/wire/batchio"
)

// Errors that callers test. After Close methods return net.ErrClosed.
var (
	ErrExists       = errors.New("device exists and is not ours to take") // another daemon runs, or the name is used by another device
	ErrNoTun        = errors.New("no /dev/net/tun: load the module (modprobe tun), or give the container the device")
	ErrNoPermission = errors.New("making a TAP device needs root or CAP_NET_ADMIN")
	ErrReadOnly     = errors.New("/proc/sys cannot be written: let the container write it, as a privileged one does")
	ErrGone         = errors.New("TAP device was deleted: create it again")
)

// Config describes the device.
type Config struct {
	Name       string
	Address    netip.Prefix // IPv4 address of the host on the device; invalid: none
	Gateway    netip.Addr   // gets a permanent neighbour entry with GatewayMAC; invalid: none
	IPv6       IPv6
	MAC        [6]byte
	GatewayMAC [6]byte
	MTU        int // bytes
	// Queues is how many descriptors there are to read from at the same time, at least 1. Queue n has what is sent on
	// processors n, n+Queues and so on, so that who reads it there needs no wake-up of another. Several need BPF.
	Queues int
}

// Device is a TAP device that exists as long as it is open.
type Device struct {
	cfg    Config
	index  int
	handle *netlink.Handle // bound to the network namespace of Create
	queues []*Queue

	mu       sync.Mutex // guards what follows, and MTU and IPv6 of cfg
	name     string     // the present one
	standing IPv6       // what the last Check left
}

// Queue is one descriptor of a device.
type Queue struct {
	file *batchio.File
}

// Create makes the device, configures it and brings it up. It is gone when the process ends, however that happens. A
// device of that name that a killed process left behind half-made is replaced; any other is ErrExists.
func Create(cfg Config) (*Device, error) {
	cfg.Queues = max(cfg.Queues, 1)
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	d := &Device{cfg: cfg, handle: handle, name: cfg.Name}
	if err := d.create(); err != nil {
		return nil, fmt.Errorf("TAP device %s: %w", cfg.Name, errors.Join(err, d.Close()))
	}
	return d, nil
}

func (d *Device) create() error {
	if err := checkName(d.cfg.Name); err != nil {
		return err
	}
	unlock, err := lock(d.cfg.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := clearLeftover(d.handle, d.cfg.Name); err != nil {
		return err
	}
	if err := makePersistent(d.cfg.Name, d.cfg.Queues > 1); err != nil {
		return err
	}
	if err := d.attach(); err != nil {
		return errors.Join(err, d.removeHalfMade())
	}
	if err := d.readIndex(); err != nil {
		return err
	}
	return d.configure()
}

// attach opens the queues of the persistent device, after which it lives only as long as they do.
func (d *Device) attach() error {
	for i := range d.cfg.Queues {
		fd, err := openQueue(d.cfg.Name, d.cfg.Queues > 1)
		if err != nil {
			return err
		}
		if i == 0 {
			if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
				return errors.Join(fmt.Errorf("clear persistence: %w", err), unix.Close(fd))
			}
		}
		file, err := batchio.New(fd)
		if err != nil {
			return err
		}
		d.queues = append(d.queues, &Queue{file})
	}
	return d.steer()
}

func (d *Device) readIndex() error {
	link, err := d.handle.LinkByName(d.cfg.Name)
	if err != nil {
		return fmt.Errorf("find it again: %w", err)
	}
	d.index = link.Attrs().Index
	return nil
}

// Index returns the interface index; it never changes.
func (d *Device) Index() int { return d.index }

// Name returns the present name, which Check follows when someone renames the device.
func (d *Device) Name() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}

// Queues returns the descriptors of the device, as many as configured.
func (d *Device) Queues() []*Queue { return d.queues }

// Queue returns queue number modulo their number.
func (d *Device) Queue(number int) *Queue { return d.queues[number%len(d.queues)] }

// Close deletes the device. Readers return net.ErrClosed.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.file.Close())
	}
	d.handle.Close()
	return errors.Join(errs...)
}

// ReadBatch blocks until a frame is there and returns as many as wait, up to len(bufs) and about batchio.MaxBytes; frame i
// is bufs[i][:sizes[i]], virtio header included. Buffers hold batchio.BufferLen bytes. Run it on a goroutine locked to its
// thread, one for each queue. Errors are net.ErrClosed and ErrGone.
func (q *Queue) ReadBatch(bufs [][]byte, sizes []int) (int, error) {
	n, err := q.file.ReadBatch(bufs, sizes, 0)
	return n, ioError(err)
}

// Handled reports whether all frames that waited before the first call with p have been handled by who reads.
func (q *Queue) Handled(p *batchio.Progress) bool { return q.file.Handled(p) }

// Write hands a frame (virtio header, then Ethernet) to the host's stack. Any goroutine may call it, but each is fastest
// with a queue of its own.
func (q *Queue) Write(frame []byte) error { return ioError(q.file.Write(frame)) }

// ioError names what callers test. A device that is down or out of memory only loses the frame.
func ioError(err error) error {
	switch {
	case err == nil, errors.Is(err, net.ErrClosed):
		return err
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.EFAULT):
		return ErrGone
	default:
		return fmt.Errorf("TAP device: %w", err)
	}
}
