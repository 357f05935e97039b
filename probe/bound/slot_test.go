package bound

import (
	"context"
	"errors"
	"testing"

	"tapgw/probe"
)

type fake struct{ done chan struct{} }

func (f *fake) Close() error {
	select {
	case <-f.done:
	default:
		close(f.done)
	}
	return nil
}

func (f *fake) Done() <-chan struct{} { return f.done }

func open() (*fake, error) { return &fake{make(chan struct{})}, nil }

func TestSlotKeepsTheSocket(t *testing.T) {
	var s Slot[*fake]
	link := probe.Link{Name: "u1", Index: 1}
	get := func() *fake {
		t.Helper()
		f, err := s.Get(link, open)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := get()
	if get() != first {
		t.Error("the socket was not reused")
	}
	link.Index = 2
	second := get()
	if second == first || !ended(first.done) {
		t.Error("another link did not replace the socket")
	}
	_ = second.Close() // the reader fails
	third := get()
	if third == second {
		t.Error("a failed socket was reused")
	}
	broken := errors.New("network is down")
	if err := s.Send(t.Context(), third, func() error { return broken }); !errors.Is(err, broken) || !ended(third.done) {
		t.Errorf("Send returned %v and left the socket open: %v", err, !ended(third.done))
	}
	fourth := get()
	if err := s.Send(t.Context(), third, func() error { return broken }); err == nil || ended(fourth.done) {
		t.Error("the failure of an old socket closed the new one")
	}
	if err := s.Close(); err != nil || !ended(fourth.done) {
		t.Errorf("Close: %v", err)
	}
}

func TestSlotRemembersNoFailure(t *testing.T) {
	var s Slot[*fake]
	if _, err := s.Get(probe.Link{}, func() (*fake, error) { return nil, ErrLink }); !errors.Is(err, ErrLink) {
		t.Errorf("got %v", err)
	}
	if f, err := s.Get(probe.Link{}, open); err != nil || f == nil {
		t.Errorf("got %v, %v", f, err)
	}
}

// A write that a stalled device holds up ends with the context.
func TestSendIsInterrupted(t *testing.T) {
	var s Slot[*fake]
	f, err := s.Get(probe.Link{}, open)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	writing := make(chan struct{})
	go func() { <-writing; cancel() }()
	err = s.Send(ctx, f, func() error {
		close(writing)
		<-f.done // closing the socket is what makes a blocked write return
		return ErrClosed
	})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
