package main

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	bulkBuffer = 256 << 10
	lightFile  = 4 << 20 // bytes that are sent again and again
	lightLeast = 1 << 20 // bytes for which a light receiver is woken up
	lightWay   = "cubic" // congestion control of light ends, whatever the machine's: timers that pace would cost more than the gateway
)

// send sends until the other side leaves. A light end sends pages that exist, without copying them.
func send(conn net.Conn, mode byte) {
	if mode&modeLight != 0 {
		_ = sendLight(conn) // how much arrived is what counts
		return
	}
	for buf := make([]byte, bulkBuffer); ; {
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}

// receive counts until the other side leaves. A light end does not copy what it receives, and is seldom woken up.
func receive(conn net.Conn, mode byte, count *atomic.Uint64) {
	if mode&modeLight != 0 {
		_ = receiveLight(conn, count)
		return
	}
	for buf := make([]byte, bulkBuffer); ; {
		n, err := conn.Read(buf)
		count.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

// sendLight sends pages of a file in memory.
func sendLight(conn net.Conn) error {
	file, err := unix.MemfdCreate("bulk", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	if err := unix.Fallocate(file, 0, 0, lightFile); err != nil {
		return err
	}
	raw, err := prepare(conn, func(fd int) error {
		return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, lightWay)
	})
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		for failed = nil; failed == nil; {
			begin := int64(0)
			_, failed = unix.Sendfile(int(fd), file, &begin, lightFile)
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// receiveLight drops what it receives in the kernel.
func receiveLight(conn net.Conn, count *atomic.Uint64) error {
	raw, err := prepare(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, lightLeast)
	})
	if err != nil {
		return err
	}
	var failed error
	buf := make([]byte, 4*lightLeast) // its length counts, MSG_TRUNC writes nothing
	err = raw.Read(func(fd uintptr) (done bool) {
		for n := 1; n > 0; count.Add(uint64(max(n, 0))) {
			n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// prepare sets an option of a connection's socket.
func prepare(conn net.Conn, set func(fd int) error) (syscall.RawConn, error) {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of type %T", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = set(int(fd)) })
	return raw, errors.Join(err, failed)
}
