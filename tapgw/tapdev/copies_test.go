package tapdev_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
	"tapgw/tapgw/tapdev"
)

// tick is the time in which a client of a service is told of once.
func tick(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	labtest.Must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now))
	return uint64(now.Nano()) >> 26
}

// TestCopies: Go gets the first packet of each client in a tick, and the host's socket gets them all.
func TestCopies(t *testing.T) {
	c := newCarried(t, false)
	labtest.Must(t, c.programs.SetServices([]uint16{service}))
	socket := listen(t, c.gw, service)
	for port := uint16(1000); ; port++ { // until a burst of a client falls within one tick
		before := tick(t)
		copies := c.handed(t, func() { c.burst(t, socket, port) })
		if before != tick(t) {
			if port > 1200 {
				t.Fatal("nothing is done within a tick")
			}
			continue
		}
		c.expectCopies(t, copies, port, 0)
		for tick(t) == before {
			time.Sleep(time.Millisecond)
		}
		if again := c.handed(t, func() { c.burst(t, socket, port) }); len(again) < 1 || len(again) > 3 {
			t.Errorf("%d copies of a burst in later ticks", len(again))
		}
		break
	}
	labtest.Must(t, c.programs.SetServices(nil))
	if copies := c.handed(t, func() { c.burst(t, socket, 999) }); len(copies) != 0 {
		t.Errorf("%d copies for a service that is over", len(copies))
	}
}

// burst sends datagrams of a client to the service.
func (c *carried) burst(t *testing.T, socket *net.UDPConn, port uint16) {
	t.Helper()
	for i := range 3 {
		c.inject(t, fromPort(port, i))
		expectArrival(t, socket, arrived{payload: fmt.Sprint(i), device: c.wan, ttl: 64})
	}
}

func fromPort(port uint16, i int) []byte {
	b := datagram(server, wanAddr, service, fmt.Sprint(i))
	binary.BigEndian.PutUint16(b[20:], port)
	binary.BigEndian.PutUint16(b[26:], 0) // no checksum
	return b
}

func (c *carried) expectCopies(t *testing.T, copies [][]byte, port uint16, number int) {
	t.Helper()
	if len(copies) != 1 {
		t.Fatalf("%d copies of one client in one tick, want one", len(copies))
	}
	c.expectHanded(t, "copy", copies[0], fromPort(port, number), tapdev.Copy)
}
