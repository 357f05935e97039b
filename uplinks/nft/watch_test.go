package nft

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
)

// watch subscribes in the namespace of a host.
func (h *foreignHost) watch() *Watcher {
	h.t.Helper()
	var w *Watcher
	h.do(func() (err error) {
		w, err = NewWatcher()
		return err
	})
	h.t.Cleanup(func() { _ = w.Close() })
	return w
}

// run starts telling of changes until the test ends, and fails it when that ends otherwise.
func run(t *testing.T, w *Watcher) <-chan struct{} {
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- w.Run(ctx, told) }()
	t.Cleanup(func() {
		cancel()
		labtest.Must(t, <-ended)
	})
	return told
}

func awaitTold(t *testing.T, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(patience):
		t.Fatal("not told of the change")
	}
}

func expectSilence(t *testing.T, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
		t.Error("told of a change that was none")
	case <-time.After(5 * watchPause):
	}
}

func TestWatcherTellsOfChanges(t *testing.T) {
	h := newForeignHost(t)
	told := run(t, h.watch())
	rules := &world{t: t, host: h.ns}
	ours := rules.open()
	expectSilence(t, told)
	h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward})
	awaitTold(t, told)
	for range 2 { // to look is no change
		h.expect()
		_, err := ours.Changed()
		labtest.Must(t, err)
	}
	expectSilence(t, told)
	labtest.Must(t, ours.Apply(Wanted{TAP: "tapgw0", LAN: true, Uplinks: []Uplink{rules.uplink("wan0", hostOnISP1)}}))
	awaitTold(t, told)
	expectSilence(t, told)
}

func TestChanged(t *testing.T) {
	h := newForeignHost(t)
	ours := (&world{t: t, host: h.ns}).open()
	expect := func(step string, want bool) {
		t.Helper()
		if got, err := ours.Changed(); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", step, got, err, want)
		}
	}
	expect("first", true)
	expect("nothing", false)
	h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward})
	expect("a chain", true)
	expect("nothing more", false)
}

// TestWatcherInAStorm: many transactions make few notifications, of which one comes after the last of them.
func TestWatcherInAStorm(t *testing.T) {
	h := newForeignHost(t)
	told := run(t, h.watch())
	const changes = 100
	begun, notified, ended := time.Now(), 0, make(chan time.Time, 1)
	go func() {
		for range changes - 1 {
			h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward, drops: true})
		}
		last := time.Now()
		h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward, drops: true})
		ended <- last
	}()
	var toldLast, last time.Time
	for last.IsZero() {
		select {
		case <-told:
			toldLast = time.Now()
			notified++
		case last = <-ended:
		}
	}
	took := time.Since(begun)
	if toldLast.Before(last) {
		awaitTold(t, told)
	}
	t.Logf("%d notifications of %d changes in %s", notified, changes, took)
	if limit := int(took/watchPause) + 2; notified == 0 || notified > limit {
		t.Errorf("%d notifications in %s, want 1 to %d", notified, took, limit)
	}
}

// TestWatcherWhoseMessagesAreLost: an overflow is a change.
func TestWatcherWhoseMessagesAreLost(t *testing.T) {
	h := newForeignHost(t)
	w := h.watch()
	failed := w.raw.Control(func(fd uintptr) {
		labtest.Must(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	})
	labtest.Must(t, failed)
	for range 50 {
		h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward})
	}
	told := run(t, w)
	awaitTold(t, told)
	expectSilence(t, told)
}

// TestWatcherWithoutPermission: whoever may not listen is told so.
func TestWatcherWithoutPermission(t *testing.T) {
	h := newForeignHost(t)
	err := h.ns.Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var before [2]unix.CapUserData
		if err := unix.Capget(&header, &before[0]); err != nil {
			return err
		}
		without := before
		without[0].Effective, without[1].Effective = 0, 0
		if err := unix.Capset(&header, &without[0]); err != nil {
			return err
		}
		_, err := NewWatcher()
		return errors.Join(err, unix.Capset(&header, &before[0]))
	})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}
