package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/lab/labtest"
)

func TestParseFailover(t *testing.T) {
	for _, args := range []string{"extra", "-rounds 0", "-rounds x", "-only nonsense", "-datapath both", "-sessions 1,x", "-sessions 99999999",
		"-false 0s", "-window -1s"} {
		if _, err := parseFailover(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	if _, err := command([]string{"failover", "-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	o, err := parseFailover(strings.Fields("-rounds 3 -only metered,carrier -datapath userspace -sessions 0,500 -false 2m"), io.Discard)
	if err != nil || o.rounds != 3 || len(chosenTrials(o.only)) != 4 || o.long != 2*time.Minute {
		t.Errorf("options are %+v, %v", o, err)
	}
	if got := o.settings(); len(got) != 2 || got[0].String() != "userspace" || got[1].String() != "userspace, 500 sessions" {
		t.Errorf("settings are %v", got)
	}
	if err := failover(t.Context(), failoverOptions{binary: "/nowhere/tapgw"}, io.Discard, io.Discard); err == nil {
		t.Error("a program that is missing was accepted")
	}
}

// TestFailoverVerdicts: the worst round decides, then the median; what never happened is never good.
func TestFailoverVerdicts(t *testing.T) {
	never := errNever
	for _, c := range []struct {
		trial   trial
		values  []float64
		never   int
		verdict string
	}{
		{trial{bar: 200}, []float64{10, 200, 30}, 0, verdictMet},
		{trial{bar: 200}, []float64{10, 201, 30}, 0, verdictMedian},
		{trial{bar: 200}, []float64{10, 10, 10}, 1, verdictMedian},
		{trial{bar: 200}, []float64{10, 10}, 2, verdictMissed},
		{trial{bar: 200}, []float64{210, 250, 30}, 0, verdictMissed},
		{trial{bar: 200}, nil, 3, verdictMissed},
		{trial{}, []float64{0}, 0, verdictMet},
		{trial{}, []float64{0, 0, 1}, 0, verdictMissed},
	} {
		r := &failoverResults{}
		for _, v := range c.values {
			r.add(c.trial, setting{}, v, nil)
		}
		for range c.never {
			r.add(c.trial, setting{}, 0, never)
		}
		row := r.rows[0]
		if row.settle(); row.Verdict != c.verdict || row.Rounds != len(c.values)+c.never || row.Never != c.never {
			t.Errorf("%v and %d never: %+v, want %s", c.values, c.never, row, c.verdict)
		}
	}
}

// TestFailoverReport checks width, count and JSON.
func TestFailoverReport(t *testing.T) {
	o := failoverOptions{crowds: []int{0, 10_000}, datapaths: []string{api.DatapathKernel, api.DatapathUserspace}, long: 30 * time.Minute}
	r := &failoverResults{options: o}
	for _, t := range trials {
		for _, s := range o.settings() {
			r.add(t, s, 12345.6, nil)
			r.add(t, s, 0, errNever)
		}
	}
	var out strings.Builder
	missed, err := r.write(&out, "a machine\n")
	labtest.Must(t, err)
	if met := strings.Count(out.String(), verdictMedian); missed+met != len(r.rows) || strings.Count(out.String(), verdictMissed) != missed {
		t.Errorf("%d missed, %d met of %d:\n%s", missed, met, len(r.rows), &out)
	}
	for text := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(text, "\n")) > 84 { // five digits with everything else need more than the usual 80
			t.Errorf("wide line %q", text)
		}
	}
	if !strings.Contains(out.String(), "false switches at 5 % loss in 30m") || !strings.HasSuffix(out.String(), "\na machine\n") {
		t.Errorf("report:\n%s", &out)
	}
	r.options.json, out = true, strings.Builder{}
	_, err = r.write(&out, "a machine\n")
	labtest.Must(t, err)
	var report struct {
		Rows    []failoverRow
		Machine string
	}
	labtest.Must(t, json.Unmarshal([]byte(out.String()), &report))
	if len(report.Rows) != len(r.rows) || report.Machine != "a machine" || report.Rows[0].Never != 1 || report.Rows[0].Worst != 12345.6 {
		t.Errorf("JSON:\n%s", &out)
	}
}

// TestPauseEnd: of several pauses the longest is the failure's.
func TestPauseEnd(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1000 + int64(ms)) }
	list := []time.Time{at(1), at(2), at(30), at(930), at(931), at(990)}
	if got := pauseEnd(at(0), list); !got.Equal(at(930)) {
		t.Errorf("the pause ended at %s", got)
	}
	if v := between(at(930), at(30)); v != 0 {
		t.Errorf("%f ms until something earlier", v)
	}
}

// TestFailoverWorks: in one round on each datapath sessions go elsewhere, whatever time that takes.
func TestFailoverWorks(t *testing.T) {
	labtest.RequireRoot(t)
	program, err := filepath.Abs("../bin/tapgw")
	labtest.Must(t, err)
	if _, err := os.Stat(program); err != nil && os.Getenv("CI") == "" {
		t.Skip("the program to measure is missing: run `make build`")
	}
	o, err := parseFailover([]string{"-tapgw", program, "-rounds", "1", "-sessions", "300", "-only", "carrier,quic"}, io.Discard)
	labtest.Must(t, err)
	var out, progress bytes.Buffer
	if err := failover(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("\n%s", &out)
	if n := strings.Count(out.String(), "median "); n < 4 || strings.Contains(out.String(), "never") {
		t.Errorf("%d of 4 rows have values:\n%s", n, &out)
	}
}
