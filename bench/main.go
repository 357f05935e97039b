package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	statusFailed = 1
	statusUsage  = 2
)

// options are the command line.
type options struct {
	settings
	quick, strict bool
	only, peers   string
	binary        string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure, err := command(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(statusUsage)
	}
	if err := measure(ctx, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tapgw-bench:", err)
		os.Exit(statusFailed)
	}
}

// command is what the command line asks for: the comparison of gateways, the failover of one, or what one costs that is idle.
func command(args []string, errors io.Writer) (func(ctx context.Context, out, progress io.Writer) error, error) {
	if len(args) > 0 && args[0] == "failover" {
		o, err := parseFailover(args[1:], errors)
		return func(ctx context.Context, out, progress io.Writer) error { return failover(ctx, o, out, progress) }, err
	}
	if len(args) > 0 && args[0] == "idle" {
		o, err := parseIdle(args[1:], errors)
		return func(ctx context.Context, out, progress io.Writer) error { return idle(ctx, o, out, progress) }, err
	}
	o, err := parse(args, errors)
	return func(ctx context.Context, out, progress io.Writer) error { return run(ctx, o, out, progress) }, err
}

func parse(args []string, errors io.Writer) (o options, err error) {
	f := flag.NewFlagSet("tapgw-bench", flag.ContinueOnError)
	f.SetOutput(errors)
	rounds := f.Int("rounds", 0, "rounds, each measuring every row of every peer once (default 5, quick 1)")
	f.BoolVar(&o.quick, "quick", false, "a smoke run of a few seconds, whose figures mean little")
	f.BoolVar(&o.strict, "strict", false, "exit with status 1 when a bar is missed")
	f.StringVar(&o.only, "only", "", "only rows whose name begins with one of these, comma-separated: "+names())
	f.StringVar(&o.peers, "peers", strings.Join(reportOrder, ","), "which to measure")
	f.StringVar(&o.binary, "tapgw", "", "the program to measure (default: tapgw beside this program)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.settings = thorough
	if o.quick {
		o.settings = quick
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	if f.NArg() > 0 || *rounds < 0 || len(chosen(o.only)) == 0 {
		f.Usage()
		return o, flag.ErrHelp
	}
	return o, nil
}

func names() string {
	var all []string
	for _, t := range tasks {
		all = append(all, t.name)
	}
	return strings.Join(all, " ")
}

// run measures and reports. Progress goes to a writer of its own.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	makers, program, err := o.makers()
	if err != nil {
		return err
	}
	m := machine(ctx, program)
	r := &results{tasks: chosen(o.only), rounds: o.rounds}
	b := &bench{options: o, makers: makers, results: r, progress: progress}
	if err := b.all(ctx); err != nil {
		return err
	}
	missed := r.write(out)
	fmt.Fprintf(out, "\n%s", m)
	if b.failures > 0 {
		return fmt.Errorf("%d measurements failed, see above", b.failures)
	}
	if missed > 0 && o.strict {
		return fmt.Errorf("%d bars missed", missed)
	}
	return nil
}

// makers are the peers asked for, and the program among them.
func (o options) makers() (all []maker, program string, err error) {
	known := map[string]maker{}
	for _, m := range []maker{
		kernelMaker(nameKernel, false), kernelMaker(nameKernelRules, true), {nameRedirect, newRedirect}, {nameRouted, newRouted},
		{nameRoutedRules, newRoutedRules},
	} {
		known[m.name] = m
	}
	for name := range strings.SplitSeq(o.peers, ",") {
		if v := slices.IndexFunc(variants, func(v variant) bool { return v.name == name }); v >= 0 {
			if program, err = o.program(); err != nil {
				return nil, "", err
			}
			known[name] = variants[v].maker(program)
		}
		m, ok := known[name]
		if !ok {
			return nil, "", fmt.Errorf("unknown peer %q: use some of %s", name, strings.Join(reportOrder, ","))
		}
		all = append(all, m)
	}
	return all, program, nil
}

// program is the absolute path of what is measured.
func (o options) program() (string, error) {
	path := o.binary
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), "tapgw")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", errors.Join(errors.New("the program to measure is missing: run `make build` or give -tapgw"), err)
	}
	return path, nil
}
