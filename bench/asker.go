package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// asker keeps a number of HTTP requests under way, each by a connection of its own, from one thread: threads that wait for
// one connection each would spend more on being woken up than the gateway on forwarding.
type asker struct {
	family *family
	epoll  int
	next   int // request number
	step   int // to the number after it
	slots  []asked
	good   func()
	bad    func(error)
}

// asked is one request under way.
type asked struct {
	fd    int // -1 for none
	sent  bool
	begun time.Time
}

const (
	askersEach  = 16 // connections of an asker
	askersPause = 50 // ms that it waits for events
)

// run asks until ctx ends, in the network namespace of the calling thread.
func (a *asker) run(ctx context.Context) (err error) {
	if a.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	defer unix.Close(a.epoll)
	a.slots = make([]asked, askersEach)
	for i := range a.slots {
		a.begin(i)
	}
	events := make([]unix.EpollEvent, len(a.slots))
	for ctx.Err() == nil {
		n, err := unix.EpollWait(a.epoll, events, askersPause)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			a.proceed(int(e.Fd))
		}
		a.giveUp()
	}
	for i := range a.slots {
		a.close(i)
	}
	return nil
}

// begin connects to the next server.
func (a *asker) begin(slot int) {
	fd, err := unix.Socket(a.family.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		a.slots[slot] = asked{fd: -1, begun: time.Now()}
		a.bad(err)
		return
	}
	a.slots[slot] = asked{fd: fd, begun: time.Now()}
	err = unix.Connect(fd, a.family.httpServer(a.next))
	a.next += a.step
	if !errors.Is(err, unix.EINPROGRESS) && err != nil {
		a.end(slot, fmt.Errorf("connect: %w", err))
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET, Fd: int32(slot)}
	if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		a.end(slot, fmt.Errorf("epoll: %w", err))
	}
}

// proceed sends the request once connected, and then reads the answer until the server closes.
func (a *asker) proceed(slot int) {
	s := &a.slots[slot]
	if !s.sent {
		_, err := unix.Write(s.fd, httpRequest)
		if err == nil {
			s.sent = true
		} else if !errors.Is(err, unix.EAGAIN) {
			a.end(slot, fmt.Errorf("send the request: %w", err))
		}
		return
	}
	var buf [1024]byte
	for {
		n, err := readAgain(s.fd, buf[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			err = fmt.Errorf("read the answer: %w", err)
		case n > 0:
			continue
		}
		a.end(slot, err)
		return
	}
}

// end counts a request and begins another.
func (a *asker) end(slot int, err error) {
	if err != nil {
		a.bad(err)
	} else {
		a.good()
	}
	a.close(slot)
	if err == nil {
		a.begin(slot)
	} // else giveUp begins it, or a network that refuses everything would never let the thread out
}

func (a *asker) close(slot int) {
	if s := &a.slots[slot]; s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// giveUp ends requests that hang, and tries those again that could not be made.
func (a *asker) giveUp() {
	now := time.Now()
	for i := range a.slots {
		switch s := &a.slots[i]; {
		case s.fd < 0:
			a.begin(i)
		case now.Sub(s.begun) > ioTimeout*time.Second:
			a.end(i, errors.New("no answer"))
		}
	}
}

// httpServer is where request i goes.
func (f *family) httpServer(i int) unix.Sockaddr { return f.sockaddr(f.server(i), portHTTP) }
