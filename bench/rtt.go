package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// echoPause is what passes between two packets of an echo, so that each finds the gateway idle.
const echoPause = 100 * time.Microsecond

// echo measures, in µs, the median and the 99th percentile of the time that a small UDP packet of a known session takes to a
// server and back.
func echo(ctx context.Context, p *peer, s settings) ([]float64, error) {
	samples := make([]float64, 0, s.echoes)
	err := p.host().Do(func() error {
		fd, err := p.family.dialEcho()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for end := time.Now().Add(s.warmUp); time.Now().Before(end) && err == nil; {
			_, err = exchange(ctx, fd)
		}
		for err == nil && len(samples) < s.echoes {
			var took time.Duration
			took, err = exchange(ctx, fd)
			samples = append(samples, float64(took.Nanoseconds())/1e3)
		}
		return err
	})
	if err != nil || len(samples) == 0 {
		return nil, errors.Join(err, errNothing)
	}
	slices.Sort(samples)
	return []float64{samples[len(samples)/2], samples[len(samples)*99/100]}, nil
}

func (f *family) dialEcho() (fd int, err error) {
	if fd, err = unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	err = limitWaiting(fd)
	if err == nil {
		err = unix.Connect(fd, f.sockaddr(f.server(0), portEcho))
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// exchange sends a packet and waits for its return, after a pause.
func exchange(ctx context.Context, fd int) (took time.Duration, err error) {
	for end := time.Now().Add(echoPause); time.Now().Before(end); {
		yield()
	}
	var buf [64]byte
	begin := time.Now()
	if _, err := unix.Write(fd, buf[:echoLen]); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	for {
		_, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
		took := time.Since(begin)
		switch {
		case err == nil:
			return took, nil
		case !waits(err) || took > ioTimeout*time.Second || ctx.Err() != nil:
			return 0, fmt.Errorf("wait for the echo: %w", errors.Join(err, ctx.Err()))
		}
		yield()
	}
}

// yield lets others run. The ends of an echo do so instead of sleeping: waking them up takes longer, and now and then much
// longer, than the whole way of the packet.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// waits reports whether an error only means that nothing is there yet.
func waits(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }
