package tapdev_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks/wire/batchio"
)

// TestQueueOfProcessor: whatever a processor sends waits in its own queue, whichever flow it belongs to.
func TestQueueOfProcessor(t *testing.T) {
	const queues, flows = 2, 16
	ns := labtest.Namespace(t, "gw")
	cfg := defaultConfig()
	cfg.Queues = queues
	d := create(t, ns, cfg)
	defer time.AfterFunc(10*time.Second, func() { _ = d.Close() }).Stop() // instead of waiting for ever
	bufs, sizes := batchio.Buffers(1), make([]int, 1)
	for _, cpu := range processors(t) {
		for port := range uint16(flows) {
			labtest.Must(t, ns.Do(func() error { return sendOn(cpu, netip.AddrPortFrom(gateway, 1000+port)) }))
			for got := uint16(0); got != 1000+port; { // what the host sends by itself is skipped
				n, err := d.Queue(cpu%queues).ReadBatch(bufs, sizes)
				labtest.Must(t, err)
				if udp := packet.VnetLen + packet.EthernetLen + 20; n == 1 && sizes[0] == udp+8 {
					got = binary.BigEndian.Uint16(bufs[0][udp+2:])
				}
			}
		}
	}
}

// processors are those that this process may use.
func processors(t *testing.T) (list []int) {
	var set unix.CPUSet
	labtest.Must(t, unix.SchedGetaffinity(0, &set))
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list
}

// sendOn sends an empty datagram from a processor.
func sendOn(cpu int, to netip.AddrPort) error {
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, nil, 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}
