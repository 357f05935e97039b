package bound

import (
	"context"
	"errors"
	"sync"

	"tapgw/probe"
)

// ErrClosed is what probes get whose socket was replaced, closed, or failed while they waited.
var ErrClosed = errors.New("the probe socket was closed")

// Socket is what a Slot keeps: Done is closed when its reader has ended, because of Close or a failure.
type Socket interface {
	comparable
	Close() error
	Done() <-chan struct{}
}

// Slot keeps the one socket of an uplink between probes. The zero value is ready.
type Slot[S Socket] struct {
	mu   sync.Mutex
	link probe.Link
	sock S // zero when there is none
}

// Get returns the socket for link. It calls open when there is none, it was made for another Link, or it has failed.
func (s *Slot[S]) Get(link probe.Link, open func() (S, error)) (S, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none S
	if s.sock != none && s.link == link && !ended(s.sock.Done()) {
		return s.sock, nil
	}
	_ = s.clear() // it is replaced because it is of no use
	sock, err := open()
	if err != nil {
		return none, err
	}
	s.link, s.sock = link, sock
	return sock, nil
}

// Send calls send, which writes to sock. When that fails, or still waits for a stalled device when ctx ends, the socket is
// closed and the next Get opens a new one.
func (s *Slot[S]) Send(ctx context.Context, sock S, send func() error) error {
	stop := context.AfterFunc(ctx, func() { s.drop(sock) })
	defer stop()
	err := send()
	if err != nil {
		s.drop(sock)
	}
	return err
}

func (s *Slot[S]) drop(sock S) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sock == sock {
		_ = s.clear()
	}
}

// Close closes the socket and waits for its reader.
func (s *Slot[S]) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear()
}

func (s *Slot[S]) clear() error {
	var none S
	if s.sock == none {
		return nil
	}
	err := s.sock.Close()
	<-s.sock.Done()
	s.sock = none
	return err
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
