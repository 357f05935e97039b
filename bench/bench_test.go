package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/lab/labtest"
)

// TestQuick runs every row of the peers that need no program of ours.
func TestQuick(t *testing.T) {
	labtest.RequireRoot(t)
	peers := []string{nameKernel, nameRedirect, nameRouted}
	o, err := parse([]string{"-quick", "-peers", strings.Join(peers, ",")}, io.Discard)
	labtest.Must(t, err)
	var out, progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("\n%s", &out)
	for _, task := range tasks {
		if first := task.lines[0].label; slices.ContainsFunc(peers, task.measures) && !strings.Contains(out.String(), first) {
			t.Errorf("no %q in the report", first)
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
	for _, o := range []options{{peers: "kernel,other"}, {peers: namePlain, binary: "/nowhere/tapgw"}} {
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
	r := &results{tasks: tasks, rounds: 5, sources: []source{{ipv4, 5.5}, {ipv6, 4.5}}}
	for i, peer := range reportOrder {
		for _, l := range lines() {
			for _, v := range []float64{99999, 12345, 23456} {
				r.add(l.label, peer, v*(1-0.01*float64(i)))
			}
			r.add(l.label, peer, math.NaN())
		}
	}
	var out strings.Builder
	// Nobody is much faster than another, which is enough for userspace and for the limit.
	const want = 2*(2+4+2) + 4 + 1 // bulk of the LAN, packets, connections; bulk of the host, memory
	if missed := r.write(&out); missed != want || strings.Count(out.String(), "MISSED") != want {
		t.Errorf("%d bars missed, want %d:\n%s", missed, want, &out)
	}
	for text := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(text, "\n")) > 84 { // five digits need more than the usual 80
			t.Errorf("wide line %q", text)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		b       bar
		value   float64
		less    bool
		verdict string
		missed  bool
	}{
		{bar{1.5, 2}, 1.49, false, "MISSED ≥1.5", true},
		{bar{1.5, 2}, 1.5, false, "≥1.5", false},
		{bar{1.5, 2}, 2, false, "≥2, the aim", false},
		{bar{0.6, 0}, 3, false, "≥0.6", false},
		{bar{1, 0.8}, 1.1, true, "MISSED ≤1", true},
		{bar{1, 0.8}, 0.9, true, "≤1", false},
		{bar{1, 0.8}, -2, true, "≤0.8, the aim", false},
	} {
		if verdict, missed := c.b.judge(c.value, c.less); verdict != c.verdict || missed != c.missed {
			t.Errorf("%v of %+v: %q, %t, want %q", c.value, c.b, verdict, missed, c.verdict)
		}
	}
}

// TestAdded: what a gateway adds to an echo is what exceeds a plain router's, less than nothing included.
func TestAdded(t *testing.T) {
	i := slices.IndexFunc(lines(), func(l line) bool { return l.beyond != "" })
	l := lines()[i]
	for _, c := range []struct {
		routed, kernel, tapgw float64
		want                  outcome
	}{
		{50, 60, 59, outcome{"0.90", nameKernel, "≤1", false}},
		{50, 60, 61, outcome{"1.10", nameKernel, "MISSED ≤1", true}},
		{50, 60, 40, outcome{"-1.00", nameKernel, "≤0.8, the aim", false}},
		{60, 60, 59, outcome{"", nameKernel, "≤0.8, the aim", false}},
		{60, 59, 60, outcome{"", nameKernel, "MISSED ≤1", true}},
	} {
		r := &results{}
		r.add(l.beyond, nameRouted, c.routed)
		r.add(l.beyond, nameKernel, c.kernel)
		r.add(l.beyond, nameShortcut, c.tapgw)
		if got := r.compare(l, nameShortcut); len(got) != 1 || got[0] != c.want {
			t.Errorf("%+v: %+v", c, got)
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

// TestTurns: over the rounds each peer comes first in every row, with any number of rows.
func TestTurns(t *testing.T) {
	var order []string
	note := func(name string) measure {
		return func(_ context.Context, p *peer, _ settings) ([]float64, error) {
			order = append(order, name+p.name)
			return nil, nil
		}
	}
	on := []string{"a", "b"}
	b := &bench{options: options{settings: settings{rounds: 2}}, results: &results{}, progress: io.Discard}
	labtest.Must(t, b.allRounds(t.Context(), []task{{name: "1", on: on, measure: note("1")}, {name: "2", on: on[:1], measure: note("2")},
		{name: "3", on: on, measure: note("3")}, {name: "4", on: on, measure: note("4")}}, []*peer{{name: "a"}, {name: "b"}}))
	if got, want := strings.Join(order, " "), "1a 1b 2a 3a 3b 4b 4a 1b 1a 2a 3b 3a 4a 4b"; got != want {
		t.Errorf("measured %s, want %s", got, want)
	}
}

// serve makes a daemon of a handler.
func serve(t *testing.T, handler http.HandlerFunc) *daemon {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	labtest.Must(t, err)
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { labtest.Must(t, server.Close()) })
	return &daemon{client: &api.Client{Socket: socket}}
}

// TestVerify: a row of a datapath that the daemon does not run is none.
func TestVerify(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Status{Datapath: api.DatapathKernel})
	})
	for _, v := range variants {
		if err := v.verify(t.Context(), d); (err == nil) != (v.name == namePlain) {
			t.Errorf("%s on the kernel datapath without a shortcut: %v", v.name, err)
		}
	}
}

// TestSent adds up what the daemon's metrics say of all uplinks.
func TestSent(t *testing.T) {
	const metric = "tapgw_uplink_datapath_transmit_packets_total"
	for text, want := range map[string]uint64{
		metric + "{uplink=\"wan1\"} 3\n# HELP " + metric + " Packets\n" + metric + "{uplink=\"wan2\"} 1e+06\nother 9\n": 1_000_003,
		metric + "{uplink=\"wan1\"} many\n": 0,
		"other 9\n":                         0,
	} {
		d := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
		if got, err := d.sent(); got != want || (err == nil) != (want > 0) {
			t.Errorf("%d packets, %v, want %d:\n%s", got, err, want, text)
		}
	}
}

func TestReadMap(t *testing.T) {
	id, size, err := readMap([]byte("pos:\t0\nflags:\t02000002\nmap_type:\t2\nmax_entries:\t43691\nmemlock:\t2796544\nmap_id:\t17\nfrozen:\t0\n"))
	if id != "17" || size != 2796544 || err != nil {
		t.Errorf("map %q of %d bytes, %v", id, size, err)
	}
	if id, _, err := readMap([]byte("pos:\t0\nflags:\t02\n")); id != "" || err != nil {
		t.Errorf("a file is map %q, %v", id, err)
	}
	if _, _, err := readMap([]byte("memlock:\tmuch\nmap_id:\t17\n")); err == nil {
		t.Error("a map of much memory")
	}
}

// TestMapBytes counts the maps that a process has open.
func TestMapBytes(t *testing.T) {
	labtest.RequireRoot(t)
	before, err := mapBytes(os.Getpid())
	labtest.Must(t, err)
	g, err := newGenerator(ipv4, flows{1, 1}, xdpPass, 0)
	labtest.Must(t, err)
	defer g.close()
	if after, err := mapBytes(os.Getpid()); err != nil || after <= before {
		t.Errorf("%d bytes with the generator's maps (%v), %d before", after, err, before)
	}
}

// TestOwnResident leaves out what is shared with the kernel program.
func TestOwnResident(t *testing.T) {
	const smaps = `00400000-00b3b000 r-xp 00000000 fe:00 1234       /bin/tapgw
Size:               7404 kB
Rss:                4000 kB
Pss:                4000 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000100000 rw-s 00000000 00:0e 17 anon_inode:bpf-map
Rss:                1024 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Rss:                  96 kB
`
	if got, err := ownResident([]byte(smaps)); got != 4096<<10 || err != nil {
		t.Errorf("%d bytes, %v", got, err)
	}
	if own, err := residentBytes(os.Getpid()); own < 1<<20 || err != nil {
		t.Errorf("this process occupies %d bytes, %v", own, err)
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
