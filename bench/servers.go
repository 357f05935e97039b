package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

const (
	portBulk    = 7100
	portEcho    = 7101
	portHTTP    = 80
	portDiscard = 9 // of the flood, which no server gets

	modeSend    = 'S' // the server sends until the client leaves
	modeReceive = 'R' // the server receives and counts
	modeLight   = 32  // | as light ends do

	echoLen     = 18 // bytes, which make the least Ethernet frame
	httpWorkers = 2
	ioTimeout   = 3 // seconds, of one blocking call

	echoAwake = 5 * time.Millisecond // without a packet
)

// The smallest exchange that is HTTP.
var (
	httpRequest  = []byte("GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
	httpResponse = []byte("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
)

// servers listen on every address of the Internet. They do as little as a server can, so that the gateway is measured.
type servers struct {
	received atomic.Uint64 // bytes of uploads
	bulk     net.Listener
	http     int // descriptor
	echo     int // descriptor
	tasks    sync.WaitGroup
}

func startServers(internet *lab.Namespace, f *family) (s *servers, err error) {
	s = &servers{}
	if s.bulk, err = internet.Listen(f.tcp, fmt.Sprintf(":%d", portBulk)); err != nil {
		return nil, err
	}
	if err := internet.Do(func() error { return s.listenHTTP(f) }); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for HTTP: %w", err), s.bulk.Close())
	}
	if err := internet.Do(func() error { return s.listenEcho(f) }); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for echoes: %w", err), s.bulk.Close(), unix.Close(s.http))
	}
	s.tasks.Go(s.serveBulk)
	s.tasks.Go(s.serveEcho)
	for range httpWorkers {
		s.tasks.Go(s.serveHTTP)
	}
	return s, nil
}

func (s *servers) close() error {
	err := errors.Join(s.bulk.Close(), unix.Shutdown(s.http, unix.SHUT_RDWR)) // wakes those who wait in accept
	_ = unix.Shutdown(s.echo, unix.SHUT_RDWR)                                 // wakes its reader, and says that it has no peer
	s.tasks.Wait()
	return errors.Join(err, unix.Close(s.http), unix.Close(s.echo))
}

func (s *servers) serveBulk() {
	for {
		conn, err := s.bulk.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			s.tasks.Go(func() { s.transfer(conn) })
		}
	}
}

// transfer runs until the client closes the connection.
func (s *servers) transfer(conn net.Conn) {
	defer conn.Close()
	var mode [1]byte
	if _, err := conn.Read(mode[:]); err != nil {
		return
	}
	if mode[0]&^modeLight == modeSend {
		send(conn, mode[0])
		return
	}
	receive(conn, mode[0], &s.received)
}

// listenHTTP uses plain sockets, as the runtime's poller would cost more than the exchange, and wants to hear of a
// connection once it has the request.
func (s *servers) listenHTTP(f *family) (err error) {
	if s.http, err = unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.http, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, ioTimeout); err != nil {
		return errors.Join(err, unix.Close(s.http))
	}
	if err = unix.Bind(s.http, f.sockaddr(f.any(), portHTTP)); err == nil {
		err = unix.Listen(s.http, 4096)
	}
	if err != nil {
		err = errors.Join(err, unix.Close(s.http))
	}
	return err
}

func (s *servers) listenEcho(f *family) (err error) {
	if s.echo, err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err = unix.Bind(s.echo, f.sockaddr(f.server(0), portEcho)); err != nil {
		err = errors.Join(err, unix.Close(s.echo))
	}
	return err
}

// serveEcho sends back what it gets until the socket is shut down, which shows as an empty packet. It sleeps only when
// nothing has come for a while.
func (s *servers) serveEcho() {
	buf := make([]byte, 64)
	for last := time.Now(); ; {
		flags := unix.MSG_DONTWAIT
		if time.Since(last) > echoAwake {
			flags = 0
		}
		n, from, err := unix.Recvfrom(s.echo, buf, flags)
		switch {
		case err == nil && n > 0:
			_ = unix.Sendto(s.echo, buf[:n], 0, from) // a client that left is its own to notice
			last = time.Now()
		case !waits(err):
			return
		default:
			yield()
		}
	}
}

// serveHTTP answers one connection after the other and closes it first, as Connection: close demands.
func (s *servers) serveHTTP() {
	buf := make([]byte, 1024)
	for {
		fd, _, err := unix.Accept4(s.http, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINVAL) { // shut down
			return
		}
		if errors.Is(err, unix.EAGAIN) {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.http), Events: unix.POLLIN}}, -1)
		}
		if err != nil {
			continue
		}
		if limitWaiting(fd) == nil {
			if n, err := readAgain(fd, buf); err == nil && n > 0 {
				_, _ = unix.Write(fd, httpResponse) // a client that left is its own to notice
			}
		}
		unix.Close(fd)
	}
}

// limitWaiting bounds every blocking call on a socket.
func limitWaiting(fd int) error {
	limit := &unix.Timeval{Sec: ioTimeout}
	return errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit),
	)
}

// again repeats a call for as long as signals of the Go runtime interrupt it, which the kernel itself does only for sockets
// without time limits.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func readAgain(fd int, buf []byte) (n int, err error) {
	err = again(func() (err error) {
		n, err = unix.Read(fd, buf)
		return err
	})
	return n, err
}
