package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"tapgw/api"
)

// failoverOptions are the command line of `tapgw-bench failover`.
type failoverOptions struct {
	rounds    int
	only      string
	datapaths []string
	crowds    []int         // live sessions beside what is measured
	window    time.Duration // in which probes are counted
	long      time.Duration // in which no uplink may be given up falsely
	binary    string
	json      bool
	strict    bool
}

func parseFailover(args []string, errors io.Writer) (o failoverOptions, err error) {
	f := flag.NewFlagSet("tapgw-bench failover", flag.ContinueOnError)
	f.SetOutput(errors)
	f.IntVar(&o.rounds, "rounds", 20, "rounds of every row; rows that take minutes have a tenth as many")
	f.StringVar(&o.only, "only", "", "only rows whose name begins with one of these, comma-separated: "+trialNames())
	datapaths := f.String("datapath", api.DatapathKernel+","+api.DatapathUserspace, "which to measure")
	crowds := f.String("sessions", "0,10000", "numbers of live sessions to measure among")
	f.DurationVar(&o.window, "window", 2*time.Minute, "how long the probes of a metered link are counted; others' a tenth of it")
	f.DurationVar(&o.long, "false", 30*time.Minute, "how long to wait for false switches")
	f.StringVar(&o.binary, "tapgw", "", "the program to measure (default: tapgw beside this program)")
	f.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	f.BoolVar(&o.strict, "strict", false, "exit with status 1 when a bar is missed")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	bad := f.NArg() > 0 || o.rounds <= 0 || o.window <= 0 || o.long <= 0 || len(chosenTrials(o.only)) == 0
	for d := range strings.SplitSeq(*datapaths, ",") {
		bad = bad || d != api.DatapathKernel && d != api.DatapathUserspace
		o.datapaths = append(o.datapaths, d)
	}
	for c := range strings.SplitSeq(*crowds, ",") {
		n, err := strconv.Atoi(c)
		bad = bad || err != nil || n < 0 || n > maxCrowd
		o.crowds = append(o.crowds, n)
	}
	if bad {
		f.Usage()
		return o, flag.ErrHelp
	}
	return o, nil
}

func trialNames() string {
	var all []string
	for _, t := range trials {
		all = append(all, t.name)
	}
	return strings.Join(all, " ")
}

// chosenTrials are those whose name begins with one of a list, all for an empty one.
func chosenTrials(only string) (list []trial) {
	for _, t := range trials {
		begins := func(prefix string) bool { return strings.HasPrefix(t.name, prefix) }
		if only == "" || slices.ContainsFunc(strings.Split(only, ","), begins) {
			list = append(list, t)
		}
	}
	return list
}

// failover measures and reports how fast the death of an uplink is seen and got over. Progress goes to a writer of its own.
func failover(ctx context.Context, o failoverOptions, out, progress io.Writer) error {
	program, err := options{binary: o.binary}.program()
	if err != nil {
		return err
	}
	m := machine(ctx, program)
	r, failures := &failoverResults{options: o}, 0
	for _, t := range chosenTrials(o.only) {
		for _, s := range o.settings() {
			for round := range t.rounds(o.rounds) {
				v, err := measureTrial(ctx, t, s, program, o)
				if ctx.Err() != nil {
					return errors.Join(context.Cause(ctx), err)
				}
				if err != nil && !errors.Is(err, errNever) {
					failures++
					fmt.Fprintf(progress, "round %d %s %s FAILED: %v\n", round+1, t.name, s, err)
					continue
				}
				r.add(t, s, v, err)
				fmt.Fprintf(progress, "round %d %-18s %-26s %s\n", round+1, t.name, s, outcomeOf(t, v, err))
			}
		}
	}
	missed, err := r.write(out, m)
	switch {
	case err != nil:
		return err
	case failures > 0:
		return fmt.Errorf("%d measurements failed, see above", failures)
	case missed > 0 && o.strict:
		return fmt.Errorf("%d bars missed", missed)
	}
	return nil
}

// setting is under what a row is measured.
type setting struct {
	datapath string
	crowd    int // live sessions
}

func (s setting) String() string {
	if s.crowd == 0 {
		return s.datapath
	}
	return fmt.Sprintf("%s, %d sessions", s.datapath, s.crowd)
}

// settings are all combinations asked for.
func (o failoverOptions) settings() (list []setting) {
	for _, c := range o.crowds {
		for _, d := range o.datapaths {
			list = append(list, setting{d, c})
		}
	}
	return list
}

// measureTrial measures one round on a gateway of its own, so that no round remembers the failures of others.
func measureTrial(ctx context.Context, t trial, s setting, program string, o failoverOptions) (v float64, err error) {
	w, err := newArena(ctx, t.setUp, s, program)
	if err != nil {
		return 0, err
	}
	v, err = t.measure(ctx, w, o)
	return v, errors.Join(err, w.close())
}
