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
)

// Run plays the demo, about 30 seconds. Nothing of it outlives the process, however that ends.
func Run(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	began := time.Now()
	screen := &screen{out: o.Out, style: style{rich: o.Rich}}
	screen.print(title())
	stage, err := build(o.Logger)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	figures, err := play(ctx, stage, screen)
	err = errors.Join(err, stage.close())
	if err != nil {
		return orInterrupted(ctx, stage.explain(err))
	}
	checks := figures.checks()
	screen.print(renderChecks(checks, screen.style))
	missed := failed(checks)
	screen.print(closing(missed, len(checks), time.Since(began)))
	if missed > 0 {
		return stage.explain(fmt.Errorf("%w: %d of %d checks failed", ErrBarMissed, missed, len(checks)))
	}
	return nil
}

func orInterrupted(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, lab.ErrPrivilege):
		return ErrNotRoot
	case ctx.Err() != nil:
		return ErrInterrupted
	}
	return err
}
