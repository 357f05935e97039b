package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestQuick runs every row on the kernel, which needs no program of ours.
func TestQuick(t *testing.T) {
	labtest.RequireRoot(t)
	o, err := parse([]string{"-quick", "-peers", "kernel"}, io.Discard)
	labtest.Must(t, err)
	var out, progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("\n%s", &out)
	for _, l := range lines() {
		if !strings.Contains(out.String(), l.label) {
			t.Errorf("no line %q in the report", l.label)
		}
	}
}

func lines() (all []line) {
	for _, t := range tasks {
		all = append(all, t.lines...)
	}
	return all
}

// TestInterrupt ends a run in its first measurement.
func TestInterrupt(t *testing.T) {
	labtest.RequireRoot(t)
	o, err := parse([]string{"-peers", "kernel", "-only", "bulk"}, io.Discard)
	labtest.Must(t, err)
	o.bulk = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := run(ctx, o, io.Discard, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted run: %v", err)
	}
}

// TestFloodIsWellFormed lets the gateway forward the generator's packets and has an independent decoder look at what the
// LAN port received: all checksums are right, and every endpoint has its turn.
func TestFloodIsWellFormed(t *testing.T) {
	labtest.RequireRoot(t)
	p, err := newKernel(t.Context(), 0)
	labtest.Must(t, err)
	defer func() { labtest.Must(t, p.close()) }()
	const endpoints = floodPorts + 3
	seen := make(map[string]bool)
	capture, err := p.lab.Gateway.StartCapture(lab.DeviceLAN, func(c *lab.Packet) bool {
		if c.UDP != nil {
			seen[c.Src.String()] = true
		}
		return false
	})
	labtest.Must(t, err)
	g, err := newGenerator(endpoints, xdpPass)
	labtest.Must(t, err)
	defer g.close()
	for range 2 { // frames come back rewritten
		_, err = g.inject(t.Context(), p.lab.Gateway, 1)
		labtest.Must(t, err)
	}
	report, err := capture.Stop()
	labtest.Must(t, err)
	for _, bad := range report.BadOnes {
		t.Errorf("bad packet: %s", bad)
	}
	if first := "10.0.0.2:1024"; !seen[first] {
		t.Errorf("no packet from %s", first)
	}
	if len(seen) < endpoints/2 { // the capture may lose some
		t.Errorf("packets of %d endpoints, want %d", len(seen), endpoints)
	}
}

func TestGeneratorLimits(t *testing.T) {
	for _, n := range []int{0, -1, maxFlood + 1} {
		if _, err := newGenerator(n, xdpPass); err == nil {
			t.Errorf("a flood of %d endpoints was accepted", n)
		}
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{"extra", "-rounds x", "-rounds -1", "-only nonsense", "-nonsense"} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	o, err := parse([]string{"-quick", "-rounds", "3", "-only", "udp-1000,latency"}, io.Discard)
	if err != nil || o.rounds != 3 || o.bulk != quick.bulk || len(chosen(o.only)) != 2 {
		t.Errorf("options are %+v, %v", o, err)
	}
	for _, o := range []options{{peers: "kernel,other"}, {peers: "tapgw", binary: "/nowhere/tapgw"}} {
		if err := run(t.Context(), o, io.Discard, io.Discard); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{nil, "–"},
		{[]float64{1.234}, "1.23"},
		{[]float64{30, 10, 20.55}, "20.6 (10.0–30.0)"},
		{[]float64{4000, 1000}, "2500 (1000–4000)"},
	} {
		if got := summarise(c.values).String(); got != c.want {
			t.Errorf("%v is %q, want %q", c.values, got, c.want)
		}
	}
}

// TestReport checks width, marks and the count of missed bars.
func TestReport(t *testing.T) {
	r := &results{tasks: tasks, rounds: 5, generator: 5.5}
	for _, l := range lines() {
		for _, v := range []float64{99999, 12345, 23456} {
			r.add(l.label, "kernel", v)
			r.add(l.label, "tapgw", v*0.7)
		}
		r.add(l.label, "tapgw", math.NaN())
	}
	var out strings.Builder
	if missed := r.write(&out); missed != 1 || strings.Count(out.String(), "MISSED") != 1 {
		t.Errorf("%d bars missed:\n%s", missed, &out)
	}
	for text := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(text, "\n")) > 84 { // five digits need more than the usual 80
			t.Errorf("wide line %q", text)
		}
	}
}

// TestNothingMeasured: a measurement in which nothing moved fails the run.
func TestNothingMeasured(t *testing.T) {
	b := &bench{results: &results{}, progress: io.Discard}
	for _, values := range [][]float64{{0}, {-1}} {
		labtest.Must(t, b.take(t.Context(), 0, tasks[1], "kernel", values, nil))
	}
	labtest.Must(t, b.take(t.Context(), 0, tasks[1], "kernel", nil, io.EOF))
	labtest.Must(t, b.take(t.Context(), 0, tasks[1], "kernel", []float64{1}, nil))
	if b.failures != 3 || b.results.get(tasks[1].lines[0].label, "kernel").count != 1 {
		t.Errorf("%d failures, results %+v", b.failures, b.results)
	}
}

func TestSlabShare(t *testing.T) {
	const slabinfo = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor>
nf_conntrack         128    128    248   12    1 : tunables    0    0    0 : slabdata      7      8      0
broken                 0      0    248    0    1 : tunables    0    0    0 : slabdata      0      0      0
`
	got, err := slabShare(slabinfo, "nf_conntrack")
	if want := uint64(os.Getpagesize()) / 12; err != nil || got != want {
		t.Errorf("%d bytes, %v, want %d", got, err, want)
	}
	for _, name := range []string{"missing", "broken"} {
		if _, err := slabShare(slabinfo, name); err == nil {
			t.Errorf("%s has a share", name)
		}
	}
}
