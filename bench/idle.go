package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
)

// idleOptions are the command line of `tapgw-bench idle`.
type idleOptions struct {
	rounds int
	window time.Duration
	binary string
}

func parseIdle(args []string, errors io.Writer) (o idleOptions, err error) {
	f := flag.NewFlagSet("tapgw-bench idle", flag.ContinueOnError)
	f.SetOutput(errors)
	f.IntVar(&o.rounds, "rounds", 5, "rounds of every row")
	f.DurationVar(&o.window, "window", 20*time.Second, "how long the daemon is watched in each")
	f.StringVar(&o.binary, "tapgw", "", "the program to measure (default: tapgw beside this program)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 || o.rounds <= 0 || o.window <= 0 {
		f.Usage()
		return o, flag.ErrHelp
	}
	return o, nil
}

// repose is a row: a daemon through which nothing goes.
type repose struct {
	label    string
	sessions int
	watched  bool    // by all that people attach to it
	share    float64 // the most that is allowed, percent of a processor
	wakeups  float64 // likewise, a second
}

var reposes = []repose{
	{"no sessions, nobody looks", 0, false, 0.2, 10},
	{"1,000 sessions, watched by dashboard, applet and scraper", 1000, true, 0.5, 20},
}

// idle measures what a gateway costs through which nothing goes.
func idle(ctx context.Context, o idleOptions, out, progress io.Writer) error {
	program, err := options{binary: o.binary}.program()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Medians (least–most) of %d rounds of %s.\n", o.rounds, o.window)
	for _, r := range reposes {
		var shares, wakeups []float64
		for round := range o.rounds {
			used, err := r.measure(ctx, program, o.window)
			if err != nil {
				return err
			}
			fmt.Fprintf(progress, "round %d %-60s %.2f %% %.1f/s\n", round+1, r.label, used.share, used.wakeups)
			shares, wakeups = append(shares, used.share), append(wakeups, used.wakeups)
		}
		s, w := summarise(shares), summarise(wakeups)
		fmt.Fprintf(out, "\n%s\n", r.label)
		fmt.Fprintf(out, "  processor   %5.2f %% (%.2f–%.2f)  ≤ %g %%  %s\n", s.median, s.least, s.most, r.share, judged(s.median <= r.share))
		fmt.Fprintf(out, "  wake-ups    %5.1f /s (%.1f–%.1f)  ≤ %g /s  %s\n", w.median, w.least, w.most, r.wakeups, judged(w.median <= r.wakeups))
	}
	_, err = fmt.Fprintf(out, "\n%s", machine(ctx, program))
	return err
}

func judged(met bool) string {
	if met {
		return verdictMet
	}
	return verdictMissed
}

// usage is what a process used of the machine.
type usage struct {
	share   float64 // percent of a processor
	wakeups float64 // a second: how often one of its threads went on after it had waited
}

func (r repose) measure(ctx context.Context, program string, window time.Duration) (u usage, err error) {
	a, err := newArena(ctx, setUp{}, setting{api.DatapathKernel, 0}, program)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if r.sessions > 0 {
		endpoints, err := a.crowd(r.sessions)
		if err == nil {
			err = a.open(ctx, endpoints, r.sessions)
		}
		if err != nil {
			return u, err
		}
	}
	a.done() // the arena's own look at the events
	if r.watched {
		unwatch, err := a.gateway.watch(ctx, a.Gateway)
		if err != nil {
			return u, err
		}
		defer unwatch()
	}
	if err := sleep(ctx, settleTime); err != nil {
		return u, err
	}
	return a.gateway.usage(ctx, window)
}

// settleTime is how long a daemon may be busy with what was just there.
const settleTime = 5 * time.Second

// watch attaches to the daemon what people attach to it, until unwatch: a page of the dashboard, the applet of a desktop, and Prometheus.
func (d *daemon) watch(ctx context.Context, gateway *lab.Namespace) (unwatch func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	page, err := browse(ctx, gateway)
	if err != nil {
		cancel()
		return nil, err
	}
	var watchers sync.WaitGroup
	watchers.Go(func() {
		_, _ = io.Copy(io.Discard, page)
		page.Close()
	})
	watchers.Go(func() { _ = d.client.Events(ctx, func(api.Event) {}) })
	watchers.Go(func() {
		for sleep(ctx, 2*time.Second) == nil {
			_, _ = d.client.Status(ctx)
		}
	})
	watchers.Go(func() {
		for ; ctx.Err() == nil; _ = sleep(ctx, 15*time.Second) {
			_ = d.scrape(ctx, func(string) error { return nil })
		}
	})
	return func() { cancel(); watchers.Wait() }, nil
}

// browse follows the dashboard as its page does, until ctx ends.
func browse(ctx context.Context, gateway *lab.Namespace) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:7380/v1/live", nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DialContext: gateway.Dial}}).Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the dashboard answers %s", answer.Status), answer.Body.Close())
	}
	return answer.Body, nil
}

// usage is what the daemon uses within a time.
func (d *daemon) usage(ctx context.Context, window time.Duration) (u usage, err error) {
	before, begun := lab.UseOf(d.PID()), time.Now()
	if err := sleep(ctx, window); err != nil {
		return u, err
	}
	after, elapsed := lab.UseOf(d.PID()), time.Since(begun)
	if len(after) == 0 {
		return u, errors.New("the daemon's threads cannot be read")
	}
	used := after.Since(before)
	return usage{100 * float64(used.Ran) / float64(elapsed), float64(used.Waits) / elapsed.Seconds()}, nil
}
