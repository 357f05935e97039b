package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// tunPair is a cable of two TUN devices whose packets are copied in both directions; the kernel completes checksums and
// segments before a TUN without a virtio header, so nothing else is needed.
type tunPair struct {
	near, far *os.File
	copiers   sync.WaitGroup
	delay     atomic.Int64 // nanoseconds, of each direction
}

// onTheWay is how many packets of a direction may be delayed at a time; more are lost.
const onTheWay = 1 << 12

// delayed is a packet on its way.
type delayed struct {
	packet []byte
	due    time.Time
}

func (t *tunPair) plug(l *Link) (err error) {
	if t.near, err = openTUN(l.Near, l.MTU); err != nil {
		return err
	}
	if t.far, err = openTUN(l.Far, l.MTU); err != nil {
		return errors.Join(err, t.unplug(l))
	}
	near, far := t.near, t.far
	t.carry(far, near)
	t.carry(near, far)
	return nil
}

// carry copies one direction until a descriptor is closed.
func (t *tunPair) carry(to, from *os.File) {
	late := make(chan delayed, onTheWay)
	t.copiers.Go(func() {
		defer close(late)
		t.copyPackets(to, from, late)
	})
	t.copiers.Go(func() {
		for p := range late {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.packet) // lost on a device that is closed or full
		}
	})
}

// unplug closes the descriptors, with which the devices go.
func (t *tunPair) unplug(*Link) (err error) {
	for _, f := range []*os.File{t.near, t.far} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	t.copiers.Wait()
	t.near, t.far = nil, nil
	return err
}

// carrier acts on both ends, as a modem that loses its line tells its host.
func (t *tunPair) carrier(_ *Link, on bool) error {
	return errors.Join(setTUNCarrier(t.near, on), setTUNCarrier(t.far, on))
}

// setTUNCarrier passes a pointer to the value, which is what this request alone among its kind wants.
func setTUNCarrier(f *os.File, on bool) error {
	if f == nil {
		return os.ErrClosed
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioctl error
	err = raw.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, int(boolWord(on)))
	})
	return errors.Join(err, ioctl)
}

func openTUN(e End, mtu int) (f *os.File, err error) {
	err = e.NS.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun (is the tun module loaded?): %w", err)
		}
		req, err := unix.NewIfreq(e.Device)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return e.wrap(err)
		}
		f = os.NewFile(uintptr(fd), e.Device)
		return nil
	})
	if err != nil {
		return nil, err
	}
	link, err := e.NS.link(e.Device)
	if err == nil {
		err = e.wrap(e.NS.handle.LinkSetMTU(link, mtu))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// copyPackets carries whole packets until a descriptor is closed. A device that is down refuses with EIO, a full one with
// ENOBUFS: the packet is lost, as on a real line.
func (t *tunPair) copyPackets(to, from *os.File, late chan<- delayed) {
	buf := make([]byte, maxPacket)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			if errors.Is(err, unix.EBADFD) { // the device is gone with its namespace
				return
			}
			continue
		}
		if wait := time.Duration(t.delay.Load()); wait > 0 {
			select {
			case late <- delayed{slices.Clone(buf[:n]), time.Now().Add(wait)}:
			default:
			}
			continue
		}
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}
