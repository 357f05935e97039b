// Package demo shows the gateway at its main job on a small internet of its own: a LAN host, the gateway, two shaped
// providers and servers beyond them. The daemon in it is the real one, and so is every packet.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"tapgw/internal/lab"
)

// Options is what the command line says to the demo.
type Options struct {
	Out    io.Writer
	Rich   bool         // Out is a terminal that takes colours and redrawing; else plain ASCII, a line a second
	Logger *slog.Logger // gets what the gateway logs, at level debug
}

var (
	// ErrNotRoot is returned by Run without the privilege to make network namespaces.
	ErrNotRoot = errors.New("the demo needs root for its network namespaces: run \"sudo tapgw demo\"")
	// ErrBarMissed is returned by Run when the gateway did less than it should.
	ErrBarMissed = errors.New("the gateway did not do what it should")
	// ErrInterrupted is returned by Run when its context ended first.
	ErrInterrupted = errors.New("interrupted; the demo has left nothing behind")

	errRemains = errors.New("the demo was not taken down in order; what is left of it ends with this process")
)

// Run plays the demo, about 30 seconds. Nothing of it outlives the process, however that ends.
func Run(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	began := time.Now()
	screen := &screen{out: o.Out, style: style{rich: o.Rich}}
	screen.print(title())
	figures, log, err := run(ctx, o, screen)
	switch {
	case errors.Is(err, errRemains):
		return explain(err, log)
	case errors.Is(err, lab.ErrPrivilege):
		return ErrNotRoot
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return ErrInterrupted
	case err != nil:
		return explain(err, log)
	}
	checks := figures.checks()
	missed := failed(checks)
	screen.print(renderChecks(checks, screen.style))
	screen.print(closing(missed, len(checks), time.Since(began)))
	if missed > 0 {
		return explain(fmt.Errorf("%w: %d of %d checks failed", ErrBarMissed, missed, len(checks)), log)
	}
	return nil
}

// run builds the stage, plays on it and takes it down; log is the end of the gateway's log.
func run(ctx context.Context, o Options, screen *screen) (f *figures, log string, err error) {
	s := &stage{log: newJournal(o.Logger)}
	err = s.build(ctx)
	if err == nil {
		f, err = play(ctx, s, screen)
	}
	if closing := s.close(); closing != nil {
		err = fmt.Errorf("%w: %w", errRemains, errors.Join(closing, err))
	}
	return f, s.log.tail(), err
}

func explain(err error, log string) error {
	if log == "" {
		return err
	}
	return fmt.Errorf("%w\nthe last lines of the gateway's log:\n%s", err, log)
}
