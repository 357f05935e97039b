package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connWorkers  = 2                    // threads
	serverCount  = 250                  // addresses of family.servers that are asked in turn
	latencyPause = 2 * time.Millisecond // between two connections when latency is measured
	maxFailures  = 0.001                // share of failed connections above which the measurement is void
)

// connections measures HTTP requests per second, each by a connection of its own.
func connections(ctx context.Context, p *peer, s settings) ([]float64, error) {
	var good, bad atomic.Uint64
	var last atomic.Pointer[error]
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	for worker := range connWorkers {
		tasks.Go(func() {
			err := p.host().Do(func() error {
				a := asker{family: p.family, next: worker, step: connWorkers, good: func() { good.Add(1) }, bad: func(err error) { bad.Add(1); last.Store(&err) }}
				return a.run(ctx)
			})
			if err != nil {
				last.Store(&err)
			}
		})
	}
	rate, err := counted(ctx, s.warmUp, s.connections, func() (uint64, error) { return good.Load(), nil })
	if err == nil && float64(bad.Load()) > maxFailures*float64(good.Load()) {
		err = fmt.Errorf("%d of %d connections failed: %w", bad.Load(), bad.Load()+good.Load(), *last.Load())
	}
	return []float64{rate}, err
}

// request asks server i and returns the time until the first byte of the answer. It runs in the client's namespace.
func (f *family) request(i int) (first time.Duration, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := limitWaiting(fd); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := again(func() error { return unix.Connect(fd, f.httpServer(i)) }); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, httpRequest); err != nil {
		return 0, fmt.Errorf("send the request: %w", err)
	}
	var buf [1024]byte
	n, err := readAgain(fd, buf[:])
	first = time.Since(begin)
	for n > 0 && err == nil {
		n, err = readAgain(fd, buf[:])
	}
	if err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	return first, nil
}

// latency measures, in µs, the median and the 99th percentile of the time from connect to the first byte.
func latency(ctx context.Context, p *peer, s settings) ([]float64, error) {
	samples := make([]float64, 0, s.samples)
	err := p.host().Do(func() error {
		for i := range s.samples {
			took, err := p.family.request(i)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			samples = append(samples, float64(took.Nanoseconds())/1e3)
			if err := sleep(ctx, latencyPause); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(samples) == 0 {
		return nil, errors.Join(err, errNothing)
	}
	slices.Sort(samples)
	return []float64{samples[len(samples)/2], samples[len(samples)*99/100]}, nil
}
