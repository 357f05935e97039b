package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// tunPair is a cable of two TUN devices whose packets are copied in both directions; the kernel completes checksums and
// segments before a TUN without a virtio header, so nothing else is needed.
type tunPair struct {
	near, far *os.File
	copiers   sync.WaitGroup
}

func (t *tunPair) plug(l *Link) (err error) {
	if t.near, err = openTUN(l.Near, l.MTU); err != nil {
		return err
	}
	if t.far, err = openTUN(l.Far, l.MTU); err != nil {
		return errors.Join(err, t.unplug(l))
	}
	near, far := t.near, t.far
	t.copiers.Go(func() { copyPackets(far, near) })
	t.copiers.Go(func() { copyPackets(near, far) })
	return nil
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
func copyPackets(to, from *os.File) {
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
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}
