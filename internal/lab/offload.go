package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offloads are the switches of `ethtool -K` that change what packets look like inside the kernel: with TxChecksum a veth
// hands over unfinished checksums, with TSO packets of up to 64 KiB.
type Offloads struct {
	TxChecksum, RxChecksum, TSO, GSO, GRO bool
}

// switches lists the ethtool commands in the order they must be set: segmentation needs checksums.
func (o *Offloads) switches() []offloadSwitch {
	return []offloadSwitch{
		{"rx-checksumming", unix.ETHTOOL_GRXCSUM, unix.ETHTOOL_SRXCSUM, &o.RxChecksum},
		{"tx-checksumming", unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM, &o.TxChecksum},
		{"scatter-gather", unix.ETHTOOL_GSG, unix.ETHTOOL_SSG, &o.TxChecksum},
		{"tcp-segmentation-offload", unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO, &o.TSO},
		{"generic-segmentation-offload", unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO, &o.GSO},
		{"generic-receive-offload", unix.ETHTOOL_GGRO, unix.ETHTOOL_SGRO, &o.GRO},
	}
}

type offloadSwitch struct {
	name     string
	get, set uint32
	value    *bool
}

// SetOffloads changes the offloads of a device. A combination the kernel refuses to hold is an error.
func (n *Namespace) SetOffloads(device string, want Offloads) error {
	for _, s := range want.switches() {
		if _, err := n.ethtool(device, s.set, boolWord(*s.value)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if got, err := n.ReadOffloads(device); err != nil || got != want {
		return errorOr(err, fmt.Errorf("namespace %s: offloads of %s are %+v, not %+v", n.name, device, got, want))
	}
	return nil
}

// ReadOffloads returns the offloads of a device.
func (n *Namespace) ReadOffloads(device string) (o Offloads, err error) {
	for _, s := range o.switches() {
		v, err := n.ethtool(device, s.get, 0)
		if err != nil {
			return o, fmt.Errorf("%s: %w", s.name, err)
		}
		if s.get != unix.ETHTOOL_GSG {
			*s.value = v != 0
		}
	}
	return o, nil
}

// ethtool issues one command of the {command, value} form (struct ethtool_value) and returns the value.
func (n *Namespace) ethtool(device string, command, value uint32) (uint32, error) {
	arg := [2]uint32{command, value}
	var req struct { // struct ifreq with ifr_data
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], device)
	req.data = unsafe.Pointer(&arg)
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); no != 0 {
			return no
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("namespace %s: ethtool %#x on %s: %w", n.name, command, device, err)
	}
	return arg[1], nil
}

func boolWord(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func errorOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
